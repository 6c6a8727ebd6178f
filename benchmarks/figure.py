"""The plot: how speed and memory grow with batch, length and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Result = dict[str, Any]
"""A point and its figures in one dictionary."""


def plot(results: list[Result], path: Path) -> None:
    """Draw the sweeps of one recipe.

    Args:
        results: all its points.
        path: the PNG file to write.
    """
    figure, axes = plt.subplots(2, 5, figsize=(19, 7), layout="constrained")
    panels = [
        ("train", "batch", "tokens_per_step", "tokens a step"),
        ("train", "length", "length", "tokens a sentence"),
        ("generate", "batch", "batch", "sentences a batch"),
        ("generate", "length", "length", "tokens a sentence"),
        ("generate", "steps", "steps", "denoising steps"),
    ]
    for column, (kind, sweep, x, label) in zip(axes.T, panels, strict=True):
        speed = "tokens_per_second" if kind == "train" else "samples_per_second"
        _lines(column[0], results, kind, sweep, x, speed)
        _lines(column[1], results, kind, sweep, x, "peak_mib")
        column[0].set(title=f"{kind}, by {sweep}", ylabel=speed.replace("_per_", " a ").replace("_", " "))
        column[1].set(xlabel=label, ylabel="peak memory, MiB")
    first = results[0]
    figure.suptitle(f"{Path(first['config']).stem} on {first['device']}, {first['threads']} threads")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _lines(axes: Axes, results: list[Result], kind: str, sweep: str, x: str, y: str) -> None:
    # The recipe's own point lies on every axis but that of the length, where it has no one length.
    sweeps = {sweep} if sweep == "length" else {sweep, ""}
    highest = 0.0
    for control in (False, True):
        chosen = [r for r in results if (r["kind"], r["control"]) == (kind, control) and r["sweep"] in sweeps]
        if chosen:
            pairs = sorted((r[x], r[y]) for r in chosen)
            name = "attribute control" if control else "no control" if kind == "generate" else None
            axes.plot(*zip(*pairs, strict=True), marker="o", label=name)
            highest = max(highest, *(value for _, value in pairs), 0.0)
    axes.set_ylim(0, 1.08 * highest)
    axes.grid(alpha=0.3)
    if kind == "generate":
        axes.legend(fontsize=8)
