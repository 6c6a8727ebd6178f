"""What the commands do that is no part of the library: flags in, words for people out."""

from __future__ import annotations

import json
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffusion_lm.annotate.labels import AnnotateConfig, annotate
from diffusion_lm.baselines.fine_tuned import FineTuneConfig, fine_tune
from diffusion_lm.baselines.fudge import FudgeConfig, train_fudge
from diffusion_lm.baselines.pplm import PplmConfig, train_pplm
from diffusion_lm.common import RANGE, Settings, UserError, number
from diffusion_lm.control import Avoid, Control, Infill, Keyword, Length, Regex
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.targets import SENTENCE_EXAMPLE, MakeTargetsConfig, make_targets, read_records, sentence_of
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.fit import Progress
from diffusion_lm.flags import ALONE
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Generation, Step
from diffusion_lm.generation.settings import (
    SamplingConfig,
    attribute_of,
    clamp_of,
    guidance_of,
    pos_of,
    sampler_of,
    span_of,
    tree_of,
)
from diffusion_lm.report.page import ReportConfig, make_report
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import encode_corpus
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import Tokenizer
from diffusion_lm.training.classifiers import (
    AttributeTrainConfig,
    SyntaxTrainConfig,
    train_attribute,
    train_syntax,
)
from diffusion_lm.training.judge import JudgeTrainConfig, train_judge
from diffusion_lm.training.lm import TokenizerConfig, TrainConfig, build_tokenizer, save_settings
from diffusion_lm.training.parser import ParserTrainConfig, train_parser
from diffusion_lm.training.tables import TagTrainConfig, TreeTrainConfig, train_tags, train_trees
from diffusion_lm.training.trainer import train

WIDTH = 160
"""Columns of a table where the output is no terminal."""


@dataclass(frozen=True)
class GenerateConfig(SamplingConfig, Settings):
    """What to write, and how."""

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model or of its training run, or hub id."""
    n: int = number(8, least=1)
    """Number of sentences."""
    length: int | None = None
    """Words of each sentence, punctuation marks included; drawn as in the corpus if not given."""
    attribute: list[str] = field(default_factory=list)
    """What each sentence says, FIELD=VALUE like food=Japanese; may be repeated. info lists what there is."""
    keyword: list[str] = field(default_factory=list)
    """A word or phrase that each sentence says; may be repeated."""
    avoid: list[str] = field(default_factory=list)
    """A word or phrase that no sentence says; may be repeated."""
    regex: str | None = None
    """What the whole sentence matches, word by word: "The .* is (cheap|moderate) ." with a backslash before a full stop."""
    pos: str | None = None
    """A universal part of speech for every word, punctuation marks included: "PROPN AUX DET ADJ NOUN PUNCT"."""
    tree: str | None = None
    """The constituency tree of each sentence in brackets, "(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ _))) (. .))": _ is
    any word, a word is that word."""
    span: list[str] = field(default_factory=list)
    """Words that are a constituent, FIRST:LAST:LABEL counted from 1, like 5:8:PP; may be repeated."""
    infill: str | None = None
    """A sentence with blanks, "The Punter ___ riverside.": ___ is any number of words, ___{3} is three."""
    trace: int | None = field(default=None, metadata={ALONE: "10", RANGE: {"least": 1}})
    """Show the first sentence at so many steps while it crystallises; 10 if no number follows."""
    json: bool = False
    """Write one JSON object a line, and nothing else, to standard output."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        super().__post_init__()
        Settings.__post_init__(self)


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


def table(title: str, columns: Mapping[str, Sequence[float]]) -> Table:
    """Shares by the noise level `t`."""
    made = Table(*columns, title=title)
    for t, *shares in zip(*columns.values(), strict=True):
        made.add_row(f"{t:.2f}", *(f"{share:.1%}" for share in shares))
    return made


Verdicts = dict[str, Tensor]
"""How far each text does what each control wants: control to [n], in [0, 1]."""


def run_generate(config: GenerateConfig) -> None:
    """Write sentences to standard output; progress goes to standard error."""
    control = controls_of(config)
    lm = DiffusionLM.from_pretrained(config.model, _device(config))
    # Bound here and not only by `generate`: a bound control names and counts words as the model does.
    control = control.bind(lm) if control is not None else None
    with bar("denoising", "steps") as show:
        generation = lm.generate(
            config.n,
            control,
            steps=config.steps,
            sampler=sampler_of(config),
            clamp=clamp_of(config),
            guidance=guidance_of(config, guided_as(config)),
            seed=config.seed,
            batch_size=config.batch_size,
            callback=_watch(config, lm.tokenizer, show),
        )
    parts = control.parts() if control is not None else []
    verdicts = {str(part): part.success(generation.texts) for part in parts}
    (_write_json if config.json else _write_text)(generation, verdicts)


def controls_of(config: GenerateConfig) -> Control | None:
    """All that the flags ask for, joined by `&`; None where they ask for nothing.

    Raises:
        UserError: if an attribute is not FIELD=VALUE.
    """
    controls: list[Control] = []
    kind = attribute_of(config)
    for pair in config.attribute:
        name, _, value = (part.strip() for part in pair.partition("="))
        if not (name and value):
            raise UserError(f"An attribute is FIELD=VALUE, such as food=Japanese, not {pair!r}.")
        controls.append(kind(name, value))
    controls += map(Keyword, config.keyword)
    controls += map(Avoid, config.avoid)
    if config.regex is not None:
        controls.append(Regex(config.regex))
    if config.length is not None:
        controls.append(Length(config.length))
    if config.pos is not None:
        controls.append(pos_of(config, config.pos))
    if config.tree is not None:
        controls.append(tree_of(config, config.tree))
    if config.span:
        controls.append(span_of(config, " ".join(config.span)))
    if config.infill is not None:
        controls.append(Infill(config.infill))
    return reduce(operator.and_, controls) if controls else None


def guided_as(config: GenerateConfig) -> str:
    """The name under which `Guidance.paper` has numbers for what is asked."""
    syntax = {"pos": config.pos, "tree": config.tree, "span": config.span}
    asked = ["attribute"] * len(config.attribute) + [name for name, value in syntax.items() if value]
    return COMPOSITION if len(asked) > 1 else (asked or ["length"])[0]


def _device(config: GenerateConfig) -> str | None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; take --device auto or --device cpu.")
    return None if config.device == "auto" else config.device


def _watch(config: GenerateConfig, tokenizer: Tokenizer, show: Callable[..., None]) -> Callable[[Step], None]:
    """The callback of a generation: moves the bar, and writes the first sentence at the steps of the trace."""
    shown, done = spread(config.trace or 0, config.steps), count(1)
    marks = (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id)

    def watch(step: Step) -> None:
        show(next(done), config.steps * -(-config.n // config.batch_size))
        if step.index in shown and 0 in step.rows:
            # An END that is not yet at its place does not cut the words short.
            text = tokenizer.decode(i for i in step.ids[step.rows.index(0)].tolist() if i not in marks)
            number = f"{step.index + 1:>{len(str(step.steps))}}"
            out = sys.stderr if config.json else sys.stdout
            tqdm.write(f"step {number}  t = {step.t:.3f}  {text}", file=out)

    return watch


def spread(count: int, steps: int) -> set[int]:
    """The indices of `count` of the steps, evenly spread; the last is among them."""
    return {round(steps - 1 - i * (steps - 1) / max(1, count - 1)) for i in range(count)}


def _write_json(generation: Generation, verdicts: Verdicts) -> None:
    for i, text in enumerate(generation.texts):
        controls = [{"control": name, "success": float(success[i])} for name, success in verdicts.items()]
        record = {
            "text": text,
            "words": generation.words[i],
            "controls": controls,
            "seed": generation.seed,
            "seconds": round(generation.seconds, 3),
        }
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_text(generation: Generation, verdicts: Verdicts) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for i, text in enumerate(generation.texts):
        console.print(Text(text))
        if verdicts:
            marks = (_mark(name, float(success[i])) for name, success in verdicts.items())
            console.print(Text("  ") + Text("  ").join(marks))
    summary = [f"{len(generation)} sentences in {generation.seconds:.1f} s with seed {generation.seed}"]
    summary += [f"{name}: {_in_all(success)}" for name, success in verdicts.items()]
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text("; ".join(summary), style="dim"))


def _mark(name: str, success: float) -> Text:
    if success in (0.0, 1.0):
        return Text(f"✓ {name}", style="green") if success else Text(f"✗ {name}", style="red")
    return Text(f"{_share(success)} {name}", style="yellow")


def _in_all(success: Tensor) -> str:
    """How many of the texts do what is wanted, or the mean where some do it in part."""
    if bool(((success == 0) | (success == 1)).all()):
        return f"{int(success.sum())} of {len(success)}"
    return f"{_share(float(success.mean()))} on average"


def _share(success: float) -> str:
    # Rounded down: what is not all of it is no 100 %.
    return f"{math.floor(100 * success)} %"


Rows = list[tuple[str, str]]


def run_info(config: InfoConfig) -> None:
    """Print what a model is and what it can be held to."""
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    assert lm.folder is not None
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _model(lm, lm.folder) + _controls(lm, lm.folder):
        table.add_row(Text(name, style="bold"), Text(value))
    Console(highlight=False).print(table)


def _model(lm: DiffusionLM, folder: Path) -> Rows:
    config, card = lm.config, folder / "README.md"
    width, layers, heads = config.shape
    return [
        ("folder", str(folder)),
        ("model card", str(card) if card.exists() else "none"),
        ("parameters", f"{_parameters(lm):,}"),
        ("size on disk", f"{_bytes(folder) / 1e6:,.1f} MB with its controls"),
        ("vocabulary", f"{lm.vocab_size:,} tokens"),
        (
            "shape",
            f"width {width}, {layers} layers, {heads} heads; latents of {config.embedding_dim} numbers",
        ),
        ("layout", f"{config.layout}, 1 to {lm.max_words} words"),
        ("objective", config.objective),
        (
            "config",
            ", ".join(f"{name}={value}" for name, value in asdict(config).items() if value is not None),
        ),
    ]


def _controls(lm: DiffusionLM, folder: Path) -> Rows:
    exact = lm.config.layout == "exact"
    rows = [
        ("length", "exact, 1 to " + str(lm.max_words) if exact else "by its gradient"),
        ("infill", "any number of blanks" if exact else "no: it needs the exact layout"),
    ]
    rows += [("keyword, avoid, regex", "any of its words" if exact else "no: they need the exact layout")]
    rows += [
        ("pos", _or_no(lambda: ", ".join(lm.tag_table().config.tags))),
        ("tree, span", _or_no(lambda: ", ".join(lm.leaf_table().labels))),
        (
            "by classifier",
            _or_no(lambda: f"{len(lm.syntax_model().config.chains)} chains of labels, and the tags"),
        ),
    ]
    if not (folder / "controls" / "attribute").is_dir():
        return [*rows, ("attribute", "no: train it with diffusion-lm train-control attribute")]
    try:
        classifier = lm.attribute_model()
    except UserError as error:
        return [*rows, ("attribute", f"no: {error}")]
    rows += [("attribute", f"a classifier of {_parameters(classifier):,} parameters, which knows")]
    return rows + [(f"  {name}", ", ".join(values)) for name, values in classifier.config.fields.items()]


def _or_no(what: Callable[[], str]) -> str:
    try:
        return what()
    except UserError as error:
        return f"no: {error}"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(folder: Path) -> int:
    """Size of a model's own files; its folder may hold others."""
    names = ("config.json", "tokenizer.json", "model.safetensors", "README.md")
    files = [*(folder / name for name in names), *(folder / "controls").rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def run_annotate(config: AnnotateConfig) -> None:
    """Label every sentence of a split once."""
    texts = (document.text for document in open_corpus(config.corpus).documents(config.split))
    words = map(words_of, texts)
    with bar("labelling", "sentences") as show:
        labels = annotate(
            [sentence for sentence in words if sentence],
            config.out,
            workers=config.workers,
            progress=show,
        )
    say(f"Tags and trees of {len(labels):,} sentences are in {config.out}.")


def run_train(config: TrainConfig) -> None:
    """Train a language model."""
    train(config)


def run_evaluate(config: EvaluateConfig) -> None:
    """Measure a model and print the table."""
    console = Console()
    if not console.is_terminal:  # a file has no edge at which the table would have to be cut
        console = Console(width=max(console.width, WIDTH))
    evaluate(config, console)


def run_make_targets(config: MakeTargetsConfig) -> None:
    """Draw targets and say where they are."""
    files = ", ".join(str(path) for path in make_targets(config).values())
    say(f"Targets of {config.n:,} sentences are in {files}.")


def run_report(config: ReportConfig) -> None:
    """Write the pages and say where they are."""
    say(f"The report is in {', '.join(map(str, make_report(config)))}.")


def run_train_control_attribute(config: AttributeTrainConfig) -> None:
    """Train the attribute classifier of a language model and show what it knows at which noise."""
    with bar("classifier", "steps") as show:
        accuracy = train_attribute(config, lambda step, loss: show(step, config.steps, loss=loss))
    say(table("Accuracy on dev, by noise level", vars(accuracy)))


def run_train_control_syntax(config: SyntaxTrainConfig) -> None:
    """Train the classifiers of syntax of a language model and show what they know at which noise."""
    with bar("classifier", "steps") as show:
        accuracy = train_syntax(config, lambda step, loss: show(step, config.steps, loss=loss))
    say(table("Accuracy on dev, by noise level", vars(accuracy)))


def run_train_control_pos(config: TagTrainConfig) -> None:
    """Count p(tag | word) for a language model and say how sure a word is of its tag."""
    with bar("labelling", "sentences") as show:
        table = train_tags(config, show)
    say(
        f"{table.config.sentences:,} sentences; the likeliest tag of a word is right "
        f"{table.config.certainty:.1%} of the time."
    )


def run_train_control_tree(config: TreeTrainConfig) -> None:
    """Count what trees say of a language model's words, and how many trees there are."""
    with bar("labelling", "sentences") as show:
        table = train_trees(config, show)
    say(
        f"{table.config.sentences:,} sentences; {len(table.config.leaves):,} kinds of leaf, "
        f"{len(table.tags.config.tags)} tags, {len(table.lengths):,} different trees kept."
    )


def run_train_baseline_ft(config: FineTuneConfig) -> None:
    """Fine-tune a language model to a control."""
    fine_tune(config, say_progress)
    say(f"The fine-tuned model is in {config.folder}.")


def run_train_baseline_fudge(config: FudgeConfig) -> None:
    """Train future discriminators of all controls."""
    train_fudge(config, say_progress)
    say(f"The language model with its discriminators is in {config.out}.")


def run_train_baseline_pplm(config: PplmConfig) -> None:
    """Train an attribute model on a frozen language model."""
    train_pplm(config, say_progress)
    say(f"The language model with its attribute model is in {config.out}.")


def run_train_judge(config: TrainJudgeConfig) -> None:
    """Train a judge; `judge.out`/run.yaml says with what."""
    if config.judge.out is None:
        raise UserError("The judge has to be kept; give --judge.out a folder.")
    out = Path(config.judge.out)
    held_out = [] if config.hold_out is None else read_records(config.hold_out, sentence_of, SENTENCE_EXAMPLE)
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
