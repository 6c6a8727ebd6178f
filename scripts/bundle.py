"""Put a trained model and its controls, or a judge, into the package, in bf16: scripts/bundle.py runs/e2e-small e2e-small."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from diffusion_lm.control import ASSETS
from diffusion_lm.generation import pipeline
from diffusion_lm.generation.pipeline import DiffusionLM, find_model
from diffusion_lm.model import causal
from diffusion_lm.store import CONFIG, MODELS, bundled, read_json


def save_in_bf16(lm: DiffusionLM, folder: Path) -> None:
    """A model and what its controls have learned; counts stay numbers of their own kind."""
    lm.save_pretrained(folder, torch.bfloat16)
    for kind in ASSETS.values():
        if lm.has(kind):
            asset, dtype = lm.asset(kind), {"dtype": torch.bfloat16} if issubclass(kind, torch.nn.Module) else {}
            asset.save_pretrained(folder / "controls" / kind.name, **dtype)


def main() -> None:
    """Load, cast, save; the model card beside them is written by hand and stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of the model or judge")
    parser.add_argument("name", help="name under which from_pretrained will find it")
    arguments = parser.parse_args()
    found = find_model(arguments.model)
    judge = read_json(found / CONFIG).get("kind") == causal.KIND.name
    folder = bundled(causal.KIND if judge else pipeline.KIND).get(arguments.name, MODELS / arguments.name)
    if judge:
        causal.JudgeLM.from_pretrained(found).save_pretrained(folder, torch.bfloat16)
    else:
        save_in_bf16(DiffusionLM.from_pretrained(found, device="cpu"), folder)


if __name__ == "__main__":
    main()
