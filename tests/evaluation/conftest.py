from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer

FIELDS = {"food": ["Thai", "Fast food"], "price": ["cheap", "£20-25"]}
TRAIN = ["Pavo serves Thai food.", "Pavo is cheap.", "Ida offers Fast food for £20-25.", "Ida is a cheap pub."]
DEV = [*(f"{name} serves cheap Thai food." for name in ("Pavo", "Ida", "Zebra")), "Ida is a pub in Oslo."]


def write_lines(path: Path, *records: Any) -> str:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny corpus, a tiny random model with its classifier, and a tiny random judge."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "train.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    (corpus / "valid.txt").write_text("\n".join(DEV), encoding="utf-8")
    tokenizer = build_word_tokenizer(TRAIN, min_count=1)
    counts = torch.zeros(17)
    counts[5:9] = 1
    lm = DiffusionLM.new(ModelConfig(width=16, layers=1, heads=2, embedding_dim=4, max_length=16), tokenizer, counts)
    lm.save_pretrained(folder / "lm")
    shape = AttributeConfig(
        fields=FIELDS,
        embedding_dim=4,
        max_length=16,
        schedule=lm.config.schedule,
        lm=lm.fingerprint,
        width=16,
        layers=1,
        heads=2,
    )
    AttributeModel(shape).save_pretrained(folder / "lm" / "controls" / "attribute")
    judge_shape = JudgeConfig(tokenizer.vocab_size, width=8, layers=1, heads=2, max_length=32)
    JudgeLM(judge_shape, tokenizer).save_pretrained(folder / "judge")
    return folder


@pytest.fixture
def config(parts: Path, tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        model=str(parts / "lm"),
        judge=str(parts / "judge"),
        corpus=CorpusConfig(str(parts / "corpus")),
        targets={"length": write_lines(tmp_path / "lengths.jsonl", *({"length": words} for words in (3, 4, 5)))},
        n=4,
        samples_per_target=3,
        steps=3,
        device="cpu",
        out=str(tmp_path / "out"),
    )
