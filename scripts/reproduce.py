"""From the corpus to docs/results.md and one HTML page: the paper's tables and ablations, ours beside the paper's.

    python scripts/reproduce.py --data DATA --into docs/results.md

DATA holds `e2e` (trainset.csv, devset.csv, testset_w_refs.csv) and `control_targets` (attribute.jsonl, pos.jsonl, spans.jsonl,
compose_pos_attr.jsonl). Each stage is a command of diffusion-lm, printed before it runs, with a log of its own under OUT/logs. A
stage that is done with the same command is not run again, so an interrupted call goes on where it stopped. `--only` runs
some stages, and `--list` prints all commands. The defaults are a small run. At the paper's size: `--targets 0 --samples 50
--free 1000 --minutes 30 --judge-minutes 30 --judge-shape "" --ablation-steps 5000 --ablation-samples 500`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stages import Plan, Stage, carry_out, shared_flags

FOLDERS = ("e2e", "control_targets")
TASKS = ("attribute", "pos", "tree", "span", "length")
COMPOSED = ("pos+attribute", "tree+attribute")
TINY = "--model.size tiny --optimizer.lr 3e-3 --run.batch_tokens 1024 --run.validate_every 100000 --run.sample_every 100000"
JUDGE, OURS, PAPER = "labels and judge", "e2e-small", "e2e-paper"
GUIDED = {"paper": "the paper's guidance", "pull": "our gradient"}
FT, FUDGE, PPLM, ABLATIONS, GIVEN = "FT and FT-PoE", "FUDGE", "PPLM", "ablations", "given words"
SMALL_JUDGE = "--judge.width 192 --judge.layers 3 --judge.heads 3 --judge.batch_tokens 2048"
SIMPLE = "--model.objective simple --model.normalize_embeddings false --model.self_conditioning false"
TRAINED = {
    "objective: cross-entropy": "",
    "objective: paper, x0": SIMPLE,
    "objective: paper, eps": f"{SIMPLE} --model.prediction eps",
    "embeddings: learned": "",
    "embeddings: random": "--model.embeddings random",
    "schedule: sqrt": "",
    "schedule: cosine": "--model.schedule cosine",
    "schedule: linear": "--model.schedule linear",
    "schedule: tan": "--model.schedule tan",
    "self-conditioning: on": "",
    "self-conditioning: off": "--model.self_conditioning false",
}
"""Ablations that are trained on the toy corpus: FIGURE: POINT, and what differs from our recipe at the size tiny."""
SAMPLED = {
    **{f"clamp: {clamp}": f"--steps 50 --clamp {clamp}" for clamp in ("sample", "soft", "hard", "off")},
    **{f"steps: {steps}": f"--steps {steps}" for steps in (10, 20, 50, 100, 200)},
}
"""Ablations of sampling alone, on the bundled model."""


@dataclass(frozen=True)
class E2EPlan(Plan):
    """How much of each."""

    judge_minutes: float
    judge_shape: str
    ablation_steps: int
    ablation_samples: int


def stages(plan: E2EPlan) -> Iterator[Stage]:
    """All stages in order; what a table needs first stands first."""
    corpus, out = f"--corpus.source {plan.data / 'e2e'}", plan.out
    targets, labels, judge = plan.data / "control_targets", f"--labels {out}/labels.jsonl", f"{out}/judge"
    yield Stage("annotate", f"annotate {corpus} --out {out}/labels.jsonl", JUDGE)
    # The judge has not read the sentences that the targets were taken from.
    yield Stage(
        "judge",
        f"train-judge {corpus} --hold_out {targets}/pos.jsonl --judge.out {judge} {plan.judge_shape} "
        f"--judge.minutes {plan.judge_minutes:g}",
        JUDGE,
    )
    evaluate = f"evaluate {corpus} --judge {judge}"
    free = f"{evaluate} --n {plan.free}{plan.measures}"
    on_targets = (
        f"{evaluate} --targets.attribute {targets}/attribute.jsonl --targets.pos {targets}/pos.jsonl "
        f"--targets.tree {targets}/pos.jsonl --targets.span {targets}/spans.jsonl "
        f"--targets.pos+attribute {targets}/compose_pos_attr.jsonl --targets.tree+attribute {targets}/compose_pos_attr.jsonl "
        f"--samples_per_target {plan.samples} --n {plan.free}{plan.limit()}"
    )
    ours = "--steps 50 --clamp soft --temperature 0.7 --attribute_by words"
    yield Stage(
        "ours",
        f"{on_targets} --tasks [{','.join((*TASKS, *COMPOSED))}] {ours} --label e2e-small --out {out}/ours",
        OURS,
    )
    yield Stage(
        "free",
        f"{free} --steps 50 --temperature 0.7 --label e2e-small --out {out}/free",
        OURS,
    )
    yield Stage("free-together", f'{free} --label "e2e-small, drawn together" --out {out}/free-together', OURS)
    yield from _baselines(plan, f"{corpus} --judge {judge}", labels, on_targets)
    if plan.outside:  # what the measures of the challenge need comes with it
        yield from _given(plan, f"{corpus} --judge {judge}", f"{evaluate} --n {plan.free}{plan.limit()}")
    yield Stage(
        "likelihood",
        f"benchmarks/likelihood.py {plan.data / 'e2e'} --judge {judge} --out {out}/likelihood",
        OURS,
    )
    yield Stage("trace", f"benchmarks/trace.py --out {out}/trace", OURS)
    yield from _trained_ablations(plan)
    yield from _sampled_ablations(plan, f"{evaluate} --n {plan.ablation_samples}")
    yield from _paper(plan, corpus, free, on_targets)
    noise = f"--dev_labels {out}/labels-dev.jsonl --out {out}/e2e-small/by_noise"
    yield Stage("noise", f"benchmarks/classifiers.py --source {plan.data / 'e2e'} {noise}", OURS)


def _baselines(plan: E2EPlan, lm: str, labels: str, on_targets: str) -> Iterator[Stage]:
    """The autoregressive methods: FT by sampling and by beams, FUDGE, products of two FT, PPLM."""
    out, minutes = plan.out, plan.minutes
    for task in TASKS:
        folder = f"{out}/models/ft-{task}"
        yield Stage(
            f"train-ft-{task}",
            f"train-baseline ft --task {task} {lm} {labels} --minutes {minutes:g} --epochs 100 --batch_tokens 1024 --lr 2e-3 "
            f"--out {folder}",
            FT,
        )
        texts = f"{on_targets} --tasks [{task}] --baseline [{folder}]"
        yield Stage(f"ft-{task}", f"{texts} --out {out}/ft-{task}", FT)
        yield Stage(f"ft-beams-{task}", f"{texts} --baseline_beams 4 --out {out}/ft-beams-{task}", FT)
    fudge = f"{out}/models/fudge"
    yield Stage(
        "train-fudge",
        f"train-baseline fudge {lm} {labels} --minutes {2 * minutes:g} --epochs 100 --batch_tokens 1024 --lr 2e-3 --out {fudge}",
        FUDGE,
    )
    every = ",".join((*TASKS, *COMPOSED))
    yield Stage("fudge", f"{on_targets} --tasks [{every}] --baseline [{fudge}] --out {out}/fudge", FUDGE)
    for task in COMPOSED:
        both = ",".join(f"{out}/models/ft-{part}" for part in task.split("+"))
        yield Stage(f"poe-{task}", f"{on_targets} --tasks [{task}] --baseline [{both}] --out {out}/poe-{task}", FT)
    pplm = f"{out}/models/pplm"
    yield Stage("train-pplm", f"train-baseline pplm {lm} --minutes {minutes / 2:g} --out {pplm}", PPLM)
    few = fewer(on_targets, plan, 2)
    yield Stage("pplm", f"{few} --tasks [attribute] --baseline [{pplm}] --out {out}/pplm", PPLM)


def _given(plan: E2EPlan, lm: str, evaluate: str) -> Iterator[Stage]:
    """E2E as it was meant: texts of the test split's meanings, ours, ours held to what they have to say, and FT's."""
    out = plan.out
    asked = f"{evaluate} --tasks [data2text] --samples_per_target"
    texts = f"{asked} {plan.samples} --model e2e-given"
    yield Stage("data2text", f"{texts} --label e2e-given --out {out}/data2text", GIVEN)
    promised = f'{fewer(texts, plan, 2)} --must_say true --label "e2e-given, must say"'
    yield Stage("data2text-promised", f"{promised} --out {out}/data2text-promised", GIVEN)
    beams = f"{asked} 1 --model e2e-given --beams 4 --label"
    yield Stage("data2text-beams", f'{beams} "e2e-given, 4 beams" --out {out}/data2text-beams', GIVEN)
    held = f'{beams} "e2e-given, 4 beams, must say" --must_say true'
    yield Stage("data2text-beams-promised", f"{held} --out {out}/data2text-beams-promised", GIVEN)
    folder = f"{out}/models/ft-data2text"
    yield Stage(
        "train-ft-data2text",
        f"train-baseline ft --task data2text {lm} --corpus.fields exchanged --minutes {3 * plan.minutes:g} --epochs 100 "
        f"--lr 1e-3 --out {folder}",
        GIVEN,
    )
    ft = f"{texts} --baseline [{folder}]"
    yield Stage("ft-data2text", f"{ft} --out {out}/ft-data2text", GIVEN)
    yield Stage("ft-beams-data2text", f"{ft} --baseline_beams 4 --out {out}/ft-beams-data2text", GIVEN)


def fewer(on_targets: str, plan: E2EPlan, share: int) -> str:
    """The same on one in `share` of the targets, for what is by far the slowest; on all where all are wanted."""
    return f"{on_targets} --limit_targets {max(1, plan.targets // share)}" if plan.targets else on_targets


def _trained_ablations(plan: E2EPlan) -> Iterator[Stage]:
    """One training a point, all of the same number of steps of the same size; points that are our recipe share one.

    On the toy corpus: a minute of two cores is enough there for text that can be told apart, and far too little on E2E.
    """
    corpus, judge = "--corpus.source toy", f"{plan.out}/judge-toy"
    yield Stage(
        "judge-toy",
        f"train-judge {corpus} --judge.out {judge} --judge.width 128 --judge.layers 2 --judge.batch_tokens 2048 "
        "--judge.minutes 1",
        ABLATIONS,
    )
    evaluate = f"evaluate {corpus} --judge {judge} --n {plan.ablation_samples}"
    trained = {}
    for label, flags in TRAINED.items():
        name = label.replace(": ", "-").replace(", ", "-")
        if flags not in trained:
            trained[flags] = f"{plan.out}/models/{name}"
            yield Stage(
                f"train-{name}",
                f"train {corpus} {TINY} --run.steps {plan.ablation_steps} {flags} --run.out {trained[flags]}",
                ABLATIONS,
            )
        yield Stage(
            f"ablation-{name}",
            f'{evaluate} --model {trained[flags]} --steps 50 --label "{label}" --out {plan.out}/ablation-{name}',
            ABLATIONS,
        )


def _sampled_ablations(plan: E2EPlan, evaluate: str) -> Iterator[Stage]:
    """Another clamp or number of steps, of the bundled model on E2E."""
    for label, flags in SAMPLED.items():
        name = label.replace(": ", "-")
        yield Stage(
            f"ablation-{name}",
            f'{evaluate} {flags} --label "{label}" --out {plan.out}/ablation-{name}',
            ABLATIONS,
        )


def _paper(plan: E2EPlan, corpus: str, free: str, on_targets: str) -> Iterator[Stage]:
    """The paper's objective, clamp and guidance, and our own gradient, on the bundled model of that objective."""
    model = "--model e2e-paper"
    # One target in four: 767 passes of two networks a batch.
    few, fewest = fewer(on_targets, plan, 4), fewer(on_targets, plan, 12)
    ways = {"paper": "--guidance paper", "pull": "--syntax_by classifier"}
    for name, how in ways.items():
        label = f'--label "e2e-paper, {GUIDED[name]}"'
        tasks, both = ",".join(TASKS), ",".join(COMPOSED)
        yield Stage(name, f"{few} --tasks [{tasks}] {model} {how} {label} --out {plan.out}/{name}", PAPER)
        yield Stage(
            f"{name}-both", f"{fewest} --tasks [{both}] {model} {how} {label} --out {plan.out}/{name}-both", PAPER
        )
    yield Stage("paper-free", f"{free} {model} --out {plan.out}/paper-free", PAPER)
    yield Stage(
        "likelihood-paper",
        f"benchmarks/likelihood.py {plan.data / 'e2e'} {model} --label e2e-paper --out {plan.out}/likelihood-paper",
        PAPER,
    )


def main() -> None:
    """Run what is missing, then report."""
    parser = shared_flags(__doc__, FOLDERS, "runs/reproduce", samples=10, targets=24)
    parser.add_argument("--judge-minutes", type=float, default=11, help="training of the judge")
    parser.add_argument("--judge-shape", default=SMALL_JUDGE, help="flags of train-judge that change its size")
    parser.add_argument("--ablation-steps", type=int, default=600, help="training of each ablation")
    parser.add_argument("--ablation-samples", type=int, default=100, help="texts of each ablation (paper: 500)")
    carry_out(parser, E2EPlan, stages, FOLDERS)


if __name__ == "__main__":
    main()
