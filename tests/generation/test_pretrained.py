"""A model in folders and on the hub: what is saved, what its card says, in which numbers it multiplies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.generation import pipeline
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer


@pytest.fixture
def lm(tmp_path: Path) -> DiffusionLM:
    """A model in a folder, with a classifier beside it."""
    tokenizer = build_word_tokenizer(["The pub is cheap .", "The bar is old ."], 1)
    config = ModelConfig(width=16, layers=1, heads=2, embedding_dim=4, max_length=12)
    made = DiffusionLM.new(config, tokenizer, torch.ones(13))
    made.save_pretrained(tmp_path / "one")
    loaded = DiffusionLM.from_pretrained(tmp_path / "one", "cpu")
    size: dict[str, Any] = {
        "embedding_dim": 4,
        "max_length": 12,
        "schedule": "sqrt",
        "width": 8,
        "layers": 1,
        "heads": 1,
    }
    shape = AttributeConfig(fields={"price": ["cheap"]}, lm=made.fingerprint, **size)
    AttributeModel(shape).save_pretrained(loaded.asset_folder(AttributeModel))
    return loaded


def test_what_is_saved_is_whole(lm: DiffusionLM, tmp_path: Path) -> None:
    lm.save_pretrained(tmp_path / "two")
    again = DiffusionLM.from_pretrained(tmp_path / "two", "cpu")
    assert again.has(AttributeModel) and again.asset(AttributeModel).config.fields == {"price": ["cheap"]}
    assert again.generate(2, steps=2).texts == lm.generate(2, steps=2).texts
    card = ModelCard.load(tmp_path / "two" / "README.md")
    assert card.data.library_name == "diffusion-lm" and "| objective |" in card.text


def test_a_card_that_somebody_wrote_stays(lm: DiffusionLM, tmp_path: Path) -> None:
    assert lm.folder is not None
    (lm.folder / "README.md").write_text("Ours.")
    lm.save_pretrained(lm.folder)
    lm.save_pretrained(tmp_path / "two")
    assert {(folder / "README.md").read_text() for folder in (lm.folder, tmp_path / "two")} == {"Ours."}


def test_the_hub_gets_the_model_its_controls_and_its_card(lm: DiffusionLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Created:
        repo_id = "ann/pubs"

    def upload(api: HfApi, *, folder_path: Path, **kwargs: Any) -> str:
        files = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        sent.update({path.relative_to(folder_path).as_posix(): path.read_bytes() for path in files})
        return "address"

    monkeypatch.setattr(HfApi, "create_repo", lambda api, **kwargs: Created())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert lm.folder is not None
    (lm.folder / "README.md").unlink()
    assert lm.push_to_hub("ann/pubs") == "address"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= sent.keys()
    assert "controls/attribute/model.safetensors" in sent and b'from_pretrained("ann/pubs")' in sent["README.md"]
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in sent)


def test_the_hub_is_asked_for_what_is_wanted(lm: DiffusionLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repo: str, **kwargs: Any) -> str:
        asked.update(kwargs, repo=repo)
        return str(lm.folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert pipeline.DiffusionLM.from_pretrained("ann/pubs", "cpu", revision="v1", local_files_only=True).folder
    assert (asked["repo"], asked["revision"], asked["local_files_only"]) == ("ann/pubs", "v1", True)
    assert not any("bin" in pattern or "pt" in pattern for pattern in asked["allow_patterns"])


def test_a_model_multiplies_in_the_dtype_that_is_asked(lm: DiffusionLM) -> None:
    assert lm.folder is not None
    for dtype in (torch.float32, torch.bfloat16):
        assert DiffusionLM.from_pretrained(lm.folder, "cpu", dtype=dtype).dtype == dtype == lm.to(dtype).dtype
    assert lm.denoiser.embedding.weight.dtype == torch.float32
    with pytest.raises(UserError, match=r"not in torch\.float16"):
        DiffusionLM.from_pretrained(lm.folder, "cpu", dtype=torch.float16)
