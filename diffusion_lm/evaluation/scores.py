"""Texts and their scores: records, rows, remarks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import ReferenceScores, distinct, normalise_space, self_bleu, verbatim_share
from diffusion_lm.text.spacing import words_of

if TYPE_CHECKING:
    from rich.console import Console


BLANK = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system on one task; None where a figure was not measured."""

    name: str
    """The system, and the control if there is one."""
    nats_per_token: float | None = None
    """Fluency: the judge's nats a token, END counted."""
    human_nats_per_token: float | None = None
    """The same judge on human text."""
    success: float | None = None
    """Share of the texts that obey the control, in [0, 1]."""
    success_paper: float | None = None
    """The same as the paper's evaluator counts it, which rewrites the text first: paper-compatible."""
    distinct_1: int | None = None
    """Number of distinct words."""
    distinct_2: float | None = None
    """Distinct word pairs over all word pairs."""
    self_bleu: float | None = None
    """Mean BLEU-4 of each text against the others, 0 to 100."""
    mauve: float | None = None
    """MAUVE against human text of the dev split, in [0, 1]; of the human row itself, against other such text."""
    mauve_train: float | None = None
    """The same against human text of the training split."""
    outside_nats: float | None = None
    """Nats a token under a language model that never read the corpus."""
    verbatim: float | None = None
    """Share of the texts that stand in the training corpus, in [0, 1]."""
    evaluations: int | None = None
    """Network evaluations a batch of texts."""
    seconds: float | None = None
    """Wall-clock time to generate all texts."""
    n: int | None = None
    """Number of texts."""
    seed: int | None = None
    """Seed of the generation."""

    @property
    def against_human(self) -> float | None:
        """Nats a token above human text; negative where the judge likes the system better."""
        if self.nats_per_token is None or self.human_nats_per_token is None:
            return None
        return self.nats_per_token - self.human_nats_per_token


COLUMNS = {
    "nats/token": ("nats_per_token", "{:.3f}"),
    "vs human": ("against_human", "{:+.3f}"),
    "success %": ("success", "{:.1%}"),
    "paper-compatible %": ("success_paper", "{:.1%}"),
    "distinct-1": ("distinct_1", "{:,}"),
    "distinct-2": ("distinct_2", "{:.3f}"),
    "self-BLEU": ("self_bleu", "{:.1f}"),
    "MAUVE": ("mauve", "{:.3f}"),
    "MAUVE, train": ("mauve_train", "{:.3f}"),
    "outside nats": ("outside_nats", "{:.3f}"),
    "verbatim %": ("verbatim", "{:.1%}"),
    "evaluations": ("evaluations", "{:,}"),
    "seconds": ("seconds", "{:,.1f}"),
    "n": ("n", "{:,}"),
    "seed": ("seed", "{}"),
}
"""Heading: the attribute of `Row` under it, and its format."""


def print_rows(console: Console, rows: Sequence[Row], title: str | None = None) -> None:
    """Print `rows` as a table on `console`; a column that no row has measured is left out."""
    from rich.table import Table

    columns = {head: column for head, column in COLUMNS.items() if any(_value(row, column) for row in rows)}
    table = Table(title=title)
    table.add_column("name")
    for head in columns:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.name, *(_value(row, column) or BLANK for column in columns.values()))
    console.print(table)


def _value(row: Row, column: tuple[str, str]) -> str | None:
    value = getattr(row, column[0])
    return None if value is None else column[1].format(value)


def append_jsonl(path: str | Path, record: Row | Mapping[str, Any]) -> None:
    """Append `record` as one line of JSON to `path`, made if need be; on return the line is on the disk.

    The line is one write to a file opened for appending, so runs that share a file do not mix their lines.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold; None stands for a figure that is missing.
    """
    values = dataclasses.asdict(record) if isinstance(record, Row) else dict(record)
    line = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode("utf-8"))
        os.fsync(file.fileno())


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text and its scores; a line of results.jsonl."""

    task: str
    """The task, or the baseline: human, judge."""
    target: str
    """What was asked for; empty where nothing was."""
    index: int
    """Number of the text among those of its target, from 0."""
    text: str
    """The text as a reader sees it."""
    success: float | None
    """How far it obeys the control, in [0, 1]; None without a control."""
    parts: dict[str, float] = field(default_factory=dict)
    """The same for each of several controls, by the name of its task."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper-compatible success of each control, by the name of its task."""
    nats: float
    """-log p(text, END) under the judge."""
    tokens: int
    """Tokens that the judge predicted, END counted: nats / tokens is the text's fluency."""
    seed: int
    """Seed of the target's generation; with it and `index` the text is written again."""
    seconds: float | None
    """This text's share of the time that the target's generation took."""
    network_evaluations: int | None
    """Denoiser and classifier passes for the batch that the text was in."""
    config: str
    """Hash of all that the text and its scores depend on."""


class Results:
    """The samples in a file, by task and target.

    Args:
        path: the file; it need not exist.
        config: hash of this evaluation's settings; a task with settings of its own appends theirs after a
            hyphen.

    Raises:
        UserError: the file holds samples of other settings, or a line that is no sample.
    """

    def __init__(self, path: str | Path, config: str) -> None:
        self.path = Path(path)
        self.config = config
        self._samples: dict[tuple[str, str], dict[int, Sample]] = {}
        for number, line in enumerate(_whole_lines(self.path), start=1):
            sample = _read(line, f"Line {number} of {self.path}")
            if sample.config.partition("-")[0] != config:
                raise self._mixed()
            self._keep(sample)

    def _mixed(self) -> UserError:
        return UserError(
            f"{self.path} holds results with other settings, another model, judge or corpus; give --out another folder."
        )

    def _keep(self, sample: Sample) -> bool:
        """Whether the sample is new."""
        group = self._samples.setdefault((sample.task, sample.target), {})
        return group.setdefault(sample.index, sample) is sample

    def get(self, task: str, target: str, n: int, config: str) -> list[Sample] | None:
        """The samples 0 .. n - 1 of a target if all of them are there, else None.

        Raises:
            UserError: there are some, but with other settings of the task.
        """
        group = self._samples.get((task, target), {})
        if any(sample.config != config for sample in group.values()):
            raise self._mixed()
        return [group[i] for i in range(n)] if all(i in group for i in range(n)) else None

    def add(self, samples: Sequence[Sample]) -> None:
        """Append the samples that are not there yet; on return they are on the disk."""
        for sample in samples:
            if self._keep(sample):
                append_jsonl(self.path, asdict(sample))


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file; what a killed process left of its last one is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        logger.warning("The last line of %s was cut short and is dropped.", path)
        with path.open("r+b") as file:
            file.truncate(end)
    # Not splitlines, which would also split at separators that JSON leaves inside a text.
    return data[:end].decode("utf-8", errors="replace").split("\n")[:-1]


def _read(line: str, where: str) -> Sample:
    try:
        values: Any = json.loads(line)
        return Sample(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where} is no result of an evaluation ({error}).") from error


RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Row):
    """A row with what the table has no column for."""

    task: str = ""
    """Name of the task, or who wrote where there is none: human, judge."""
    system: str = ""
    """Who wrote the texts."""
    distinct_2_count: int | None = None
    """Number of different word pairs."""
    diversity_n: int | None = None
    """Number of texts that the distinct counts and self-BLEU are of."""
    success_interval: tuple[float, float] | None = None
    """95 % interval of `success`: percentiles of the bootstrap over targets."""
    success_paper_interval: tuple[float, float] | None = None
    """The same of `success_paper`; None where several controls are asked for at once."""
    nats_interval: tuple[float, float] | None = None
    """The same of `nats_per_token`; over texts where there are no targets."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean success of each of several controls, by the name of its task."""
    parts_interval: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """The 95 % interval of each of `parts`."""
    parts_paper: dict[str, float] = field(default_factory=dict)
    """Mean paper-compatible success of each of several controls."""
    outside_n: int | None = None
    """Number of texts that `outside_nats` is of."""
    targets: int | None = None
    """Number of targets tried."""
    targets_in_all: int | None = None
    """Number of targets that there are."""


@dataclass(frozen=True)
class TargetScore:
    """One target of a task."""

    target: str
    success: float | None
    nats_per_token: float
    n: int
    parts: dict[str, float] = field(default_factory=dict)
    """Mean success of each of several controls, by the name of its task."""
    paper: dict[str, float] = field(default_factory=dict)
    """Mean paper-compatible success of each control, by the name of its task."""


def some_of(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """A random `most` of the texts in their order, or all if there are not more."""
    if len(texts) <= most:
        return list(texts)
    chosen = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in sorted(chosen)]


def diversity_of(texts: Sequence[str], most: int, seed: int) -> dict[str, int | float]:
    """Distinct words and pairs and self-BLEU of at most `most` texts, as fields of `EvaluationRow`."""
    texts = some_of(texts, most, seed)
    words = [words_of(text) for text in texts]
    pairs = distinct(words, 2)
    figures = {
        "distinct_1": distinct(words, 1).count,
        "distinct_2": pairs.ratio,
        "distinct_2_count": pairs.count,
        "diversity_n": len(texts),
    }
    return figures if len(texts) < 2 else {**figures, "self_bleu": self_bleu(words, sample=None)}


def target_scores(groups: dict[str, list[Sample]]) -> list[TargetScore]:
    """The score of each target; success is the mean over its samples."""
    return [
        TargetScore(
            target,
            _mean_success(samples),
            nats_per_token(samples),
            len(samples),
            _means([sample.parts for sample in samples]),
            _means([sample.paper for sample in samples]),
        )
        for target, samples in groups.items()
    ]


def nats_per_token(samples: Sequence[Sample]) -> float:
    """Total nats over total tokens, END counted."""
    return sum(sample.nats for sample in samples) / sum(sample.tokens for sample in samples)


def success_of(success: Iterable[float | None], seed: int) -> tuple[float | None, tuple[float, float] | None]:
    """The mean over the targets' successes, and its 95 % bootstrap interval (None for a single target)."""
    values = [value for value in success if value is not None]
    if not values:
        return None, None
    return sum(values) / len(values), bootstrap(values, [1] * len(values), seed)


def bootstrap(values: Sequence[float], weights: Sequence[float], seed: int) -> tuple[float, float] | None:
    """The 95 % interval of sum(values) / sum(weights) when units are drawn anew with replacement; None for a single unit."""
    if len(values) < 2:
        return None
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    ratios = np.asarray(values)[draws].sum(1) / np.asarray(weights)[draws].sum(1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def nats_interval(groups: Mapping[str, Sequence[Sample]], seed: int) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the nats a token: over targets, since texts for one target are alike, or else over texts."""
    units = list(groups.values())
    if len(units) == 1:
        units = [[sample] for sample in units[0]]
    nats = [sum(sample.nats for sample in unit) for unit in units]
    return bootstrap(nats, [sum(sample.tokens for sample in unit) for unit in units], seed)


def copied(texts: Iterable[str], training_texts: Iterable[str]) -> set[str]:
    """Those of the texts that stand in the training set; the training set is streamed, never held."""
    wanted = {normalise_space(text) for text in texts}
    return {known for text in training_texts if (known := normalise_space(text)) in wanted}


def originals(words: Iterable[Sequence[str]], training_texts: Iterable[str]) -> list[str]:
    """The training texts that have just these words, one for each list of words that is found; they are streamed."""
    wanted = {tuple(each) for each in words}
    found: dict[tuple[str, ...], str] = {}
    for text in training_texts:
        if wanted and (key := tuple(words_of(text))) in wanted:
            found[key] = text
    return list(found.values())


def make_row(
    label: str,
    groups: dict[str, list[Sample]],
    *,
    task: str,
    system: str,
    of: int,
    human: float,
    copies: AbstractSet[str],
    most: int,
    seed: int,
) -> EvaluationRow:
    """The row of a system.

    Args:
        label: its name in the table.
        groups: its samples by target.
        task: name of the task.
        system: who wrote.
        of: number of targets that there are.
        human: nats a token of human text.
        copies: texts that stand in the training set.
        most: the most texts whose diversity is measured.
        seed: seed of the evaluation.
    """
    samples = [sample for group in groups.values() for sample in group]
    texts = [sample.text for sample in samples]
    scores = target_scores(groups)
    success, interval = success_of((score.success for score in scores), seed)
    # Of several controls at once the paper counts each by itself.
    alone = [score.paper.get(task) for score in scores]
    paper, paper_interval = success_of(alone, seed)
    parts = _means([score.parts for score in scores])
    seconds = [sample.seconds for sample in samples if sample.seconds is not None]
    passes = [s.network_evaluations for s in samples if s.network_evaluations is not None]
    return EvaluationRow(
        name=label,
        task=task,
        system=system,
        nats_per_token=nats_per_token(samples),
        human_nats_per_token=human,
        success=success,
        success_interval=interval,
        success_paper=paper,
        success_paper_interval=paper_interval,
        nats_interval=nats_interval(groups, seed),
        parts=parts,
        parts_interval={name: success_of((score.parts[name] for score in scores), seed)[1] for name in parts},
        parts_paper=_means([score.paper for score in scores]) if parts else {},
        verbatim=verbatim_share(texts, copies),
        evaluations=max(passes) if passes else None,
        seconds=sum(seconds) if seconds else None,
        n=len(texts),
        seed=seed,
        targets=len(groups),
        targets_in_all=of,
        **diversity_of(texts, most, seed),  # type: ignore[arg-type]
    )


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure that all have."""
    return {name: sum(each[name] for each in figures) / len(figures) for name in figures[0]}


def _mean_success(samples: Sequence[Sample]) -> float | None:
    values = [sample.success for sample in samples if sample.success is not None]
    return sum(values) / len(values) if values else None


WORST = 5


def notes(rows: Sequence[EvaluationRow], left_out: int, scores: Mapping[str, Sequence[TargetScore]]) -> list[str]:
    """The remarks under the table.

    Args:
        rows: the table; the first is human text as written, the second the same in the model's vocabulary.
        left_out: human sentences that are longer than the judge can read.
        scores: the score of each target, by the name of the row.
    """
    raw, known = rows[0], rows[1]
    remarks = [
        f"Distinct words of the model are to be compared with {known.name!r} ({known.distinct_1:,}), where "
        f"each word that the model's vocabulary lacks counts as the one word UNK; {raw.name!r} "
        f"({raw.distinct_1:,}) counts words as people wrote them.",
        "Distinct pairs: " + "; ".join(f"{row.name} {row.distinct_2_count:,}" for row in rows) + ".",
    ]
    for row in rows:
        if row.diversity_n is not None and row.diversity_n != raw.diversity_n:
            remarks.append(
                f"{row.name}: distinct counts and self-BLEU are of {row.diversity_n:,} texts, not "
                f"{raw.diversity_n:,} as for human text: do not compare them."
            )
        elif row.n != row.diversity_n:
            remarks.append(
                f"{row.name}: distinct counts and self-BLEU are of a random {row.diversity_n:,} of its {row.n:,} texts."
            )
        remarks += _success(row, scores.get(row.name, ()))
    if left_out:
        remarks.append(f"Left out: {left_out} of the human sentences drawn, longer than the judge reads.")
    return remarks


def _success(row: EvaluationRow, scores: Sequence[TargetScore]) -> list[str]:
    if row.success is None or row.targets is None or row.targets_in_all is None:
        return []
    text = f"{row.name}: success {row.success:.1%}"
    if row.success_interval is not None:
        low, high = row.success_interval
        text += f", 95 % interval {low:.1%} to {high:.1%} (bootstrap over {row.targets} targets)"
    for name in set.intersection(*(set(score.parts) for score in scores)) if scores else ():
        text += f"; {name} by itself {sum(score.parts[name] for score in scores) / len(scores):.1%}"
    if row.targets < row.targets_in_all:
        text += f"; only {row.targets} of {row.targets_in_all} targets were tried"
    missed = sorted((s.success, s.target) for s in scores if s.success is not None and s.success < 1)
    if missed:
        text += "; lowest: " + ", ".join(f"{target} {share:.0%}" for share, target in missed[:WORST])
    return [text + "."]


def versus_references(label: str, scores: Mapping[str, ReferenceScores]) -> str:
    """The remark on a task whose texts were held against references: the figures of each way to choose a text."""
    figures = "; ".join(
        f"{name} {each.bleu_4:.1f} / {each.rouge_l:.1f} / {each.cider:.1f} / {each.bert_score:.1f} ({each.n:,} texts)"
        for name, each in scores.items()
    )
    return (
        f"{label}: BLEU-4 / ROUGE-L / CIDEr / BERTScore on MiniLM against the references: {figures}. "
        "The paper's choice by mbr on aNLG: 7.1 / 28.3 / 30.7, and a BERTScore on another encoder."
    )


def versus_originals(label: str, nats: float, original: float, found: int, train: float, success: float | None) -> str:
    """The remark on the sentences that targets were taken from.

    Args:
        label: name of the row.
        nats: a token of its texts.
        original: nats a token of the sentences that the targets were taken from.
        found: how many of these stand in the training split.
        train: nats a token of random training sentences.
        success: mean success of the sentences that the targets were taken from, by the same judge.
    """
    return (
        f"{label}: {nats - original:+.3f} nats against the human sentences that its targets were taken from ({original:.3f}). "
        f"{found} of these stand in the training split, and a judge that was trained on them (without --hold_out) knows them: "
        f"random training sentences score {train:.3f} under it."
        + ("" if success is None else f" The sentences' own success is {success:.1%}.")
    )


def settings_hash(values: Mapping[str, Any]) -> str:
    """A hash of settings that JSON can hold; their order does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """A hash of all that a module saves: names, shapes and values."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors: names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
