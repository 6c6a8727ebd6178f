"""From the corpus to docs/results.md and one HTML page: the paper's tables and ablations, ours beside the paper's.

    python scripts/reproduce.py --data DATA --into docs/results.md
    python scripts/reproduce.py --data DATA --stories --out runs/stories --into docs/stories.md

DATA holds `e2e` (trainset.csv, devset.csv, testset_w_refs.csv) and `control_targets` (attribute.jsonl, pos.jsonl, spans.jsonl,
compose_pos_attr.jsonl); for `--stories`, ROCStories and the infilling of aNLG, `roc` (train.txt, train_recased.txt, valid.txt)
and `anlg` (dev.json). Each stage is a command of diffusion-lm, printed before it runs, with a log of its own under OUT/logs. A
stage that is done with the same command is not run again, so an interrupted call goes on where it stopped. `--only` runs
some stages, and `--list` prints all commands. The defaults are a small run. At the paper's size: `--targets 0 --samples 50
--free 1000 --minutes 30 --judge-minutes 30 --judge-shape "" --ablation-steps 5000 --ablation-samples 500`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from diffusion_lm.store import write_whole

logger = logging.getLogger("reproduce")

TASKS = ("attribute", "pos", "tree", "span", "length")
COMPOSED = ("pos+attribute", "tree+attribute")
TINY = "--model.size tiny --optimizer.lr 3e-3 --run.batch_tokens 1024 --run.validate_every 100000 --run.sample_every 100000"
JUDGE, OURS, PAPER = "labels and judge", "e2e-small", "e2e-paper"
GUIDED = {"paper": "the paper's guidance", "pull": "our gradient"}
FT, FUDGE, PPLM, ABLATIONS, GIVEN = "FT and FT-PoE", "FUDGE", "PPLM", "ablations", "given words"
STORIES, INFILLING = "stories", "infilling"
ON_GAPS = (
    "--run.freeze_embeddings true --model.given 1 --optimizer.blocks muon --optimizer.lr 1.5e-3 --optimizer.warmup 20 "
    "--optimizer.decay linear --optimizer.weight_decay 0.1 --optimizer.ema 0.98 --run.batch_tokens 4096 --run.steps 800"
)
"""How a model of stories goes on to gaps of one sentence; it keeps its words, so that its pairs stay right."""
ON_A_CPU = ("configs/roc-tiny.yaml", "configs/roc-tiny-on.yaml")
"""How a model of stories is trained there."""
STORY_TASKS = ("length", "keyword", "regex", "pos", "tree", "span")
KEYWORDS = (
    "dog", "school", "money", "beach", "doctor", "birthday", "car", "pizza", "phone", "rain", "job", "mother", "baseball",
    "guitar", "cake", "lost", "afraid", "happy", "brand new", "fell asleep",
)  # fmt: skip
PATTERNS = (
    r"Tom .*", r"One day .*", r".* was very (happy|sad) \.", r".* (dog|cat) .*", r"(He|She) .*", r"My (mother|father) .*",
    r"[A-Z]\w* wanted a .*", r".* never .* again \.", r"The .*", r"I .* my .*", r".* \? .*", r".* ! .*", r".* at the end .*",
    r".* (ran|walked) to the .*", r"[A-Z]\w+ was .* \. (He|She) .*", r".* but .* \.", r"Last [a-z]+ .*", r".* decided to .*",
    r".* a new [a-z]+ .*", r"When .*",
)  # fmt: skip
"""What stories are held to where no corpus names targets."""
DRAWN = "--steps 20 --head 1 --temperature 1"
"""How a model that has learned little of stories draws them best: held by its head, in more steps than one that has."""
PARSED = 3000
"""Stories of which words are counted under tags and trees."""
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


class Stage(NamedTuple):
    """A command of diffusion-lm, or of Python where it begins with a file."""

    name: str
    command: str
    part: str
    """What it belongs to in the table of times."""


class Plan(NamedTuple):
    """What all stages share."""

    data: Path
    out: Path
    samples: int
    targets: int
    """Of each task; 0: all."""
    free: int
    minutes: float
    judge_minutes: float
    judge_shape: str
    ablation_steps: int
    ablation_samples: int
    outside: bool
    stories: bool = False
    story: Sequence[str] = ON_A_CPU


def stages(plan: Plan) -> Iterator[Stage]:
    """All stages in order; what a table needs first stands first."""
    yield from _stories(plan) if plan.stories else _e2e(plan)


def _e2e(plan: Plan) -> Iterator[Stage]:
    """The paper's tables and ablations on E2E."""
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
    limit = f" --limit_targets {plan.targets}" if plan.targets else ""
    evaluate = f"evaluate {corpus} --judge {judge}"
    measures = f" --outside true --outside_n {plan.free}" if plan.outside else ""
    free = f"{evaluate} --n {plan.free}{measures}"
    on_targets = (
        f"{evaluate} --targets.attribute {targets}/attribute.jsonl --targets.pos {targets}/pos.jsonl "
        f"--targets.tree {targets}/pos.jsonl --targets.span {targets}/spans.jsonl "
        f"--targets.pos+attribute {targets}/compose_pos_attr.jsonl --targets.tree+attribute {targets}/compose_pos_attr.jsonl "
        f"--samples_per_target {plan.samples} --n {plan.free}{limit}"
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
        yield from _given(plan, f"{corpus} --judge {judge}", f"{evaluate} --n {plan.free}{limit}")
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


def _baselines(plan: Plan, lm: str, labels: str, on_targets: str) -> Iterator[Stage]:
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


def _given(plan: Plan, lm: str, evaluate: str) -> Iterator[Stage]:
    """E2E as it was meant: texts of the test split's meanings, ours, ours held to what they have to say, and FT's."""
    out = plan.out
    texts = f"{evaluate} --tasks [data2text] --samples_per_target {plan.samples} --model e2e-given"
    yield Stage("data2text", f"{texts} --label e2e-given --out {out}/data2text", GIVEN)
    promised = f'{fewer(texts, plan, 2)} --must_say true --label "e2e-given, must say"'
    yield Stage("data2text-promised", f"{promised} --out {out}/data2text-promised", GIVEN)
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


def _stories(plan: Plan) -> Iterator[Stage]:
    """ROCStories: a model of theirs, free stories and stories under control, and gaps of one sentence (aNLG)."""
    out, lm = plan.out, f"{plan.out}/models/roc"
    every, judge = f"--corpus.source {out}/roc", f"{plan.out}/judge"
    yield Stage("judge", f"train-judge {every} --judge.out {judge} --judge.minutes {10 * plan.minutes:g}", STORIES)
    yield from _story_model(plan, every, lm)
    yield Stage("pairs", f"train-control pairs --model {lm} {every}", STORIES)
    yield Stage("head", f"train-control head --model {lm} {every} --width 256 --steps 1000", STORIES)
    some = f"--corpus.source {out}/some.txt --labels {out}/labels.jsonl"
    for name in ("pos", "tree"):
        yield Stage(name, f"train-control {name} --model {lm} {some}", STORIES)
    dev = f"{out}/labels-dev.jsonl"
    yield Stage("labels", f"annotate {every} --split dev --out {dev}", STORIES)
    yield Stage("targets", f"make-targets --labels {dev} --n {plan.targets or 100} --out {out}/targets", STORIES)
    evaluate = f"evaluate {every} --judge {judge} --n {plan.free}"
    measures = f" --outside true --outside_n {plan.free}" if plan.outside else ""
    yield Stage("free", f"{evaluate} --model {lm}{measures} {DRAWN} --label ours --out {out}/free", STORIES)
    likely = f"benchmarks/likelihood.py {out}/roc --model {lm} --label ours --judge {judge}"
    yield Stage("likelihood", f"{likely} --out {out}/likelihood", STORIES)
    files = " ".join(f"--targets.{task} {out}/targets/{task}.jsonl" for task in STORY_TASKS)
    held = f"{evaluate} --model {lm} {files} --tasks [{','.join(STORY_TASKS)}] --samples_per_target {plan.samples}"
    yield Stage("controls", f"{held} --quality fast --label ours --out {out}/controls", STORIES)
    if plan.outside:  # what its measures need comes with it
        yield from _infilling(plan, lm, judge, evaluate)


def _story_model(plan: Plan, every: str, lm: str) -> Iterator[Stage]:
    """A model of stories by one configuration, or by several that go on from each other; the last reads all stories."""
    init = ""
    for config in plan.story[:-1]:
        folder = f"{plan.out}/models/{Path(config).stem}"
        clean = f"--corpus.source {plan.data / 'roc'}"
        yield Stage(f"train-{Path(config).stem}", f"train --config {config} {clean}{init} --run.out {folder}", STORIES)
        init = f" --run.init {folder}"
    yield Stage("train", f"train --config {plan.story[-1]} {every}{init} --run.out {lm}", STORIES)


def _infilling(plan: Plan, lm: str, judge: str, evaluate: str) -> Iterator[Stage]:
    """Table 5 on the dev split of aNLG: ours, and an autoregressive model that reads both observations first."""
    out, every = plan.out, f"--corpus.source {plan.out}/roc"
    gaps, ft, threes = f"{out}/models/infill", f"{out}/models/ft-infill", "--corpus.threes true"
    yield Stage("train-infill", f"train {every} {threes} --run.init {lm} {ON_GAPS} --run.out {gaps}", INFILLING)
    yield Stage(
        "head-infill", f"train-control head --model {gaps} {every} {threes} --width 256 --steps 1000", INFILLING
    )
    yield Stage(
        "train-ft-infill",
        f"train-baseline ft --task infill {every} --judge {judge} --minutes {6 * plan.minutes:g} --epochs 100 --lr 1e-3 "
        f"--out {ft}",
        INFILLING,
    )
    # Four times as many as of a control: what counts is the mean over them.
    limit = f" --limit_targets {4 * plan.targets}" if plan.targets else ""
    asked = (
        f"{evaluate} --tasks [infill] --model {gaps} --samples_per_target {2 * plan.samples}{limit} --targets.infill"
    )
    gold = plan.data / "anlg" / "dev.json"
    yield Stage("infill", f"{asked} {gold} {DRAWN} --label ours --out {out}/infill", INFILLING)
    yield Stage("ft-infill", f"{asked} {gold} --baseline [{ft}] --out {out}/ft-infill", INFILLING)
    left = f"{asked} {out}/targets/left.jsonl --baseline [{ft}]"
    yield Stage("ft-left", f'{left} --label "FT, left side only" --out {out}/ft-left', INFILLING)


def write_story_targets(plan: Plan) -> None:
    """What no command makes: all stories, some to be parsed, words, patterns, and the left sides of gaps."""
    roc = plan.data / "roc"
    whole, recased, dev = (
        (roc / f"{name}.txt").read_text(encoding="utf8") for name in ("train", "train_recased", "valid")
    )
    write_whole(plan.out / "roc" / "train.txt", whole + recased)
    write_whole(plan.out / "roc" / "valid.txt", dev)
    # Trees of all stories would take hours.
    write_whole(plan.out / "some.txt", "".join(whole.splitlines(keepends=True)[:PARSED]))
    gaps = json.loads((plan.data / "anlg" / "dev.json").read_text(encoding="utf8")).values()
    targets = {
        "left": [{"left": gap["obs1"], "right": "", "references": gap["gold_labels"]} for gap in gaps],
        "keyword": [{"keyword": word} for word in KEYWORDS],
        "regex": [{"regex": pattern} for pattern in PATTERNS],
    }
    for name, lines in targets.items():
        write_whole(plan.out / "targets" / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def fewer(on_targets: str, plan: Plan, share: int) -> str:
    """The same on one in `share` of the targets, for what is by far the slowest; on all where all are wanted."""
    return f"{on_targets} --limit_targets {max(1, plan.targets // share)}" if plan.targets else on_targets


def _trained_ablations(plan: Plan) -> Iterator[Stage]:
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


def _sampled_ablations(plan: Plan, evaluate: str) -> Iterator[Stage]:
    """Another clamp or number of steps, of the bundled model on E2E."""
    for label, flags in SAMPLED.items():
        name = label.replace(": ", "-")
        yield Stage(
            f"ablation-{name}",
            f'{evaluate} {flags} --label "{label}" --out {plan.out}/ablation-{name}',
            ABLATIONS,
        )


def _paper(plan: Plan, corpus: str, free: str, on_targets: str) -> Iterator[Stage]:
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


def stop(message: str) -> NoReturn:
    """Say what is wrong; what is done stays done."""
    logger.error("%s", message)
    raise SystemExit(2)


def spent(stage: Stage, plan: Plan) -> float | None:
    """The seconds that a stage took, if it is done: its marker holds the command and them."""
    marker = plan.out / "done" / stage.name
    if not marker.exists():
        return None
    command, seconds = marker.read_text().splitlines()
    return float(seconds) if command == stage.command else None


def run(stage: Stage, plan: Plan) -> None:
    """Run a stage unless it is done."""
    marker, log = plan.out / "done" / stage.name, plan.out / "logs" / f"{stage.name}.log"
    if spent(stage, plan) is not None:
        logger.info("%s: done before", stage.name)
        return
    logger.info("%s: diffusion-lm %s", stage.name, stage.command)
    words = shlex.split(stage.command)
    command = [sys.executable, *words] if words[0].endswith(".py") else [sys.executable, "-m", "diffusion_lm", *words]
    started = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = log.read_text().strip().split("\n")[-1]
        stop(f"The stage {stage.name} failed with exit code {code}; {log} says: {last}")
    seconds = time.monotonic() - started
    write_whole(marker, f"{stage.command}\n{seconds:.0f}\n")
    logger.info("%s: %.0f s", stage.name, seconds)


def times(plan: Plan) -> None:
    """Write what the stages that are done took, by part and by kind of work, where the report finds it."""
    parts: dict[str, dict[str, float]] = {}
    for stage in stages(plan):
        if (seconds := spent(stage, plan)) is not None:
            kind = "making" if stage.command.startswith(("train", "annotate")) else "measuring"
            parts.setdefault(stage.part, {"making": 0.0, "measuring": 0.0})[kind] += seconds
    folder = plan.out / "time"
    folder.mkdir(exist_ok=True)
    write_whole(folder / "time.json", json.dumps(parts, indent=2) + "\n")


def report(plan: Plan, into: Path | None) -> None:
    """Make the pages of all runs that are there."""
    times(plan)
    files = ("run.json", "likelihood.json", "trace.json", "by_noise.json", "time.json")
    runs = [path.parent for name in files for path in sorted(plan.out.glob(f"*/{name}"))]
    words = ["report", *map(str, runs), "--out", str(plan.out / "report")]
    command = [sys.executable, "-m", "diffusion_lm", *words, *(["--into", str(into)] if into else [])]
    subprocess.run(command, check=True)


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with e2e and control_targets")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--into", type=Path, help="a Markdown file with the report's markers, docs/results.md")
    parser.add_argument("--samples", type=int, default=10, help="texts for each target (paper: 50)")
    parser.add_argument("--targets", type=int, default=24, help="targets of each task; 0: all")
    parser.add_argument("--free", type=int, default=300, help="free texts")
    parser.add_argument("--minutes", type=float, default=4, help="training of each FT; FUDGE twice that, PPLM half")
    parser.add_argument("--judge-minutes", type=float, default=11, help="training of the judge")
    parser.add_argument("--judge-shape", default=SMALL_JUDGE, help="flags of train-judge that change its size")
    parser.add_argument("--ablation-steps", type=int, default=600, help="training of each ablation")
    parser.add_argument("--ablation-samples", type=int, default=100, help="texts of each ablation (paper: 500)")
    parser.add_argument(
        "--outside",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="free text by SmolLM2 and MAUVE too; wants make metrics",
    )
    parser.add_argument("--stories", action="store_true", help="ROCStories and infilling in place of E2E")
    parser.add_argument(
        "--story",
        nargs="+",
        default=ON_A_CPU,
        help="how the model of stories is trained; several go on from each other",
    )
    parser.add_argument("--only", nargs="*", help="names of stages; without it, all")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then report."""
    flags = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = Plan(**{name: getattr(flags, name) for name in Plan._fields})
    known = {stage.name: stage for stage in stages(plan)}
    chosen = [stage for stage in known.values() if flags.only is None or stage.name in flags.only]
    if unknown := sorted(set(flags.only or ()) - set(known)):
        stop(f"There is no stage {unknown[0]}; the stages are {', '.join(known)}.")
    if flags.list:
        logger.info("%s", "\n".join(f"{stage.name}: diffusion-lm {stage.command}" for stage in chosen))
        return
    for folder in ("roc", "anlg") if flags.stories else ("e2e", "control_targets"):
        if not (plan.data / folder).is_dir():
            stop(f"{plan.data} has no folder {folder}; give --data the folder that holds it.")
    for name in ("done", "logs", "models", "targets", "roc"):
        (plan.out / name).mkdir(parents=True, exist_ok=True)
    if flags.stories:
        write_story_targets(plan)
    for stage in chosen:
        run(stage, plan)
    report(plan, flags.into)


if __name__ == "__main__":
    main()
