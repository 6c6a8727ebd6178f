"""What a number of passes gives: speed, fluency and variety side by side, beside an autoregressive model and the paper's shapes.

    python benchmarks/passes.py --corpus E2E --out docs/img/passes
    python benchmarks/passes.py --corpus E2E --beside e2e-teacher --seeds 3     # a student and its teacher

Each system is a process of its own; of several seeds there is the mean, each of N texts. Text is timed while it is written; nats
are those of a judge, against human dev text. The paper's shapes (`versus_paper.py`) have random weights, so of theirs there is
only the time. --threads 1 leaves a core to others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from matplotlib.figure import Figure
from points import own_process
from rich.console import Console
from rich.table import Table
from versus_paper import Measured, paper

from diffusion_lm.control import Control, Length
from diffusion_lm.control.attribute import Said
from diffusion_lm.diffusion.clamp import SampledClamp
from diffusion_lm.evaluation.metrics import distinct, self_bleu
from diffusion_lm.evaluation.systems import reservoir, target_seed
from diffusion_lm.generation.decoding import HASTE
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.store import write_whole
from diffusion_lm.text.corpus import CorpusConfig, open_corpus

HUMAN, JUDGE = "human (dev), in the model's vocabulary", "autoregressive judge, with its cache"
PASSES = (2, 4, 6, 8, 10, 14, 20)
BATCH, WARM_UP = 64, 16
ASKED: dict[str, Control] = {"a value": Said("food", "Japanese"), "a length": Length(20)}
OTHERWISE: dict[str, dict[str, Any]] = {
    "4 passes, one by one": {"steps": 4, "pairs": 0.0},
    "4 passes, by pairs alone": {"steps": 4, "head": 0.0},
    "10 passes, with the head": {"steps": 10, "head": 0.8, "clamp": SampledClamp(temperature=1.5)},
    "10 passes, T 1, time power 1": {"steps": 10, "time_power": 1.0, "clamp": SampledClamp()},
    "50 passes, one by one, T .7": {"steps": 50, "pairs": 0.0, "clamp": SampledClamp(temperature=0.7)},
}
"""Other ways to draw, by what they are."""


def quality(judge: JudgeLM, texts: list[str], words: list[list[str]]) -> Measured:
    """How fluent and how varied texts are."""
    return {
        "nats": fluency(judge, texts),
        "words": distinct(words, 1).count,
        "bigrams": distinct(words, 2).ratio,
        "self_bleu": self_bleu(words),
    }


def ours(flags: argparse.Namespace, model: str, control: Control | None, **settings: Any) -> Measured:
    """Text of a model of ours; what is asked of it is checked."""
    lm, judge = DiffusionLM.from_pretrained(model, "cpu"), JudgeLM.from_pretrained(flags.judge)
    lm.generate(WARM_UP, control, seed=1, **settings)
    made = [lm.generate(flags.n, control, seed=seed, batch_size=BATCH, **settings) for seed in range(flags.seeds)]
    each = [quality(judge, run.texts, run.words) for run in made]
    found: Measured = {key: mean(float(one[key]) for one in each) for key in each[0]}
    if control is not None:
        found["success"] = mean(float(control.success(run.texts).mean()) for run in made)
    seconds, passes = sum(run.seconds for run in made), str(made[0].network_evaluations)
    return found | {"passes": passes, "sentences": flags.n * flags.seeds, "seconds": seconds}


def autoregressive(flags: argparse.Namespace) -> Measured:
    """The judge's own samples, by its cache."""
    judge = JudgeLM.from_pretrained(flags.judge)
    judge.sample(WARM_UP, torch.Generator().manual_seed(1))
    generator, ids = torch.Generator().manual_seed(0), list[list[int]]()
    started = time.perf_counter()
    while len(ids) < flags.n:
        ids += judge.sample(min(BATCH, flags.n - len(ids)), generator)
    seconds = time.perf_counter() - started
    texts, words = [judge.tokenizer.decode(each) for each in ids], [judge.tokenizer.words(each) for each in ids]
    passes = f"{sum(map(len, ids)) / len(ids) - 1:.0f}, a word each"
    return quality(judge, texts, words) | {"sentences": flags.n, "seconds": seconds, "passes": passes}


def human(flags: argparse.Namespace) -> Measured:
    """Dev text, as many, words outside the model's vocabulary as one."""
    tokenizer, judge = DiffusionLM.from_pretrained(flags.model, "cpu").tokenizer, JudgeLM.from_pretrained(flags.judge)
    documents = (document.text for document in open_corpus(CorpusConfig(flags.corpus)).documents("dev"))
    texts = reservoir(documents, flags.n, target_seed(0, "human", ""))  # those of `evaluate`
    words = [tokenizer.words(tokenizer.encode_sentence(text)) for text in texts]
    return quality(judge, texts, words) | {"sentences": flags.n, "seconds": 0.0, "passes": ""}


def systems(flags: argparse.Namespace) -> dict[str, Callable[[], Measured]]:
    """What is measured, by name."""
    found: dict[str, Callable[[], Measured]] = {HUMAN: partial(human, flags), JUDGE: partial(autoregressive, flags)}
    for model in (flags.model, *flags.beside):
        for steps in PASSES:
            found[f"{model}, {steps} passes"] = partial(ours, flags, model, None, steps=steps)
    of_model = partial(ours, flags, flags.model)
    for name, settings in OTHERWISE.items():
        found[f"{flags.model}, {name}"] = partial(of_model, None, **settings)
    if flags.many:
        found[f"{flags.model}, 200 passes, one by one"] = partial(of_model, None, steps=200)
    for name, control in ASKED.items():
        for steps in (10, 14):
            found[f"{flags.model}, {steps} passes, {name}"] = partial(of_model, control, steps=steps)
    if flags.passes:
        found["paper's shapes, a value"] = lambda: paper(flags.passes)
    return found


def picture(results: dict[str, Measured], models: list[str]) -> Figure:
    """How fluent and how varied free text is, by sentences a second; at each point its passes."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, key, what in ((left, "nats", "nats a token"), (right, "words", "distinct words")):
        axes.axhline(float(results[HUMAN][key]), color="grey", linestyle="--", label="human")
        for model, headed in product(models, (False, True)):
            some = {steps: results[f"{model}, {steps} passes"] for steps in PASSES if (steps <= HASTE) == headed}
            label = f"{model}, {'with the head' if headed else 'by pairs'}"
            places = [(float(r["sentences"]) / float(r["seconds"]), float(r[key])) for r in some.values()]
            axes.plot(*zip(*places, strict=True), marker="o", label=label)
            for place, steps in zip(places, some, strict=True):
                axes.annotate(str(steps), place, xytext=(3, 4), textcoords="offset points", fontsize=8)
        judge = results[JUDGE]
        rate = float(judge["sentences"]) / float(judge["seconds"])
        axes.plot(rate, float(judge[key]), marker="s", linestyle="", label="autoregressive, its own judge")
        axes.set(xlabel="sentences a second", ylabel=what)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measure each system in a process of its own; print the table; write OUT.json and OUT.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="E2E, whose dev split is held against")
    parser.add_argument("--model", default="e2e-small", help="a model that knows pairs")
    parser.add_argument("--beside", nargs="*", default=[], help="other such models, as its teacher")
    parser.add_argument("--judge", default="e2e-judge")
    parser.add_argument("--n", type=int, default=1000, help="texts of each system")
    parser.add_argument("--seeds", type=int, default=1, help="how many times, with seeds 0, 1, ...")
    parser.add_argument("--passes", type=int, default=2, help="passes of the paper's networks that are timed; 0: none")
    parser.add_argument("--many", action="store_true", help="200 passes, too")
    parser.add_argument("--threads", type=int, help="of each process")
    parser.add_argument("--only", help="measure one system and print it as JSON")
    parser.add_argument("--out", type=Path, default=Path("passes"), help="for OUT.json and OUT.png")
    flags = parser.parse_args()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    if flags.only:
        sys.stdout.write(json.dumps(systems(flags)[flags.only]()) + "\n")
        return
    results: dict[str, Measured] = {name: own_process([*sys.argv, "--only", name]) for name in systems(flags)}
    people = float(results[HUMAN]["nats"])
    table = Table(
        "system", "passes", "sentences/s", "nats against human", "distinct words", "bigrams", "self-BLEU", "success"
    )
    for name, r in results.items():
        rate = f"{float(r['sentences']) / float(r['seconds']):.3g}" if r["seconds"] else ""
        nats = f"{float(r['nats']) - people:+.3f}" if "nats" in r else ""
        ratios = (
            (f"{float(r['words']):.0f}", f"{float(r['bigrams']):.3f}", f"{float(r['self_bleu']):.1f}")
            if nats
            else ("", "", "")
        )
        success = f"{100 * float(r['success']):.1f} %" if "success" in r else ""
        table.add_row(name, str(r["passes"]), rate, nats, *ratios, success)
    Console(width=160).print(table)
    texts = {"batch": BATCH, "n": flags.n, "seeds": flags.seeds}
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, **texts}
    write_whole(flags.out.with_suffix(".json"), json.dumps({"machine": machine, "systems": results}, indent=1) + "\n")
    picture(results, [flags.model, *flags.beside]).savefig(flags.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
