"""What a model is, for people: the facts that `info` prints, and the card that stands beside its weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.program import Host
from diffusion_lm.store import CONFIG, WEIGHTS

CARD = "README.md"
"""The file of a model's card."""


def facts(lm: Host, folder: Path | None) -> dict[str, str]:
    """What a model is, in its folder if it has one, and what each control can ask of it, or why it cannot, by name."""
    shape = lm.denoiser.config
    width, layers, heads = shape.shape
    rows = {
        "parameters": f"{sum(parameter.numel() for parameter in lm.denoiser.parameters()):,}",
        "vocabulary": f"{lm.tokenizer.vocab_size:,} tokens",
        "shape": f"width {width}, {layers} layers, {heads} heads; latents of {shape.embedding_dim} numbers",
        "layout": f"{shape.layout}, 1 to {lm.max_words} words",
        "objective": shape.objective,
        "config": ", ".join(f"{name}={value}" for name, value in asdict(shape).items() if value is not None),
    }
    if folder is not None:
        names = (CONFIG, WEIGHTS, "tokenizer.json", CARD)  # the folder may hold others
        files = [*(folder / name for name in names), *(folder / "controls").rglob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file())
        card = folder / CARD
        rows |= {
            "size on disk": f"{size / 1e6:,.1f} MB with its controls",
            "folder": str(folder),
            "model card": str(card) if card.exists() else "none",
        }
    if lm.denoiser.predicts_words and not lm.padded:
        rows["pairs"] = lm.asset(PairTable).summary() if lm.has(PairTable) else "no: train-control pairs counts them"
        rows["head"] = lm.asset(CausalHead).summary() if lm.has(CausalHead) else "no: train-control head trains one"
    for name, kind in CONTROLS.items():
        try:
            rows[kind.flag or name] = kind.describe(lm)
        except UserError as error:
            rows[kind.flag or name] = f"no: {error}"
    return rows


def model_card(
    lm: Host,
    folder: Path | None,
    name: str,
    results: str = "",
    figures: dict[str, float] | None = None,
    dataset: str = "a corpus",
) -> ModelCard:
    """The card of a model as the hub wants it: metadata in YAML, what the model is, how it is used, what was measured.

    Args:
        lm: the model.
        folder: where it is, if it is anywhere.
        name: what the card calls it, and the snippets load.
        results: what was measured of it, in Markdown.
        figures: single figures by their name, which the hub lists beside the model.
        dataset: what they were measured on.
    """
    found = figures or {}
    data = ModelCardData(
        model_name=name,
        library_name="diffusion-lm",
        pipeline_tag="text-generation",
        tags=["diffusion", "controllable-text-generation"],
        eval_results=[
            EvalResult("text-generation", dataset, dataset, metric, value) for metric, value in found.items()
        ],
    )
    own = ("folder", "model card")
    rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in facts(lm, folder).items() if key not in own)
    measured = (
        results or "Nothing is said here of how well it writes; `diffusion-lm card` adds what `evaluate` measured."
    )
    return ModelCard(
        f"""---
{data.to_yaml()}
---

# {name}

A Diffusion-LM (Li, Thickstun, Gulrajani, Liang, Hashimoto 2022): it denoises a sequence of Gaussian vectors into words, and can
be steered while it does so, without retraining.

```python
from diffusion_lm import DiffusionLM

lm = DiffusionLM.from_pretrained("{name}")
print(*lm.generate(4, seed=0), sep="\\n")
```

```bash
diffusion-lm generate --model {name} -n 4
```

## What it is

| | |
|---|---|
{rows}

## What was measured

{measured}

## Limits

It writes what its corpus is like, and no word that its vocabulary lacks.
"""
    )


def _cell(value: Any) -> str:
    """A text that stays within its cell of a table."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
