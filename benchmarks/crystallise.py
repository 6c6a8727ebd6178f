"""How the words of one sentence settle while it is denoised, free and under controls: the pictures of docs/controls.md.

python benchmarks/crystallise.py --out docs/img/crystallise
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_lm.control import Avoid, Control, Length, Pos, Said
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step

WORDS, ROWS = 12, 9
ASKED: dict[str, Control] = {
    "free (12 words)": Length(WORDS),
    "food=Japanese, and nobody says pub": Said("food", "Japanese") & Avoid("pub") & Length(WORDS),
    "tags: PROPN AUX DET ADJ NOUN ADP DET NOUN NOUN PUNCT": Pos("PROPN AUX DET ADJ NOUN ADP DET NOUN NOUN PUNCT"),
}
"""What is asked of each sentence, by the title of its panel."""
SETTLED, OPEN = "#15324f", "#9aa7b2"


def watched(lm: DiffusionLM, control: Control, seed: int) -> dict[str, Any]:
    """The likeliest words of a sentence at every step, its noise levels, and the words that were written."""
    steps: list[dict[str, Any]] = []

    def keep(step: Step) -> None:
        steps.append({"t": step.t, "words": lm.tokenizer.words(step.ids[0].tolist())})

    out = lm.generate(1, control, seed=seed, callback=keep)
    return {"text": out.texts[0], "words": out.words[0], "steps": steps}


def panel(axes: Axes, title: str, found: dict[str, Any]) -> None:
    """A line a step, from noise down to the text; what is already the word that will stand there is dark."""
    last, steps = found["words"], found["steps"]
    shown = sorted({round(i * (len(steps) - 1) / (ROWS - 1)) for i in range(ROWS)})
    lines = [(f"{steps[i]['t']:.2f}", steps[i]["words"]) for i in shown] + [("text", last)]
    widths = [max([len(words[i]) for _, words in lines if i < len(words)], default=1) + 1.5 for i in range(len(last))]
    starts = [sum(widths[:i]) for i in range(len(last))]
    for row, (label, words) in enumerate(lines):
        axes.text(-2, -row, label, ha="right", va="center", fontsize=8, color="#666666")
        for i, word in enumerate(words[: len(last)]):
            settled = word == last[i]
            colour, weight = (SETTLED, "bold") if settled else (OPEN, "normal")
            axes.text(starts[i], -row, word, va="center", fontsize=8.5, color=colour, weight=weight, family="monospace")
    axes.axhline(0.5 - len(lines) + 1, color="#999999", linewidth=0.6)
    axes.set(title=title, xlim=(-8, sum(widths)), ylim=(0.7 - len(lines), 0.7))
    axes.title.set_fontsize(10)
    axes.axis("off")


def main() -> None:
    """Write OUT.png and, beside it, the words as OUT.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="e2e-small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/img/crystallise"))
    flags = parser.parse_args()
    lm = DiffusionLM.from_pretrained(flags.model, "cpu")
    found = {title: watched(lm, control, flags.seed) for title, control in ASKED.items()}
    figure = Figure(figsize=(9, 2.9 * len(found)), layout="constrained")
    for axes, (title, record) in zip(figure.subplots(len(found), 1), found.items(), strict=True):
        panel(axes, title, record)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(flags.out.with_suffix(".png"), dpi=90)
    record = {"model": flags.model, "seed": flags.seed, "sentences": found}
    flags.out.with_suffix(".json").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
