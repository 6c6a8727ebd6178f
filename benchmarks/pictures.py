"""The pictures of docs/paper.md, from what objective.py and undone.py have measured.

python benchmarks/pictures.py --objective runs/objective --undone runs/undone --out docs/img/paper
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_lm.control.latent import CENTRES

READ = {"paper": "x0 (the paper)", "eps": "eps", "cosine": "x0, cosine", "random-vectors": "x0, random vectors"}
"""Points whose reading is drawn, and what they are called."""
WRITTEN = {"hard clamp": "clamped", "clamp from 0.5": "clamped from t = .5 on", "no clamp": "not clamped"}
NAMES = {"renoise": "noised afresh (the paper's formula)", "ddpm": "posterior (the paper's code)"}


def _axes(figure: Figure, count: int, titles: list[str]) -> list[Axes]:
    found = figure.subplots(1, count, squeeze=False)[0]
    for axes, title in zip(found, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    return list(found)


def commit(found: dict[str, Any], model: dict[str, Any]) -> Figure:
    """The share of positions at which no word is sure, by t: when dev sentences are read, and when text is written."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    read, written = _axes(figure, 2, ["reading dev sentences at noise t", "writing, 200 steps"])
    for point, name in READ.items():
        if point in found:
            read.plot(CENTRES, [100 * x for x in found[point]["reading"]["undecided"]], marker="o", label=name)
    for way, name in WRITTEN.items():
        if way in model["writing"]:
            written.plot(CENTRES, [100 * x for x in model["writing"][way]["undecided"]], marker="o", label=name)
    for axes in (read, written):
        axes.set(xlabel="t", ylabel="undecided positions (%)", ylim=(-2, 102))
        axes.legend(frameon=False, fontsize=8)
    return figure


def undone(found: dict[str, dict[str, Any]]) -> Figure:
    """-log p of the classifier before and after the updates of a step and when the next step begins, by t and sampler."""
    figure = Figure(figsize=(4.2 * len(found), 3.6), layout="constrained")
    for axes, record in zip(_axes(figure, len(found), list(found)), found.values(), strict=True):
        for colour, (sampler, name) in zip(("C3", "C0"), NAMES.items(), strict=True):
            own = record[sampler]
            axes.plot(record["t"], own["before"], color=colour, marker="o", label=name)
            axes.plot(record["t"], own["after"], color=colour, linestyle=":", marker=".")
        axes.set(xlabel="t", ylabel="-log p a term (nats)", yscale="log")
        axes.legend(
            frameon=False, fontsize=8, title="solid: a step begins; dotted: after its updates", title_fontsize=7
        )
    return figure


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objective", type=Path, required=True)
    parser.add_argument("--undone", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/img/paper"))
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    points = json.loads((flags.objective / "scores.json").read_text(encoding="utf8"))
    steps = {path.stem: json.loads(path.read_text()) for path in sorted(flags.undone.glob("*.json"))}
    commit(points, points["model"]).savefig(flags.out / "commit.png", dpi=150)
    undone(steps).savefig(flags.out / "undone.png", dpi=150)


if __name__ == "__main__":
    main()
