"""What the commands do that is no part of the library: flags in, words for people out."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass, replace
from io import StringIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm.auto import tqdm

from diffusion_lm.annotate.labels import AnnotateConfig, annotate
from diffusion_lm.common import RANGE, UserError, device_named, number
from diffusion_lm.control import Asset
from diffusion_lm.control.control import CONTROLS, Control, asked_by, together
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.control.prompt import Prompt
from diffusion_lm.evaluation.tasks import find_tasks, known_tasks
from diffusion_lm.fit import OptimizerConfig, Progress
from diffusion_lm.flags import ALONE, HELP
from diffusion_lm.generation.card import facts
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Generation, Step
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.store import explain_full_disk, read_text, write_whole
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import encode_corpus
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import Tokenizer
from diffusion_lm.training.judge import JudgeTrainConfig, train_judge
from diffusion_lm.training.lm import RunConfig, TokenizerConfig, TrainConfig, build_tokenizer, save_settings
from diffusion_lm.training.parser import ParserTrainConfig, train_parser
from diffusion_lm.training.trainer import train

if TYPE_CHECKING:
    from diffusion_lm.app.serve import DemoConfig
    from diffusion_lm.baselines import Baseline
    from diffusion_lm.evaluation.targets import MakeTargetsConfig
    from diffusion_lm.evaluation.tasks import EvaluateConfig
    from diffusion_lm.report.card import CardConfig
    from diffusion_lm.report.page import ReportConfig

WIDTH = 160
"""Columns of a table where the output is no terminal."""


@dataclass(frozen=True)
class WriteConfig(SamplingConfig):
    """What to write, and how."""

    FIRST = (
        "model", "n", "keyword", "avoid", "attribute", "length", "infill", "pos", "tree", "prompt", "quality", "seed", "out",
    )  # fmt: skip

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model or of its training run, or hub id."""
    n: int = number(8, least=1, most=1_000_000)
    """Number of sentences, of each line of --source_file or --targets if one is given."""
    source_file: str | None = None
    """File with a prompt a line, instead of --prompt; - reads standard input."""
    targets: dict[str, str] = field(default_factory=dict)
    """File of targets, as evaluate takes it, each of which is asked for beside the rest; - reads standard input."""
    trace: int | None = field(default=None, metadata={ALONE: "10", RANGE: {"least": 1}})
    """Show the first sentence at so many steps while it crystallises; 10 if no number follows."""
    json: bool = False
    """Write one JSON object a line, and nothing else, to standard output."""
    out: str | None = None
    """File for the sentences, -o for short: JSON lines if it ends in .jsonl, a table if in .csv, else a sentence a line."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if self.source_file is not None and self.targets:
            raise UserError("--source_file and --targets both say what to write for each line; give one.")
        if len(self.targets) > 1:
            raise UserError(f"One file of targets is taken, not {len(self.targets)}; --targets.pos+attribute has both.")
        if self.out is not None and (self.json or Path(self.out).is_dir()):
            raise UserError(
                "The ending of --out says its form; leave --json out." if self.json else f"{self.out} is a folder."
            )


def generate_config() -> type[WriteConfig]:
    """The flags of `generate`: one for every control that is registered, beside those of `WriteConfig`."""
    flags: list[tuple[str, Any, Any]] = []
    for name, control in CONTROLS.items():
        hint, default = (list[str], {"default_factory": list}) if control.repeats else (str | None, {"default": None})
        flags.append((control.flag or name, hint, field(**default, metadata={HELP: control.help})))
    return make_dataclass("GenerateConfig", flags, bases=(WriteConfig,), frozen=True)


@dataclass(frozen=True)
class DistillConfig:
    """Whose student, of which text, and how it is trained."""

    FIRST = ("model", "corpus.source", "run.out", "run.steps")

    model: str = "e2e-teacher"
    """The teacher: name of a bundled model, folder of a model or of its training run, or hub id."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read; words that the teacher does not know stay unknown."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("muon", 2e-4, warmup=20, decay="linear", weight_decay=0.1, ema=0.995)
    )
    """How to train it."""
    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/student", steps=2600, init_share=0.5))
    """How long, how large, where to; init, teacher and freeze_embeddings follow from --model, of whose weights the student
    keeps a share, init_share."""

    def __post_init__(self) -> None:
        """Refuse a second teacher."""
        if (self.run.init, self.run.teacher, self.run.freeze_embeddings) != (None, None, False):
            raise UserError(
                "A student begins as its teacher; name that by --model, and leave --run.init and the like out."
            )


@dataclass(frozen=True)
class TrainJudgeConfig:
    """What a judge learns, and how."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes the judge's tokens; it has a tokenizer of its own."""
    judge: JudgeTrainConfig = field(default_factory=lambda: JudgeTrainConfig(out="runs/judge"))
    """How large it is, how long it learns, and where it goes."""
    hold_out: str | None = None
    """File of targets whose sentences (`words_`) the judge does not read, so that they can be judged as unread text is."""


@dataclass(frozen=True)
class InfoConfig:
    """Which model to look at."""

    model: str
    """Name of a bundled model, folder of a model or of its training run, or hub id."""


@contextmanager
def bar(name: str, unit: str) -> Iterator[Callable[..., None]]:
    """A bar on standard error; what it gives is called with (done, total) and values to show beside it."""
    # It appears late: a request that is refused at once shows its error and no bar.
    with tqdm(desc=name, unit=f" {unit}", leave=False, dynamic_ncols=True, delay=0.1) as shown:

        def show(done: int, total: int, **values: object) -> None:
            shown.total = total
            shown.set_postfix({key: f"{value:.4g}" for key, value in values.items()}, refresh=False)
            shown.update(done - shown.n)

        yield show


def say(text: object) -> None:
    """Write a line or a table to standard output."""
    Console(highlight=False, soft_wrap=True).print(text)


def say_progress(done: Progress, **figures: float | None) -> None:
    """Write what a pass of a training came to."""
    more = "".join(f", {name} {value:.4f}" for name, value in figures.items() if value is not None)
    say(f"epoch {done.epoch}: loss {done.loss:.4f}{more}; {done.fraction:.0%} done after {done.seconds:,.0f} s")


def run_generate(config: WriteConfig) -> None:
    """Write sentences to standard output or a file; progress goes to standard error."""
    control, task = asked_of(config)
    lm = DiffusionLM.from_pretrained(config.model, device_named(config.device))
    controls = list(_each_asked(control, config, lm))
    rows = [each for each in controls for _ in range(config.n)]
    with bar("denoising", "steps") as show:
        options = {**vars(config.decoding(task)), "seed": config.seed, "batch_size": config.batch_size}
        watch = _watch(config, lm.tokenizer, show, len(rows) * (config.candidates or 1))
        generation = lm.generate(len(rows), rows, candidates=config.candidates, **options, callback=watch)
    verdicts: list[dict[str, float]] = []  # of each text, in [0, 1]
    for i, each in enumerate(controls):
        texts, parts = generation.texts[i * config.n : (i + 1) * config.n], each.parts() if each is not None else []
        found = {str(part): part.success(texts).tolist() for part in parts}
        verdicts += [{name: values[j] for name, values in found.items()} for j in range(len(texts))]
    if config.out is not None:
        path = Path(config.out)
        with explain_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, FORMS.get(path.suffix, _as_text)(generation, verdicts))
        say(f"Written to {path}: {len(generation):,} of {len(rows):,} sentences.")
    elif config.json:
        sys.stdout.write(_as_json(generation, verdicts))
    else:
        _say_texts(generation, verdicts)


def _each_asked(control: Control | None, config: WriteConfig, lm: DiffusionLM) -> Iterator[Control | None]:
    """What is asked of each n sentences: by every prompt or target of a file, beside what the flags ask for."""
    found: list[Control] = []
    if config.source_file is not None:
        lines = read_text(config.source_file, "prompts").splitlines()
        found = [Prompt.of_text(line.strip(), config) for line in lines if line.strip()]
        if not found:
            raise UserError(f"{config.source_file} has no prompt; write one a line.")
    for name, path in config.targets.items():
        (task,) = find_tasks([name])
        asked = (together(task.asks(each, config).values()) for each in task.targets(lm, path).values())
        found = [each for each in asked if each is not None]
    for each in found:
        yield each if control is None else each & control
    if not found:
        yield control


def asked_of(config: WriteConfig) -> tuple[Control | None, str]:
    """All that the flags ask for, joined by `&`, and the task by whose numbers `Guidance.paper` would follow it."""
    if config.source_file is not None and getattr(config, Prompt.flag) is not None:
        raise UserError("--prompt and --source_file both say what to write from; give one.")
    values = {name: getattr(config, kind.flag or name) for name, kind in CONTROLS.items()}
    texts = {name: each if isinstance(each, list) else [each] for name, each in values.items() if each is not None}
    found = asked_by(texts, config)
    learned = [name for name, control in found.items() if CONTROLS[name].assets(config) for _ in control.parts()]
    return together(found.values()), learned[0] if len(learned) == 1 else COMPOSITION


def _watch(config: WriteConfig, tokenizer: Tokenizer, show: Callable[..., None], n: int) -> Callable[[Step], None]:
    """The callback of a generation of n sentences: moves the bar, and writes the first one at the steps of the trace."""
    done, batches = count(1), math.ceil(n / config.batch_size)

    def watch(step: Step) -> None:
        show(next(done), step.steps * batches)
        if step.index in spread(config.trace or 0, step.steps) and 0 in step.rows:
            text = tokenizer.decode_unfinished(step.ids[step.rows.index(0)].tolist())
            shown = f"step {step.index + 1:>{len(str(step.steps))}}  t = {step.t:.3f}  {text}"
            tqdm.write(shown, file=sys.stderr if config.json else sys.stdout)

    return watch


def spread(count: int, steps: int) -> set[int]:
    """The indices of `count` of the steps, evenly spread; the last is among them."""
    return {round(steps - 1 - i * (steps - 1) / max(1, count - 1)) for i in range(count)}


Verdicts = Sequence[Mapping[str, float]]
"""How far each text does what each control asks, by its name."""


def _as_json(generation: Generation, verdicts: Verdicts) -> str:
    """A JSON object a line."""
    lines = []
    for i, text in enumerate(generation.texts):
        controls = [{"control": name, "success": success} for name, success in verdicts[i].items()]
        record = {"text": text, "words": generation.words[i], "controls": controls, "seed": generation.seed}
        lines.append(json.dumps({**record, "seconds": round(generation.seconds, 3)}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _as_table(generation: Generation, verdicts: Verdicts) -> str:
    """Comma-separated: the text, and a column for each control."""
    file = StringIO()
    table = csv.DictWriter(
        file, ["text", *dict.fromkeys(name for found in verdicts for name in found)], lineterminator="\n"
    )
    table.writeheader()
    table.writerows({"text": text, **found} for text, found in zip(generation.texts, verdicts, strict=True))
    return file.getvalue()


def _as_text(generation: Generation, verdicts: Verdicts) -> str:
    """A sentence a line."""
    return "".join(f"{text}\n" for text in generation.texts)


FORMS = {".json": _as_json, ".jsonl": _as_json, ".csv": _as_table}
"""How a file of sentences is written, by its ending."""


def _say_texts(generation: Generation, verdicts: Verdicts) -> None:
    """Sentences for people, each with what it does of what was asked; a summary on standard error."""
    for text, found in zip(generation.texts, verdicts, strict=True):
        say(Text(text))
        if found:
            say(Text("  ") + Text("  ").join(_mark(name, success) for name, success in found.items()))
    summary = [f"{len(generation)} sentences in {generation.seconds:.1f} s with seed {generation.seed}"]
    for name in dict.fromkeys(name for found in verdicts for name in found):
        success = [found[name] for found in verdicts if name in found]
        whole = all(value in (0.0, 1.0) for value in success)
        mean = sum(success) / len(success)
        summary.append(
            f"{name}: {f'{int(sum(success))} of {len(success)}' if whole else f'{_percent(mean)} on average'}"
        )
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text("; ".join(summary), style="dim"))


def _mark(name: str, success: float) -> Text:
    if success in (0.0, 1.0):
        return Text(f"✓ {name}", style="green") if success else Text(f"✗ {name}", style="red")
    return Text(f"{_percent(success)} {name}", style="yellow")


def _percent(success: float) -> str:
    return f"{math.floor(100 * success)} %"  # rounded down: what is not all of it is no 100 %


def run_info(config: InfoConfig) -> None:
    """Print what a model is and what it can be held to."""
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    rows = facts(lm, lm.folder)
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    Console(highlight=False).print(grid)


def run_annotate(config: AnnotateConfig) -> None:
    """Label every sentence of a split once."""
    documents = open_corpus(config.corpus).documents(config.split)
    sentences = [words for document in documents if (words := words_of(document.text))]
    with bar("labelling", "sentences") as show:
        labels = annotate(sentences, config.out, workers=config.workers, progress=show)
    say(f"Tags and trees of {len(labels):,} sentences are in {config.out}.")


run_train = train


def run_distill(config: DistillConfig) -> None:
    """Train a student, which begins as its teacher and keeps its word vectors, so that its controls fit."""
    run = replace(config.run, init=config.model, teacher=config.model, freeze_embeddings=True)
    train(TrainConfig(config.corpus, optimizer=config.optimizer, run=run))


def run_evaluate(config: EvaluateConfig) -> None:
    """Measure a model and print the table."""
    from diffusion_lm.baselines import open_baseline
    from diffusion_lm.evaluation.run import evaluate
    from diffusion_lm.evaluation.systems import Given, Writer

    if config.tasks == ["list"]:
        return _list_tasks()
    writer: Writer | None = Given(config.texts) if config.texts is not None else None
    if config.baseline:
        writer = open_baseline(config.baseline, config.baseline_beams)
    console = Console()
    if not console.is_terminal:  # a file has no edge at which the table would have to be cut
        console = Console(width=max(console.width, WIDTH))
    evaluate(config, console, writer)


def _list_tasks() -> None:
    """Print the tasks of an evaluation, each with a line of its targets' file."""
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, example in known_tasks().items():
        grid.add_row(Text(name, style="bold"), Text(f"a target: {example}" if example else "free text"))
    grid.add_row(Text("a+b", style="bold"), Text("both at once, such as pos+attribute"))
    Console(highlight=False).print(grid)


def run_make_targets(config: MakeTargetsConfig) -> None:
    """Draw targets and say where they are."""
    from diffusion_lm.evaluation.targets import make_targets

    files = ", ".join(str(path) for path in make_targets(config).values())
    say(f"Targets of {config.n:,} sentences are in {files}.")


def run_report(config: ReportConfig) -> None:
    """Write the pages and say where they are."""
    from diffusion_lm.report.page import make_report

    say(f"The report is in {', '.join(map(str, make_report(config)))}.")


def run_demo(config: DemoConfig) -> None:
    """Serve the page until Ctrl-C stops it."""
    from diffusion_lm.app.serve import serve

    page = serve(config)
    say(f"The page is at http://{config.host}:{config.port}; Ctrl-C stops it.")
    page.block_thread()


def run_card(config: CardConfig) -> None:
    """Write the card and say where it is."""
    from diffusion_lm.report.card import make_card

    say(f"The card is in {make_card(config)}.")


def run_train_control(config: Any, kind: type[Asset]) -> None:
    """Make what a control has to know of a language model, and say what it came to."""
    lm = DiffusionLM.from_pretrained(config.model)
    folder = lm.asset_folder(kind) if config.out is None else Path(config.out)
    if folder.is_file():
        raise UserError(f"{folder} is a file; give --out a folder.")
    with bar(kind.name, "steps") as show:
        asset = kind.make(config, lm, show)
    asset.save_pretrained(folder)
    say(f"{asset.summary()}\nIt is in {folder}.")


def run_train_baseline(config: Any, kind: type[Baseline]) -> None:
    """Train an autoregressive model to compare with."""
    say(f"The {kind.Model.kind.name} is in {kind.train(config, say_progress)}.")


def run_train_judge(config: TrainJudgeConfig) -> None:
    """Train a judge; `judge.out`/run.yaml says with what."""
    from diffusion_lm.evaluation.targets import read_sentences

    if config.judge.out is None:
        raise UserError("The judge has to be kept; give --judge.out a folder.")
    out = Path(config.judge.out)
    held_out = [] if config.hold_out is None else read_sentences(config.hold_out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_settings(out, config)
    except OSError as error:
        raise UserError(f"--judge.out {out} cannot be written to ({error.strerror}); give another.") from None
    corpus = open_corpus(config.corpus).without(held_out)
    tokenizer = build_tokenizer(corpus, config.tokenizer)
    longest, cache = config.judge.max_length, out / "cache"
    train, dev = (encode_corpus(corpus, split, tokenizer, longest, cache) for split in ("train", "dev"))
    train_judge(train, dev, tokenizer, config.judge, lambda r: say_progress(r.at, dev=r.dev_nats, best=r.best_nats))
    say(f"The judge is in {out}.")


def run_train_parser(config: ParserTrainConfig) -> None:
    """Train the constituency parser on treebanks and show each epoch."""
    best = train_parser(config, lambda done, f1: say_progress(done, F1=f1))
    score = "" if best is None else f" Its labelled bracket F1 on dev is {best:.2%}."
    say(f"The parser is in {config.out}.{score}")
