"""`diffusion-lm info`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from diffusion_lm.commands.configs import InfoConfig
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM

Rows = list[tuple[str, str]]


def run(config: InfoConfig) -> None:
    """Print what a model is and what it can be held to."""
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    assert lm.folder is not None
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _model(lm, lm.folder) + _controls(lm, lm.folder):
        table.add_row(Text(name, style="bold"), Text(value))
    Console(highlight=False).print(table)


def _model(lm: DiffusionLM, folder: Path) -> Rows:
    config, card = lm.config, folder / "README.md"
    width, layers, heads = config.shape
    return [
        ("folder", str(folder)),
        ("model card", str(card) if card.exists() else "none"),
        ("parameters", f"{_parameters(lm):,}"),
        ("size on disk", f"{_bytes(folder) / 1e6:,.1f} MB with its controls"),
        ("vocabulary", f"{lm.vocab_size:,} tokens"),
        (
            "shape",
            f"width {width}, {layers} layers, {heads} heads; latents of {config.embedding_dim} numbers",
        ),
        ("layout", f"{config.layout}, 1 to {lm.max_words} words"),
        ("objective", config.objective),
        (
            "config",
            ", ".join(f"{name}={value}" for name, value in asdict(config).items() if value is not None),
        ),
    ]


def _controls(lm: DiffusionLM, folder: Path) -> Rows:
    exact = lm.config.layout == "exact"
    rows = [
        ("length", "exact, 1 to " + str(lm.max_words) if exact else "by its gradient"),
        ("infill", "any number of blanks" if exact else "no: it needs the exact layout"),
    ]
    rows += [("keyword, avoid, regex", "any of its words" if exact else "no: they need the exact layout")]
    rows += [
        ("pos", _or_no(lambda: ", ".join(lm.tag_table().config.tags))),
        ("tree, span", _or_no(lambda: ", ".join(lm.leaf_table().labels))),
        (
            "by classifier",
            _or_no(lambda: f"{len(lm.syntax_model().config.chains)} chains of labels, and the tags"),
        ),
    ]
    if not (folder / "controls" / "attribute").is_dir():
        return [*rows, ("attribute", "no: train it with diffusion-lm train-control attribute")]
    try:
        classifier = lm.attribute_model()
    except UserError as error:
        return [*rows, ("attribute", f"no: {error}")]
    rows += [("attribute", f"a classifier of {_parameters(classifier):,} parameters, which knows")]
    return rows + [(f"  {name}", ", ".join(values)) for name, values in classifier.config.fields.items()]


def _or_no(what: Callable[[], str]) -> str:
    try:
        return what()
    except UserError as error:
        return f"no: {error}"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(folder: Path) -> int:
    """Size of a model's own files; its folder may hold others."""
    names = ("config.json", "tokenizer.json", "model.safetensors", "README.md")
    files = [*(folder / name for name in names), *(folder / "controls").rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())
