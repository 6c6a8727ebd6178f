"""The denoising of a few sentences, step by step, as trace.json for `diffusion-lm report`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diffusion_lm.control import Length, Said
from diffusion_lm.diffusion.clamp import SoftClamp
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step


def main() -> None:
    """Write two sentences under a control, and what stood there before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="e2e-small")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for trace.json")
    flags = parser.parse_args()
    lm, steps = DiffusionLM.from_pretrained(flags.model, "cpu"), []

    def keep(step: Step) -> None:
        texts = [lm.tokenizer.decode_unfinished(ids) for ids in step.ids.tolist()]
        steps.append({"t": step.t, "texts": texts})

    control = Said("food", "Japanese") & Length(14)
    settings: dict[str, Any] = {"steps": flags.steps, "clamp": SoftClamp(temperature=0.7), "seed": flags.seed}
    lm.generate(2, control, callback=keep, **settings)
    record = {"title": f"food=Japanese, 14 words, seed {flags.seed}", "steps": steps}
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "trace.json").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
