"""What the latent classifiers of a model know at which noise, on the dev split: a table, and a plot beside the numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.latent import CENTRES, LatentTrainConfig
from diffusion_lm.control.syntax import SyntaxModel, SyntaxTrainConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig


def main() -> None:
    """Measure, print, and write OUT.json and OUT.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="e2e-small")
    parser.add_argument("--source", required=True, help="the corpus")
    parser.add_argument("--dev_labels", default="runs/labels-dev.jsonl", help="as annotate writes it")
    parser.add_argument("--out", type=Path, default=Path("docs/img/classifiers"))
    arguments = parser.parse_args()
    lm = DiffusionLM.from_pretrained(arguments.model, "cpu")
    corpus = CorpusConfig(source=arguments.source)
    attribute = lm.asset(AttributeModel).dev_accuracy(lm, LatentTrainConfig(corpus=corpus))
    labelled = SyntaxTrainConfig(corpus=corpus, dev_labels=arguments.dev_labels)
    curves = attribute | lm.asset(SyntaxModel).dev_accuracy(lm, labelled)
    table = Table("t", *curves, title="Accuracy on dev, by noise level")
    for t, *values in zip(CENTRES, *curves.values(), strict=True):
        table.add_row(f"{t:.2f}", *(f"{value:.1%}" for value in values))
    Console().print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"t": CENTRES, "by": curves}
    arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf8")
    _plot(curves, arguments.out.with_suffix(".png"))


def _plot(curves: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(CENTRES, [100 * value for value in values], marker="o", label=name)
    axes.set(xlabel="noise level t", ylabel="right on dev (%)", xlim=(0, 1), ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
