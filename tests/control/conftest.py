"""A tiny language model on the toy grammar, with an untrained classifier saved beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from diffusion_lm.text.toy import sample_toy


def build(layout: str, folder: Path) -> DiffusionLM:
    torch.manual_seed(0)
    texts = [document.text for document in sample_toy(200, seed=0)]
    tokenizer = build_word_tokenizer(texts, 1)
    lengths = torch.tensor([len(tokenizer.encode_sentence(text)) for text in texts])
    config = ModelConfig(width=32, layers=1, heads=2, max_length=32, layout=layout)  # type: ignore[arg-type]
    lm = DiffusionLM.new(config, tokenizer, torch.bincount(lengths, minlength=33))
    # A head of zeros would say that every word is as likely, whatever z_t.
    torch.nn.init.normal_(lm.head.out.weight, std=0.3)
    lm.save_pretrained(folder)
    fields = {"food": ["Thai", "Greek"], "Type": ["cafe", "bar"], "price": ["cheap"]}
    AttributeModel(AttributeConfig(fields, 16, 32, "sqrt", lm.fingerprint, 16, 1, 2)).save_pretrained(
        folder / "controls" / "attribute"
    )
    return DiffusionLM.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build("exact", tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="session")
def padded(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build("padded", tmp_path_factory.mktemp("padded"))
