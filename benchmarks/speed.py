"""Speed and memory of training and generation, for each recipe, with a plot of how they grow.

python benchmarks/speed.py [--config configs/e2e-small.yaml ...] [--out docs/img] [--quick | --no_sweeps]

A recipe made for a GPU is measured on a CPU with --no_sweeps --steps 10 --batch 16.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from figure import Result, plot
from points import HERE, QUICK, Point, Sweeps, own_process, points
from rich.console import Console
from rich.table import Table

PROTOTYPE = 5600
"""Training tokens a second of the prototype: 5.5 M parameters (as e2e-small), two CPU cores."""


def measure(point: Point) -> Result:
    """Measure a point in a process of its own, so that its peak memory is its own."""
    return {**asdict(point), **own_process([str(HERE / "measure.py"), json.dumps(asdict(point))])}


def training_table(results: list[Result]) -> Table:
    """The training points; the prototype's speed beside the point that it is comparable with."""
    table = Table(title="Training")
    for head in (
        "recipe",
        "parameters",
        "batch, tokens",
        "length",
        "tokens/s",
        "of the matrix rate",
        "prototype",
        "peak MiB",
    ):
        table.add_column(head, justify="left" if head == "recipe" else "right")
    for r in results:
        if r["kind"] == "train":
            comparable = not r["sweep"] and not r["tiny"] and "small" in r["config"] and r["device"] == "cpu"
            table.add_row(
                Path(r["config"]).stem,
                f"{r['parameters'] / 1e6:.1f} M",
                f"{r['tokens_per_step']:,.0f}",
                _length(r),
                f"{r['tokens_per_second']:,.0f}",
                _share(r),
                f"{PROTOTYPE:,} (x {r['tokens_per_second'] / PROTOTYPE:.1f})" if comparable else "",
                f"{r['peak_mib']:,.0f}",
            )
    return table


def generation_table(results: list[Result]) -> Table:
    """The generation points."""
    table = Table(title="Generation")
    for head in (
        "recipe",
        "control",
        "batch",
        "length",
        "steps",
        "evaluations",
        "samples/s",
        "of the matrix rate",
        "peak MiB",
    ):
        table.add_column(head, justify="left" if head in ("recipe", "control") else "right")
    for r in results:
        if r["kind"] == "generate":
            table.add_row(
                Path(r["config"]).stem,
                "attribute" if r["control"] else "none",
                f"{r['batch']:.0f}",
                _length(r),
                str(r["steps"]),
                str(r["network_evaluations"]),
                f"{r['samples_per_second']:,.2f}",
                _share(r),
                f"{r['peak_mib']:,.0f}",
            )
    return table


def _length(result: Result) -> str:
    return "as E2E" if result["length"] is None else str(result["length"])


def _share(result: Result) -> str:
    """How much of what a large product reaches on this machine."""
    return "" if result["flops_per_second"] is None else f"{result['flops_per_second'] / result['matrix_rate']:.0%}"


def main() -> None:
    """Measure, print, plot."""
    root = HERE.parent
    parser = argparse.ArgumentParser(description="Speed and memory of training and generation.")
    parser.add_argument("--config", nargs="+", default=[str(root / "configs" / "e2e-small.yaml")])
    parser.add_argument("--out", type=Path, default=root / "docs" / "img", help="for speed-RECIPE.png and .json")
    parser.add_argument("--quick", action="store_true", help="tiny models, a minute: tries the benchmark")
    parser.add_argument("--no_sweeps", action="store_true", help="each recipe's own setting alone, and no plot")
    parser.add_argument("--steps", type=int, default=Sweeps.most_steps, help="generate: denoising steps")
    parser.add_argument("--batch", type=int, default=Sweeps.batch, help="generate: sentences a batch")
    arguments = parser.parse_args()
    own = Sweeps(batch=arguments.batch, most_steps=arguments.steps)
    alone = replace(own, train_batches=(), samples=(), lengths=(), steps=())
    sweeps = QUICK if arguments.quick else alone if arguments.no_sweeps else own
    console = Console()
    everything: list[Result] = []
    for config in arguments.config:
        todo = list(points(config, sweeps))
        results = []
        for number, point in enumerate(todo, start=1):
            with console.status(f"{Path(config).stem}: point {number} of {len(todo)}"):
                results.append(measure(point))
        target = arguments.out / f"speed-{Path(config).stem}.png"
        arguments.out.mkdir(parents=True, exist_ok=True)
        if not arguments.no_sweeps:
            plot(results, target)
        target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        everything += results
    console.print(training_table(everything), generation_table(everything))
    first = everything[0]
    console.print(
        f"{first['device']}, {first['threads']} threads, torch {first['torch']}, "
        f"matrix rate {first['matrix_rate'] / 1e9:,.0f} GFLOP/s; "
        f"a process that has done nothing yet holds {first['idle_mib']:,.0f} MiB."
    )
    console.print(f"Plots and figures: {arguments.out}")


if __name__ == "__main__":
    main()
