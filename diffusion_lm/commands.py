"""What the commands do that is no part of the library: flags in, words for people out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from types import NoneType, TracebackType, UnionType
from typing import Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffusion_lm.annotate.labels import AnnotateConfig, annotate
from diffusion_lm.baselines.common import Report
from diffusion_lm.baselines.fine_tuned import FineTuneConfig, fine_tune
from diffusion_lm.baselines.fudge import FudgeConfig, train_fudge
from diffusion_lm.baselines.pplm import PplmConfig, train_pplm
from diffusion_lm.common import UserError
from diffusion_lm.control import Avoid, Control, Infill, Keyword, Length, Regex
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.targets import SENTENCE_EXAMPLE, MakeTargetsConfig, make_targets, read_records, sentence_of
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.fit import Progress
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
from diffusion_lm.training.classifiers import (
    AttributeTrainConfig,
    NoiseLevelAccuracy,
    SyntaxAccuracy,
    SyntaxTrainConfig,
    train_attribute,
    train_syntax,
)
from diffusion_lm.training.judge import JudgeProgress, JudgeTrainConfig, train_judge
from diffusion_lm.training.lm import TokenizerConfig, build_tokenizer, save_settings
from diffusion_lm.training.parser import ParserTrainConfig, train_parser
from diffusion_lm.training.tables import TagTrainConfig, TreeTrainConfig, train_tags, train_trees

set_parsing_settings(docstring_parse_attribute_docstrings=True)

ALONE = "alone"
"""Key of a field's metadata: the value that the flag has when none follows it. A bool's is true."""


@dataclass(frozen=True)
class GenerateConfig(SamplingConfig):
    """What to write, and how."""

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model or of its training run, or hub id."""
    n: int = 8
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
    trace: int | None = field(default=None, metadata={ALONE: "10"})
    """Show the first sentence at so many steps while it crystallises; 10 if no number follows."""
    json: bool = False
    """Write one JSON object a line, and nothing else, to standard output."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        super().__post_init__()
        for name in ("n", "trace"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")


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


T = TypeVar("T")


class Key(NamedTuple):
    """A field of a config, or of a config in it."""

    hint: Any
    alone: str | None


def parse(name: str, about: str, config: type[T], words: list[str], *, positional: bool = False) -> tuple[T, bool]:
    """Read a command line, and the files that its --config names.

    Args:
        name: of the command.
        about: what the command does, for the help.
        config: the dataclass to fill.
        words: what follows the command's name.
        positional: whether fields without a default are read without their names.

    Returns:
        The config, and whether --verbose was given.

    Raises:
        UserError: if a flag, a key or a value is none that the config has, or a file is unreadable.
    """
    keys = dict(_keys(config))
    parser = ArgumentParser(
        prog=f"diffusion-lm {name}",
        usage=" ".join(["diffusion-lm", name, *_placeholders(config, positional), "[options]"]),
        description=f"{about[0].upper()}{about[1:]}.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of options; flags beat it.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Say more on standard error.")
    parser.add_class_arguments(config, None, as_positional=positional)
    try:
        namespace = parser.parse_args(_spell_out(words, keys, _bare_list(config, positional)))
    except argparse.ArgumentError as error:
        raise UserError(_explain(str(error), keys)) from None
    except UnicodeDecodeError:
        raise UserError("The file given to --config is not text; give a YAML file.") from None
    _refuse_null(namespace, keys)
    values = vars(parser.instantiate(namespace))
    verbose = values.pop("verbose")
    values.pop("config")
    return config(**values), verbose


def _bare(config: type, positional: bool) -> dict[str, Any]:
    """The fields that are given without their names, and what they take."""
    missing = dataclasses.MISSING
    fields = [f for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing]
    return {field.name: get_type_hints(config)[field.name] for field in fields} if positional else {}


def _placeholders(config: type, positional: bool) -> list[str]:
    """How the usage names them; of a list there may be several."""
    bare = _bare(config, positional).items()
    return [f"{name.upper().rstrip('S')}..." if get_origin(hint) is list else name.upper() for name, hint in bare]


def _bare_list(config: type, positional: bool) -> bool:
    """Whether what is given without a name is one list."""
    return [get_origin(hint) for hint in _bare(config, positional).values()] == [list]


def _keys(config: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key of a dataclass, `run` and `run.steps` alike, with what it takes."""
    hints = get_type_hints(config)
    for each in dataclasses.fields(config):
        hint, name = hints[each.name], prefix + each.name
        yield name, Key(hint, each.metadata.get(ALONE, "true" if hint is bool else None))
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _keys(hint, f"{name}.")


def _spell_out(words: list[str], keys: Mapping[str, Key], bare_list: bool = False) -> list[str]:
    """The words as jsonargparse reads them: --config first, a list's values together, no flag alone.

    With `bare_list` the words that belong to no flag are the values of one list.
    """
    files: list[str] = []
    bare: list[str] = []
    flags: list[str] = []
    lists: dict[str, list[str]] = {}
    queue = list(words)
    while queue:
        flag, equals, value = queue.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
        key = keys.get(name)
        follows = bool(queue) and not queue[0].startswith(("--", "-v", "-h"))
        if bare_list and not flag.startswith("-"):
            bare.append(flag + equals + value)
        elif key is None and name != "config":
            flags.append(flag + equals + value)
        elif not equals and not follows and key is not None and key.alone is not None:
            flags.append(f"--{name}={key.alone}")
        elif not equals and not follows:
            raise UserError(f"--{name} needs a value{'' if key is None else f', {describe(key.hint)}'}.")
        else:
            value = value if equals else queue.pop(0)
            if key is None:
                files.append(f"--config={value}")
            elif get_origin(key.hint) is list and not value.startswith("["):
                lists.setdefault(name, []).append(value)
            else:
                flags.append(f"--{name}={value}")
    together = [json.dumps(bare)] if bare else []
    return [*files, *together, *flags, *(f"--{name}={json.dumps(values)}" for name, values in lists.items())]


def _refuse_null(namespace: Namespace, keys: Mapping[str, Key]) -> None:
    """Refuse what jsonargparse takes from a file: null for any key, anything for a set of keys."""
    for name, key in keys.items():
        value, nested = namespace.get(name), dataclasses.is_dataclass(key.hint)
        if (nested and not isinstance(value, Namespace)) or (value is None and NoneType not in get_args(key.hint)):
            raise UserError(f"{name} must be {describe(key.hint)}, not {'null' if value is None else value}.")


def describe(hint: Any) -> str:
    """What a type hint takes, in words."""
    *others, last = _describe(hint)
    return f"{', '.join(others)} or {last}" if others else last


def _describe(hint: Any) -> Iterator[str]:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for argument in arguments:
            yield from _describe(argument)
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin in (list, tuple):
        yield "a list such as [a, b]" if str in arguments else "a list such as [1, 2]"
    else:
        yield names.get(hint, "a set of keys")


def _explain(message: str, keys: Mapping[str, Key]) -> str:
    """One sentence for a person out of jsonargparse's message, which may be a page."""
    message = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        word = match[1].partition("=")[0]
        if not word.startswith("--"):
            return f"{word!r} belongs to no option; see --help."
        return _unknown("option", "--", word.removeprefix("--"), keys)
    if match := re.search(r"Option '(.+)' is not accepted|Group '(.+)' does not accept option '(.+)'", message):
        return _unknown("key", "", match[1] or f"{match[2]}.{match[3]}", keys)
    if match := re.search(r'Parser key "([^"]+)": (.*)', message):
        name, problem = match.groups()
        value = re.search(r"(?:Got value|Given value): (.*)", problem)
        if name in keys and value:
            return f"{name} must be {describe(keys[name].hint)}, not {value[1]}."
        if name in keys:
            return f"{name} must be {describe(keys[name].hint)}: {problem}."
        return f"--{name}: {problem}."
    if re.search(r"Problems parsing config|Unexpected config", message):
        return f"The file given to --config is no YAML file of options ({message})."
    return f"{message[:1].upper()}{message[1:]}."


def _unknown(kind: str, dashes: str, word: str, keys: Mapping[str, Key]) -> str:
    """An unknown name, with the known one that is most like it."""
    word = word.replace("-", "_")
    near = get_close_matches(word, keys, n=1)
    if not near:  # `--size` for `--model.size`
        near = [name for name in keys if name.rpartition(".")[2] == word.rpartition(".")[2]][:1]
    hint = f"did you mean {dashes}{near[0]}?" if near else "see --help for those that there are."
    return f"There is no {kind} {dashes}{word}; {hint}"


class Bar:
    """Shows how much of a job is done; call it with (done, total)."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self.bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int, **values: str) -> None:
        """Show that `done` of `total` are done, and values beside it."""
        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.name, unit=f" {self.unit}", dynamic_ncols=True)
        self.bar.set_postfix(values, refresh=False)
        self.bar.update(done - self.bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


Verdicts = dict[str, Tensor]
"""How far each text does what each control wants: control to [n], in [0, 1]."""


def run(config: GenerateConfig) -> None:
    """Write sentences to standard output; progress goes to standard error."""
    control = controls_of(config)
    lm = DiffusionLM.from_pretrained(config.model, _device(config))
    # Bound here and not only by `generate`: a bound control names and counts words as the model does.
    control = control.bind(lm) if control is not None else None
    with _Watch(config, lm) as watch:
        generation = lm.generate(
            config.n,
            control,
            steps=config.steps,
            sampler=sampler_of(config),
            clamp=clamp_of(config),
            guidance=guidance_of(config, guided_as(config)),
            seed=config.seed,
            batch_size=config.batch_size,
            callback=watch,
        )
    parts = control.parts() if control is not None else []
    verdicts = {str(part): part.success(generation.texts) for part in parts}
    if config.json:
        _write_json(generation, verdicts)
    else:
        _write_text(generation, verdicts)


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


class _Watch:
    """The callback of a generation: a bar on standard error, and the trace of the first sentence."""

    def __init__(self, config: GenerateConfig, lm: DiffusionLM) -> None:
        self.total = config.steps * -(-config.n // config.batch_size)
        self.bar: tqdm | None = None
        self.out = sys.stderr if config.json else sys.stdout
        self.tokenizer = lm.tokenizer
        self.shown = spread(config.trace or 0, config.steps)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, step: Step) -> None:
        # Made at the first step: a request that is refused before it shows its error and no bar.
        self.bar = self.bar or tqdm(total=self.total, desc="denoising", leave=False, dynamic_ncols=True)
        self.bar.update()
        if step.index in self.shown and 0 in step.rows:
            number = f"{step.index + 1:>{len(str(step.steps))}}"
            text = self._text(step.ids[step.rows.index(0)])
            tqdm.write(f"step {number}  t = {step.t:.3f}  {text}", file=self.out)

    def _text(self, ids: Tensor) -> str:
        """The words so far; an END that is not yet at its place does not cut them short."""
        marks = (self.tokenizer.start_id, self.tokenizer.end_id, self.tokenizer.pad_id)
        return self.tokenizer.decode(i for i in ids.tolist() if i not in marks)


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


def info_run(config: InfoConfig) -> None:
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


def annotate_run(config: AnnotateConfig) -> None:
    """Label every sentence of a split once."""
    texts = (document.text for document in open_corpus(config.corpus).documents(config.split))
    words = map(words_of, texts)
    with Bar("labelling", "sentences") as bar:
        labels = annotate(
            [sentence for sentence in words if sentence],
            config.out,
            workers=config.workers,
            progress=bar,
        )
    Console(highlight=False, soft_wrap=True).print(f"Tags and trees of {len(labels):,} sentences are in {config.out}.")


WIDTH = 160
"""Columns of the table where the output is no terminal."""


def evaluate_run(config: EvaluateConfig) -> None:
    """Measure a model and print the table."""
    console = Console()
    if not console.is_terminal:  # a file has no edge at which the table would have to be cut
        console = Console(width=max(console.width, WIDTH))
    evaluate(config, console)


def make_targets_run(config: MakeTargetsConfig) -> None:
    """Draw targets and say where they are."""
    files = ", ".join(str(path) for path in make_targets(config).values())
    Console(highlight=False, soft_wrap=True).print(f"Targets of {config.n:,} sentences are in {files}.")


def report_run(config: ReportConfig) -> None:
    """Write the pages and say where they are."""
    files = ", ".join(str(path) for path in make_report(config))
    Console(highlight=False, soft_wrap=True).print(f"The report is in {files}.")


def train_attribute_run(config: AttributeTrainConfig) -> None:
    """Train the attribute classifier of a language model and show what it knows at which noise."""
    with Bar("classifier", "steps") as bar:
        accuracy = train_attribute(config, lambda step, loss: bar(step, config.steps, loss=f"{loss:.3f}"))
    Console().print(_table(accuracy))


def _table(accuracy: NoiseLevelAccuracy) -> Table:
    table = Table("t", "fields that the text says", "all fields", title="Accuracy on dev, by noise level")
    for t, said, overall in zip(accuracy.t, accuracy.said, accuracy.overall, strict=True):
        table.add_row(f"{t:.2f}", f"{said:.1%}", f"{overall:.1%}")
    return table


def ft(config: FineTuneConfig) -> None:
    """Fine-tune a language model to a control."""
    with _reports("fine-tuned model", config.folder) as report:
        fine_tune(config, report)


def fudge(config: FudgeConfig) -> None:
    """Train future discriminators of all controls."""
    with _reports("language model with its discriminators", config.out) as report:
        train_fudge(config, report)


def pplm(config: PplmConfig) -> None:
    """Train an attribute model on a frozen language model."""
    with _reports("language model with its attribute model", config.out) as report:
        train_pplm(config, report)


@contextmanager
def _reports(what: str, folder: str) -> Iterator[Report]:
    """Show every epoch, and at last where the result is."""
    console = Console(highlight=False, soft_wrap=True)
    yield lambda report: console.print(_line(report))
    console.print(f"The {what} is in {folder}.")


def _line(report: Progress) -> str:
    done = f"{report.fraction:.0%} done after {report.seconds:,.0f} s"
    return f"epoch {report.epoch}: loss {report.loss:.4f}; {done}"


def train_judge_run(config: TrainJudgeConfig) -> None:
    """Train a judge; `judge.out`/train_judge_run.yaml says with what."""
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
    console = Console(highlight=False, soft_wrap=True)
    train_judge(train, dev, tokenizer, config.judge, lambda report: console.print(_train_judge_line(report)))
    console.print(f"The judge is in {out}.")


def _train_judge_line(report: JudgeProgress) -> str:
    return (
        f"epoch {report.at.epoch}: {report.dev_nats:.4f} nats a token on dev (best {report.best_nats:.4f}), "
        f"{report.at.loss:.4f} on train; {report.at.fraction:.0%} done after {report.at.seconds:,.0f} s"
    )


def train_parser_run(config: ParserTrainConfig) -> None:
    """Train the constituency parser on treebanks and show each epoch."""
    console = Console(highlight=False, soft_wrap=True)

    def line(done: Progress, f1: float | None) -> None:
        dev = "" if f1 is None else f", F1 {f1:.2%} on dev"
        console.print(
            f"epoch {done.epoch} of {config.epochs}: loss {done.loss:.3f} a word{dev}, {done.seconds:.0f} s so far"
        )

    best = train_parser(config, line)
    score = "" if best is None else f" Its labelled bracket F1 on dev is {best:.2%}."
    console.print(f"The parser is in {config.out}.{score}")


def train_syntax_run(config: SyntaxTrainConfig) -> None:
    """Train the classifiers of syntax of a language model and show what they know at which noise."""
    with Bar("classifier", "steps") as bar:
        accuracy = train_syntax(config, lambda step, loss: bar(step, config.steps, loss=f"{loss:.3f}"))
    Console().print(_train_syntax_table(accuracy))


def _train_syntax_table(accuracy: SyntaxAccuracy) -> Table:
    table = Table("t", "tags", "constituents (F1)", title="Accuracy on dev, by noise level")
    for t, tags, spans in zip(accuracy.t, accuracy.tags, accuracy.spans, strict=True):
        table.add_row(f"{t:.2f}", f"{tags:.1%}", f"{spans:.1%}")
    return table


def train_tags_run(config: TagTrainConfig) -> None:
    """Count p(tag | word) for a language model and say how sure a word is of its tag."""
    with Bar("labelling", "sentences") as bar:
        table = train_tags(config, bar)
    Console(highlight=False).print(
        f"{table.config.sentences:,} sentences; the likeliest tag of a word is right "
        f"{table.config.certainty:.1%} of the time."
    )


def train_trees_run(config: TreeTrainConfig) -> None:
    """Count what trees say of a language model's words, and how many trees there are."""
    with Bar("labelling", "sentences") as bar:
        table = train_trees(config, bar)
    Console(highlight=False, soft_wrap=True).print(
        f"{table.config.sentences:,} sentences; {len(table.config.leaves):,} kinds of leaf, "
        f"{len(table.tags.config.tags)} tags, {len(table.lengths):,} different trees kept."
    )
