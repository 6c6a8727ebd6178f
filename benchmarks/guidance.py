"""Follow the targets of a task by the gradients of classifiers, at every setting of a grid: a table, and all texts.

    python benchmarks/guidance.py --model e2e-paper --task span --targets FILE --judge runs/judge --out runs/guidance/span

The grid is the paper's own (appendix C): step .05, .1, .15, .2 and lambda .1, .01, .001, .0005, which is searched on targets that
are not measured afterwards. All targets of a setting are one batch. Texts go to OUT/texts-SETTING.jsonl, which is not made
again; without --judge they are only written, which needs no tagger, and `evaluate --texts` can score them too.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import Adagrad, Guidance, InnerLoop, Proximal, Pull
from diffusion_lm.diffusion.clamp import HardClamp
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.evaluation.metrics import distinct
from diffusion_lm.evaluation.systems import spread
from diffusion_lm.evaluation.tasks import find_tasks, together
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.store import write_whole
from diffusion_lm.text.spacing import words_of

logger = logging.getLogger("guidance")
UNTIL = Guidance.paper().until
WAYS = SamplingConfig(attribute_by="classifier", syntax_by="classifier")


def grid(flags: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `generate` is called with, by the name of the setting."""
    found: dict[str, dict[str, Any]] = {}
    kinds = {"sign": (InnerLoop, UNTIL), "adagrad": (Adagrad, UNTIL), "proximal": (Proximal,)}
    for kind, sampler, inner, rate, weight in product(
        flags.kinds, flags.samplers, flags.inner, flags.rates, flags.fluency
    ):
        follow: Guidance
        name = f"{kind}-{sampler}-k{inner}-rate{rate:g}"
        if kind == "pull":
            follow = Pull(inner, rate)
        else:
            make, *rest = kinds[kind]
            follow, name = make(inner, rate, weight, *rest), f"{name}-fluency{weight:g}"
        found[name] = {"guidance": follow, "sampler": SAMPLERS[sampler](), "clamp": HardClamp(), "steps": flags.steps}
    return found


def write(lm: DiffusionLM, flags: argparse.Namespace, controls: dict[str, Control | None]) -> None:
    """The texts of every setting that has none yet."""
    wanted = [control for control in controls.values() for _ in range(flags.samples)]
    names = [name for name in controls for _ in range(flags.samples)]
    for setting, how in grid(flags).items():
        path = flags.out / f"texts-{setting}.jsonl"
        if path.exists():
            continue
        made = lm.generate(len(wanted), wanted, seed=flags.seed, batch_size=flags.batch_size or len(wanted), **how)
        rows = [
            {"task": flags.task, "target": name, "text": text, "seconds": made.seconds / len(wanted)}
            for name, text in zip(names, made.texts, strict=True)
        ]
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        logger.info("%s %s: %.1f s, %d passes", flags.task, setting, made.seconds, made.network_evaluations)


def score(flags: argparse.Namespace, controls: dict[str, Control | None]) -> None:
    """Success, fluency and variety of every setting."""
    judge, rows = JudgeLM.from_pretrained(flags.judge).eval(), []
    for path in sorted(flags.out.glob("texts-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
        found: dict[str, list[str]] = {}
        for line in lines:
            found.setdefault(line["target"], []).append(line["text"])
        parts: dict[str, list[float]] = {}
        for name, texts in found.items():
            control = controls[name]
            for part in control.parts() if control else []:
                parts.setdefault(type(part).__name__, []).append(float(part.success(texts).mean()))
        texts = [line["text"] for line in lines]
        row = {"setting": path.stem.removeprefix("texts-"), **{n: sum(v) / len(v) for n, v in parts.items()}}
        row |= {"nats": fluency(judge, texts), "different": len(set(texts)) / len(texts), "n": len(texts)}
        rows.append(row | {"words": distinct([words_of(text) for text in texts], 1).count})
    rows.sort(key=lambda row: -sum(value for name, value in row.items() if name[0].isupper()))
    table = Table(
        *rows[0], title=f"{flags.task}, {len(controls)} targets x {flags.samples}, {flags.steps} steps, {flags.model}"
    )
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)
    write_whole(flags.out / "scores.json", json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Write, and score where a judge is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="e2e-paper")
    parser.add_argument("--task", required=True, help="a control, or several joined by +")
    parser.add_argument("--targets", help="file of targets; default: all that the control names")
    parser.add_argument("--limit", type=int, help="so many of the targets, evenly spread")
    parser.add_argument("--others", action="store_true", help="those that --limit leaves out instead, of them as many")
    parser.add_argument("--samples", type=int, default=4, help="texts a target")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=["sign"], choices=["sign", "adagrad", "proximal", "pull"])
    parser.add_argument("--samplers", nargs="+", default=["renoise", "ddpm"], choices=sorted(SAMPLERS))
    parser.add_argument("--inner", nargs="+", type=int, default=[3], help="updates a step (K)")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05, 0.1, 0.15, 0.2])
    parser.add_argument("--fluency", nargs="+", type=float, default=[0.1, 0.01, 0.001, 0.0005], help="lambda")
    parser.add_argument("--batch-size", type=int, help="default: all texts of a setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    lm, (task,) = DiffusionLM.from_pretrained(flags.model), find_tasks([flags.task])
    targets = task.targets(lm, flags.targets)
    names = spread(list(targets), flags.limit)
    if flags.others:
        names = spread([name for name in targets if name not in names], flags.limit)
    controls = {name: together(task.asks(targets[name], WAYS)) for name in names}
    flags.out.mkdir(parents=True, exist_ok=True)
    write(lm, flags, controls)
    if flags.judge:
        score(flags, controls)


if __name__ == "__main__":
    main()
