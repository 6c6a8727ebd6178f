"""ROCStories and the infilling of aNLG: from the corpus to docs/stories.md and one HTML page.

    python scripts/stories.py --data DATA --into docs/stories.md
    python scripts/stories.py --data DATA --story configs/roc-small.yaml --out runs/stories-small    # on a GPU

DATA holds `roc` (train.txt, train_recased.txt, valid.txt) and `anlg` (dev.json). Stages and flags are as of
scripts/reproduce.py: what is done is not run again, `--only` runs some stages, `--list` prints all commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages import Plan, Stage, carry_out, shared_flags

from diffusion_lm.store import write_whole

FOLDERS = ("roc", "anlg")
STORIES, INFILLING = "stories", "infilling"
ON_GAPS = (
    "--run.freeze_embeddings true --model.given 1 --optimizer.blocks muon --optimizer.lr 1.5e-3 --optimizer.warmup 20 "
    "--optimizer.decay linear --optimizer.weight_decay 0.1 --optimizer.ema 0.98 --run.batch_tokens 4096 --run.steps 1000"
)
"""How a model of stories goes on to gaps of one sentence; it keeps its words, so that its pairs stay right."""
SLOTS = "--tokenizer.min_count 50 --model.layout padded --model.given 0 --model.max_length 64 --run.steps 2000"
"""How a model is trained that fills gaps as the paper's does: it has seen none, and a gap is ten words or PADs to it."""
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
DRAWN = "--steps 20 --temperature 1"
"""How a model that has learned little of stories draws them best: in more steps than one that has, and held by its head."""
GAPS_DRAWN = "--steps 10 --pairs 1 --temperature 0.6"
"""And a gap, as found on 40 other targets."""
BEAMS = 4
"""Beginnings that a search keeps, ours and the rival's."""
PARSED = 6000
"""Stories of which words are counted under tags and trees."""


@dataclass(frozen=True)
class StoryPlan(Plan):
    """And how the model is trained: by one configuration, or by several that go on from each other."""

    story: Sequence[str] = ON_A_CPU


def stages(plan: StoryPlan) -> Iterator[Stage]:
    """ROCStories: a model of theirs, free stories and stories under control, and gaps of one sentence (aNLG)."""
    out, lm = plan.out, f"{plan.out}/models/roc"
    every, judge = f"--corpus.source {out}/roc", f"{plan.out}/judge"
    yield Stage("judge", f"train-judge {every} --judge.out {judge} --judge.minutes {10 * plan.minutes:g}", STORIES)
    yield from _story_model(plan, every, lm)
    yield Stage("pairs", f"train-control pairs --model {lm} {every}", STORIES)
    yield Stage("head", f"train-control head --model {lm} {every} --width 512 --steps 2400 --heard 1", STORIES)
    some = f"--corpus.source {out}/some.txt --labels {out}/labels.jsonl"
    for name in ("pos", "tree"):
        yield Stage(name, f"train-control {name} --model {lm} {some}", STORIES)
    dev = f"{out}/labels-dev.jsonl"
    yield Stage("labels", f"annotate {every} --split dev --out {dev}", STORIES)
    yield Stage("targets", f"make-targets --labels {dev} --n {plan.targets or 100} --out {out}/targets", STORIES)
    evaluate = f"evaluate {every} --judge {judge} --n {plan.free}"
    yield Stage("free", f"{evaluate} --model {lm}{plan.measures} {DRAWN} --label ours --out {out}/free", STORIES)
    likely = f"benchmarks/likelihood.py {out}/roc --model {lm} --label ours --judge {judge}"
    yield Stage("likelihood", f"{likely} --out {out}/likelihood", STORIES)
    files = " ".join(f"--targets.{task} {out}/targets/{task}.jsonl" for task in STORY_TASKS)
    held = f"{evaluate} --model {lm} {files} --tasks [{','.join(STORY_TASKS)}] --samples_per_target"
    yield Stage("controls", f"{held} {plan.samples} --quality fast --label ours --out {out}/controls", STORIES)
    found = f'{held} {BEAMS} --beams {BEAMS} --label "ours, {BEAMS} beams"'
    yield Stage("controls-beams", f"{found} --out {out}/controls-beams", STORIES)
    if plan.outside:  # what its measures need comes with it
        yield from _infilling(plan, lm, judge, evaluate)


def _story_model(plan: StoryPlan, every: str, lm: str) -> Iterator[Stage]:
    """A model of stories by one configuration, or by several that go on from each other; the last reads all stories."""
    init = ""
    for config in plan.story[:-1]:
        folder = f"{plan.out}/models/{Path(config).stem}"
        clean = f"--corpus.source {plan.data / 'roc'}"
        yield Stage(f"train-{Path(config).stem}", f"train --config {config} {clean}{init} --run.out {folder}", STORIES)
        init = f" --run.init {folder}"
    yield Stage("train", f"train --config {plan.story[-1]} {every}{init} --run.out {lm}", STORIES)


def _infilling(plan: StoryPlan, lm: str, judge: str, evaluate: str) -> Iterator[Stage]:
    """Table 5 on the dev split of aNLG: ours, and an autoregressive model that reads both observations first."""
    out, every = plan.out, f"--corpus.source {plan.out}/roc"
    gaps, ft, threes = f"{out}/models/infill", f"{out}/models/ft-infill", "--corpus.threes true"
    yield Stage("train-infill", f"train {every} {threes} --run.init {lm} {ON_GAPS} --run.out {gaps}", INFILLING)
    yield Stage(
        "head-infill",
        f"train-control head --model {gaps} {every} {threes} --go_on true --steps 600 --heard 1",
        INFILLING,
    )
    yield Stage(
        "train-ft-infill",
        f"train-baseline ft --task infill {every} --judge {judge} --minutes {7.5 * plan.minutes:g} --epochs 100 --lr 1e-3 "
        f"--out {ft}",
        INFILLING,
    )
    slots = f"{out}/models/slots"
    yield Stage("train-slots", f"train --config {plan.story[0]} {every} {threes} {SLOTS} --run.out {slots}", INFILLING)
    # Four times as many targets as of a control: what counts is the mean over them.
    many = f"--samples_per_target {2 * plan.samples}{plan.limit(4)}"
    asked = f"{evaluate} --tasks [infill] --model {gaps} {many} --targets.infill"
    gold = plan.data / "anlg" / "dev.json"
    zero = f"{evaluate} --tasks [infill] --model {slots} {many} --targets.infill {gold}"
    yield Stage("slots", f'{zero} --temperature 0.5 --label "ours, ten slots, zero shot" --out {out}/slots', INFILLING)
    yield Stage("infill", f"{asked} {gold} {GAPS_DRAWN} --label ours --out {out}/infill", INFILLING)
    found = f'{asked} {gold} --beams {BEAMS} --label "ours, {BEAMS} beams"'
    yield Stage("infill-beams", f"{found} --out {out}/infill-beams", INFILLING)
    yield Stage("ft-infill", f"{asked} {gold} --baseline [{ft}] --out {out}/ft-infill", INFILLING)
    beams = f"{asked} {gold} --baseline [{ft}] --baseline_beams {BEAMS}"
    yield Stage("ft-infill-beams", f"{beams} --out {out}/ft-infill-beams", INFILLING)
    left = f"{asked} {out}/targets/left.jsonl --baseline [{ft}]"
    yield Stage("ft-left", f'{left} --label "FT, left side only" --out {out}/ft-left', INFILLING)


def write_texts(plan: StoryPlan) -> None:
    """What no command makes: all stories, some to be parsed, words, patterns, and the left sides of gaps."""
    roc = plan.data / "roc"
    whole, recased, dev = (
        (roc / f"{name}.txt").read_text(encoding="utf8") for name in ("train", "train_recased", "valid")
    )
    # What stands for a word as "****" would be four tokens, each of which calls for the next without end.
    whole = "".join(line for line in whole.splitlines(keepends=True) if "*" not in line)
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


def main() -> None:
    """Run what is missing, then report."""
    parser = shared_flags(__doc__, FOLDERS, "runs/stories", samples=5, targets=20)
    parser.add_argument(
        "--story", nargs="+", default=ON_A_CPU, help="how the model is trained; several go on from each other"
    )
    carry_out(parser, StoryPlan, stages, FOLDERS, before=write_texts)


if __name__ == "__main__":
    main()
