"""Score a model on tasks with the judge, beside human text and the judge's own samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from accelerate import PartialState
from torch import Tensor

from diffusion_lm.baselines.load import open_baseline
from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import ReferenceScores, TokenVectors, choose, reference_scores, remembered
from diffusion_lm.evaluation.pretrained import (
    ENCODER,
    MAUVE,
    OUTSIDE,
    REFERENCES,
    OutsideJudge,
    SentenceEncoder,
    mauve,
    outside_fluency,
    require,
)
from diffusion_lm.evaluation.scores import (
    EvaluationRow,
    Results,
    Row,
    Sample,
    copied,
    diversity_of,
    make_row,
    nats_per_token,
    notes,
    originals,
    print_rows,
    settings_hash,
    some_of,
    target_scores,
    versus_originals,
    versus_references,
    weights_hash,
)
from diffusion_lm.evaluation.systems import Human, JudgeSamples, Model, System, reservoir, target_seed
from diffusion_lm.evaluation.targets import InfillTarget
from diffusion_lm.evaluation.tasks import EvaluateConfig, InfillTask, find_tasks
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.store import write_whole
from diffusion_lm.text.corpus import Corpus, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from diffusion_lm.evaluation.systems import Writer


def write_missing(
    system: System,
    results: Results,
    judge: JudgeLM,
    seed: int,
    console: Console | None,
    processes: PartialState,
) -> None:
    """Write the texts of this process's share of the targets that are not in the results yet.

    The seed of a target does not depend on who writes it, so any number of processes writes the same texts.
    """
    done, config = collected(system, results), _hash(system, results)
    share = [target for target in system.targets if target not in done]
    share = share[processes.process_index :: processes.num_processes]
    with _Progress(console, system.label, system.work * len(share)) as tick:
        for target in share:
            seed_here = target_seed(seed, system.name, target)
            results.add(_write(system, target, judge, seed_here, config, tick))


def collected(system: System, results: Results) -> dict[str, list[Sample]]:
    """The samples of every target of a system that is in the results whole."""
    config = _hash(system, results)
    found = {target: results.get(system.name, target, system.samples, config) for target in system.targets}
    return {target: samples for target, samples in found.items() if samples is not None}


def _hash(system: System, results: Results) -> str:
    return f"{results.config}-{settings_hash(system.settings)}" if system.settings else results.config


def _write(
    system: System, target: str, judge: JudgeLM, seed: int, config: str, tick: Callable[[], None]
) -> list[Sample]:
    """Let a system write, and score what it wrote."""
    written = system.write(target, seed, tick)
    nats, tokens = judge.score([judge.tokenizer.encode_sentence(text) for text in written.texts])
    return [
        Sample(
            task=system.name,
            target=target,
            index=i,
            text=text,
            success=None if written.success is None else written.success[i],
            parts={name: values[i] for name, values in written.parts.items()},
            paper={name: values[i] for name, values in written.paper.items()},
            nats=float(nats[i]),
            tokens=int(tokens[i]),
            seed=seed,
            seconds=None if written.seconds is None else written.seconds / len(written.texts),
            network_evaluations=written.network_evaluations,
            config=config,
        )
        for i, text in enumerate(written.texts)
    ]


class _Progress:
    """A bar on a terminal; its `tick` is called once a step of a batch."""

    def __init__(self, console: Console | None, label: str, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeRemainingColumn(),
        )
        hidden = console is None or not console.is_terminal or total == 0
        self.bar = Progress(*columns, console=console, transient=True, disable=hidden)
        self.task = self.bar.add_task(label, total=total)

    def __enter__(self) -> Callable[[], None]:
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()


DRAWS = 5
"""Samples of each target whose figures are averaged; the texts of a target are alike but for chance."""


def infill_scores(
    groups: Mapping[str, Sequence[Sample]], asked: Mapping[str, InfillTarget], token_vectors: TokenVectors
) -> dict[str, ReferenceScores]:
    """Figures of the gaps alone, the context left out.

    Args:
        groups: the samples by the name of their target; each has as many.
        asked: the targets by their name.
        token_vectors: of the BERTScore.

    Returns:
        mbr: of each target the sample of least risk by sentence BLEU, as in the paper.
        sample: the mean over the first `DRAWS` samples of each target.
        human: the first reference against the others, of the targets that have several; absent where none has.
    """
    token_vectors = remembered(token_vectors)
    targets = [asked[name] for name in groups]
    references = [target.references for target in targets]
    gaps = [
        [target.middle(sample.text) for sample in samples]
        for target, samples in zip(targets, groups.values(), strict=True)
    ]
    chosen = [middles[choose(middles)] for middles in gaps]
    draws = [reference_scores(texts, references, token_vectors) for texts in list(zip(*gaps, strict=True))[:DRAWS]]
    scores = {"mbr": reference_scores(chosen, references, token_vectors), "sample": _mean(draws)}
    several = [each for each in references if len(each) > 1]
    if several:
        first, others = [each[0] for each in several], [each[1:] for each in several]
        scores["human"] = reference_scores(first, others, token_vectors)
    return scores


def _mean(draws: Sequence[ReferenceScores]) -> ReferenceScores:
    """The mean of each figure; all are of as many texts."""
    figures = [asdict(draw) for draw in draws]
    means = {name: sum(each[name] for each in figures) / len(figures) for name in figures[0]}
    return ReferenceScores(**{**means, "n": draws[0].n})


@final
class OutsideRows:
    """Fluency under the outside judge of every row, and MAUVE of the rows of free text.

    A corpus's dev split may differ from its training split in what is talked about, as E2E's does in the names of restaurants,
    and a model can only be like what it has read. So MAUVE is taken against both.

    Args:
        corpus: where human text comes from.
        human: texts of the dev split that rows are compared with.
        judge: of fluency.
        encoder: of the features of MAUVE.
        n: the most texts of a row whose fluency is measured.
        seed: of the choice of texts and of k-means.
    """

    def __init__(
        self,
        corpus: Corpus,
        human: Sequence[str],
        judge: OutsideJudge,
        encoder: SentenceEncoder,
        n: int,
        seed: int,
    ) -> None:
        self.judge, self.encoder, self.n, self.seed = judge, encoder, n, seed
        known = set(human)
        dev = (document.text for document in corpus.documents("dev") if document.text not in known)
        others = reservoir(dev, len(human), seed)
        train = reservoir((document.text for document in corpus.documents("train")), 2 * len(human), seed)
        self.human = encoder.sentences(human)
        # Of fewer texts MAUVE would be lower for that alone.
        self.others = encoder.sentences(others) if len(others) == len(human) else None
        self.train, self.more_train = encoder.sentences(train).tensor_split(2)

    def rows(self, rows: Sequence[EvaluationRow], texts: Mapping[str, Sequence[str]]) -> list[EvaluationRow]:
        """The same rows, with the outside figures of those whose texts are given by the row's task."""
        return [self._measured(row, texts[row.task]) if row.task in texts else row for row in rows]

    def _measured(self, row: EvaluationRow, texts: Sequence[str]) -> EvaluationRow:
        chosen = [text for text in some_of(texts, self.n, self.seed) if text.strip()]
        if chosen:
            nats = outside_fluency(self.judge, chosen).nats_per_token
            row = replace(row, outside_nats=nats, outside_n=len(chosen))
        if row.success is not None:
            return row
        human = row.task == Human.name
        features = self.human if human else self.encoder.sentences(texts)
        return replace(
            row,
            mauve=self._mauve(features, self.others if human else self.human),
            mauve_train=self._mauve(features, self.train),
        )

    def _mauve(self, features: Tensor, others: Tensor | None) -> float | None:
        return None if others is None else mauve(features, others, self.seed)

    def remark(self) -> str:
        """What to hold the figures of MAUVE against."""
        ceiling = mauve(self.train, self.more_train, self.seed)
        return (
            "MAUVE is on MiniLM's features, not the paper's: read it beside human text. Against dev the human row's own figure, "
            "which is of other dev texts, is the ceiling; against train it is "
            f"{ceiling:.3f}, of other training texts. Outside nats are of at most {self.n:,} texts a row, a token of SmolLM2's."
        )


NOT_IN_HASH = {
    "model", "judge", "corpus", "tasks", "targets", "pos_targets", "tree_targets",
    "span_targets", "compose_targets", "infill_targets", "lengths", "limit_targets", "device", "out",
    "baseline", "baseline_beams", "outside", "outside_n", "label",
}  # fmt: skip
"""Settings that change no text of a target, or stand in the hash as what they lead to."""

IN_VOCABULARY = "human (dev), model's vocabulary"


def evaluate(config: EvaluateConfig, console: Console | None = None, writer: Writer | None = None) -> list[Row]:
    """Run the tasks of the config, print the table, and return its rows.

    Under `accelerate launch` or `torchrun` each process calls this and writes the texts of its share of the targets.
    Every text is written to `out`/results.jsonl as soon as its target is done; the same call goes on where an
    earlier one stopped. `out`/summary.json holds the rows, the score of every target, and the config; only the main process
    measures with pretrained models and writes it.

    Args:
        config: what to evaluate, and how.
        console: where the table and the progress go; None prints nothing.
        writer: writes the texts in the model's place; the model still says what the targets are. Default: the config's baseline,
            if it names one.

    Raises:
        UserError: the model, judge, corpus, a task or a target cannot be used, a package is missing, or `out` holds an
            evaluation with other settings.
    """
    tasks = find_tasks(config.tasks)
    _check_packages(config)
    corpus = open_corpus(config.corpus)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; take --device auto or --device cpu.")
    processes = PartialState(cpu=config.device == "cpu" or not torch.cuda.is_available(), timeout=timedelta(hours=12))
    judge = JudgeLM.from_pretrained(config.judge)
    lm = DiffusionLM.from_pretrained(config.model, processes.device)
    judge.to(lm.device)
    if writer is None and config.baseline:
        writer = open_baseline(config.baseline, config.baseline_beams)
    # Before a task loads a classifier into the model: it belongs to that task's settings.
    digest = _settings_hash(config, lm, judge, corpus)
    human = Human(corpus, judge, config.n, target_seed(config.seed, Human.name, ""))
    models = [Model(lm, task(config, lm), config, writer) for task in tasks]
    systems: list[System] = [human, JudgeSamples(judge, config.n), *models]
    path = Path(config.out) / "results.jsonl"
    results = Results(path, digest)
    processes.wait_for_everyone()  # before one appends to what another still reads
    for system in systems:
        write_missing(system, results, judge, config.seed, console, processes)
    processes.wait_for_everyone()
    results = Results(path, digest)  # with what the other processes wrote
    groups = {system.name: collected(system, results) for system in systems}
    who = config.label or (config.model if writer is None else writer.name)
    rows = _rows(config, systems, groups, judge, lm, corpus, who)
    remarks = notes(rows, human.left_out, {m.label: target_scores(groups[m.name]) for m in models})
    remarks += _against_originals(config, models, groups, judge, corpus)
    if processes.is_main_process:
        references = _against_references(models, groups, lm.device)
        remarks += [versus_references(m.label, references[m.name]) for m in models if m.name in references]
        if config.outside:
            outside = _outside(config, corpus, groups, lm.device)
            rows = outside.rows(rows, {name: _texts(group) for name, group in groups.items()})
            remarks.append(outside.remark())
        _write_summary(config, digest, who, rows, groups, references, remarks)
    if processes.is_main_process and console is not None:
        steps = f", {config.steps} steps" if writer is None else ""
        print_rows(console, rows, f"{who}{steps}, judged by {config.judge}")
        for remark in remarks:
            console.print(f"- {remark}", highlight=False, markup=False)
    return list(rows)


def _check_packages(config: EvaluateConfig) -> None:
    """See that nothing is missing at the end, when the texts have been written."""
    if config.outside:
        require(*ENCODER, *OUTSIDE, *MAUVE)
    if InfillTask.name in config.tasks:
        require(*ENCODER, *REFERENCES)


def _texts(group: dict[str, list[Sample]]) -> list[str]:
    return [sample.text for samples in group.values() for sample in samples]


def _settings_hash(config: EvaluateConfig, lm: DiffusionLM, judge: JudgeLM, corpus: Corpus) -> str:
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_IN_HASH}
    return settings_hash(
        {
            **settings,
            "model": [weights_hash(lm), asdict(lm.config), lm.tokenizer.fingerprint],
            "judge": [weights_hash(judge), judge.tokenizer.fingerprint],
            "corpus": [corpus.fingerprint("train"), corpus.fingerprint("dev")],
        }
    )


def _rows(
    config: EvaluateConfig,
    systems: Sequence[System],
    groups: dict[str, dict[str, list[Sample]]],
    judge: JudgeLM,
    lm: DiffusionLM,
    corpus: Corpus,
    who: str,
) -> list[EvaluationRow]:
    """A row for each system; after the first, human text, one for it in the model's vocabulary."""
    texts = (sample.text for group in groups.values() for samples in group.values() for sample in samples)
    copies = copied(texts, (document.text for document in corpus.documents("train")))
    human_texts = _texts(groups[Human.name])
    human = fluency(judge, human_texts).nats_per_token
    rows = [
        make_row(
            system.label,
            groups[system.name],
            task=system.name,
            system=who if isinstance(system, Model) else system.name,
            of=system.of,
            human=human,
            copies=copies,
            most=config.n,
            seed=config.seed,
        )
        for system in systems
    ]
    known = [lm.tokenizer.decode(lm.tokenizer.encode_sentence(text)) for text in human_texts]
    in_vocabulary = EvaluationRow(
        name=IN_VOCABULARY,
        task="human in vocabulary",
        system=Human.name,
        nats_per_token=fluency(judge, known).nats_per_token,
        human_nats_per_token=human,
        n=len(known),
        seed=config.seed,
        **diversity_of(known, config.n, config.seed),  # type: ignore[arg-type]
    )
    return [rows[0], in_vocabulary, *rows[1:]]


def _against_originals(
    config: EvaluateConfig,
    models: Sequence[Model],
    groups: dict[str, dict[str, list[Sample]]],
    judge: JudgeLM,
    corpus: Corpus,
) -> list[str]:
    """The fluency of each task beside that of the very sentences which its targets were taken from."""
    train = [document.text for document in corpus.documents("train")] if any(m.words for m in models) else []
    return [
        versus_originals(
            model.label,
            nats_per_token([sample for samples in groups[model.name].values() for sample in samples]),
            fluency(judge, found).nats_per_token,
            len(found),
            fluency(judge, reservoir(train, config.n, config.seed)).nats_per_token,
            model.success_of_originals(),
        )
        for model in models
        if (found := originals(model.words.values(), train))
    ]


def _against_references(
    models: Sequence[Model], groups: dict[str, dict[str, list[Sample]]], device: torch.device
) -> dict[str, dict[str, ReferenceScores]]:
    """The figures of a task that has references, by its name."""
    infill = [model for model in models if model.name == InfillTask.name]
    if not infill:
        return {}
    encoder = SentenceEncoder.from_package(device)
    return {model.name: infill_scores(groups[model.name], model.asked, encoder.tokens) for model in infill}


def _outside(
    config: EvaluateConfig, corpus: Corpus, groups: dict[str, dict[str, list[Sample]]], device: torch.device
) -> OutsideRows:
    """The measures of pretrained models."""
    judge, encoder = OutsideJudge.from_package(device), SentenceEncoder.from_package(device)
    return OutsideRows(corpus, _texts(groups[Human.name]), judge, encoder, config.outside_n, config.seed)


def _write_summary(
    config: EvaluateConfig,
    digest: str,
    who: str,
    rows: Sequence[EvaluationRow],
    groups: dict[str, dict[str, list[Sample]]],
    references: dict[str, dict[str, ReferenceScores]],
    remarks: Sequence[str],
) -> None:
    """Write `out`/summary.json, whole or not at all."""
    summary: dict[str, Any] = {
        "system": who,
        "config": asdict(config),
        "hash": digest,
        "rows": [{**asdict(row), "against_human": row.against_human} for row in rows],
        "targets": {
            name: [asdict(score) for score in target_scores(group)]
            for name, group in groups.items()
            if list(group) != [""]
        },
        "references": {
            task: {name: asdict(each) for name, each in scores.items()} for task, scores in references.items()
        },
        "notes": list(remarks),
    }
    write_whole(Path(config.out) / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
