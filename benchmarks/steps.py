"""What a step of generation decides, by its noise level: a picture, and the numbers beside it.

python benchmarks/steps.py --judge runs/judge --out docs/img/steps
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from diffusion_lm.control.pairs import TIMES, PairTable
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step
from diffusion_lm.model.causal import JudgeLM, fluency

POWERS = (1.0, 0.7, 0.5)


def watched(lm: DiffusionLM, judge: JudgeLM, n: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    """By step of one batch: t, the share of words that differ from those before, and the nats a token of the text so far."""
    seen: list[Step] = []
    lm.generate(n, callback=seen.append, batch_size=n, seed=0, **settings)
    texts = [[lm.tokenizer.decode_unfinished(ids) for ids in step.ids.tolist()] for step in seen]
    words = seen[-1].ids
    real = (words != lm.tokenizer.pad_id).logical_and(words != lm.tokenizer.end_id)
    changed = [float((now.ids != last.ids)[real].float().mean()) for last, now in pairwise(seen)]
    return {
        "t": [step.t for step in seen],
        "changed": [1.0, *changed],
        "nats": [fluency(judge, [text for text in each if text]) for each in texts],
    }


def picture(open_: dict[str, list[float]], runs: dict[str, dict[str, list[float]]]) -> Figure:
    """What is open at t, what each step changes, and how good the text is after each pass."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(TIMES, open_["one by one"], marker="o", label="drawn one by one")
    left.plot(TIMES, open_["together"], marker="o", label="drawn together")
    left.set(xlabel="t", ylabel="-log p(w | z_t) of dev text, nats a word", title="what is open")
    for power, run in runs.items():
        middle.plot(
            run["t"], [100 * share for share in run["changed"]], marker=".", label=f"times to the power {power}"
        )
        right.plot(range(1, len(run["t"]) + 1), run["nats"], marker=".", label=f"times to the power {power}")
    middle.set(xlabel="t of the step", ylabel="words that the step changes (%)", title="what a step decides")
    right.set(xlabel="passes", ylabel="nats a token of the likeliest words", title="how good they are by then")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measure; write OUT.json and OUT.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="e2e-small")
    parser.add_argument("--judge", required=True, help="folder of the judge")
    parser.add_argument("--n", type=int, default=200, help="sentences")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/img/steps"))
    flags = parser.parse_args()
    lm, judge = DiffusionLM.from_pretrained(flags.model, "cpu"), JudgeLM.from_pretrained(flags.judge)
    config = lm.asset(PairTable).config
    open_ = {"one by one": config.nats, "together": config.tied}
    runs = {f"{p:g}": watched(lm, judge, flags.n, {"steps": flags.steps, "time_power": p}) for p in POWERS}
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"model": flags.model, "n": flags.n, "t": TIMES, "open": open_, "by_power": runs}
    flags.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    picture(open_, runs).savefig(flags.out.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
