"""A tiny language model on the toy grammar, with counts of the grammar's tags and trees and untrained classifiers beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.annotate.trees import leaves_of, read_tree
from diffusion_lm.control import Asset, Control, Energy, Latents, Program
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.leaves import Sentence, count_leaves
from diffusion_lm.control.syntax import SyntaxConfig, SyntaxModel
from diffusion_lm.control.tables import count_tags
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from diffusion_lm.text.toy import toy_documents


def build(layout: str, folder: Path) -> DiffusionLM:
    torch.manual_seed(0)
    documents = list(islice(toy_documents(0), 200))
    tokenizer = build_word_tokenizer([document.text for document in documents], 1)
    lengths = torch.tensor([len(tokenizer.encode_sentence(document.text)) for document in documents])
    config = ModelConfig(width=32, layers=1, heads=2, max_length=32, layout=layout)  # type: ignore[arg-type]
    lm = DiffusionLM.new(config, tokenizer, torch.bincount(lengths, minlength=33))
    # A head of zeros would say that every word is as likely, whatever z_t.
    torch.nn.init.normal_(lm.denoiser.head.out.weight, std=0.3)
    lm.save_pretrained(folder)
    shape: dict[str, Any] = {"embedding_dim": 16, "max_length": 32, "schedule": "sqrt", "lm": lm.fingerprint}
    shape |= {"width": 16, "layers": 1, "heads": 2}
    fields = {"food": ["Thai", "Greek"], "Type": ["cafe", "bar"], "price": ["cheap"]}
    AttributeModel(AttributeConfig(fields=fields, **shape)).save_pretrained(folder / "controls" / "attribute")
    syntax = SyntaxConfig(tags=list(UPOS), chains=["S", "NP", "VP", "PP"], **shape)
    SyntaxModel(syntax).save_pretrained(folder / "controls" / "syntax")
    sentences = [
        Sentence(tokenizer.encode(d.text), leaves_of(read_tree(d.tree or "")), d.tags or ()) for d in documents
    ]
    table = count_leaves(
        sentences, UPOS, tokenizer.vocab_size, parser="gold", smoothing=0.1, min_count=1, lm=lm.fingerprint
    )
    table.save_pretrained(folder / "controls" / "tree")
    tagged = ((each.ids, each.tags) for each in sentences)
    tags = count_tags(tagged, UPOS, tokenizer.vocab_size, tagger="gold", smoothing=0.1, lm=lm.fingerprint)
    tags.save_pretrained(folder / "controls" / "pos")
    return DiffusionLM.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build("exact", tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="session")
def padded(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build("padded", tmp_path_factory.mktemp("padded"))


@pytest.fixture(scope="session")
def bundled() -> DiffusionLM:
    return DiffusionLM.from_pretrained("e2e-small", "cpu")


class Hosted:
    """A model with certain assets and no others."""

    def __init__(self, lm: DiffusionLM, *assets: Asset) -> None:
        self.lm, self.assets = lm, {type(asset): asset for asset in assets}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def has(self, kind: type[Asset]) -> bool:
        return kind in self.assets

    def asset(self, kind: type[Asset]) -> Asset:
        return self.assets[kind]


class Unjudged(Control):
    """Base: a control whose success is of no interest."""

    def success(self, texts: Sequence[str]) -> Tensor:
        return torch.ones(len(texts))


@dataclass(frozen=True)
class Quadratic(Unjudged):
    """Energy weight |z|^2 / 2, whose gradient is known."""

    weight: float

    def compile(self, host: Any, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
        energies = (Energy(lambda latents: self.weight * latents.z.square().flatten(1).sum(-1) / 2),)
        return [Program(canvas, energies=energies) for canvas in canvases]


def programs(control: Control, lm: Any, n: int = 1, canvas: Canvas | None = None) -> list[Program]:
    """What a control compiles to for n sentences."""
    return control.compile(lm, [canvas or Canvas(lm.max_words)] * n, torch.Generator().manual_seed(0))


def energy(control: Control, lm: Any) -> Callable[[Latents], Tensor]:
    """The energy of a control that has one."""
    (only,) = programs(control, lm)[0].energies
    return only.of


def latents(z: Tensor, lm: Any, mask: Tensor | None = None) -> Latents:
    """What energies read at t = 0.3."""
    mask = torch.ones(z.shape[:2], dtype=torch.bool) if mask is None else mask
    return Latents(z, torch.full((len(z),), 0.3), mask, z, z, lm.denoiser.embedding.vectors().detach())
