"""Score a model on tasks with the judge, beside human text and the judge's own samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState

from diffusion_lm.baselines.load import open_baseline
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.collect import collected, write_missing
from diffusion_lm.evaluation.config import EvaluateConfig
from diffusion_lm.evaluation.encoder import SentenceEncoder
from diffusion_lm.evaluation.fingerprint import settings_hash, weights_hash
from diffusion_lm.evaluation.infill_scores import infill_scores
from diffusion_lm.evaluation.judge import JudgeLM, fluency
from diffusion_lm.evaluation.notes import notes, versus_originals, versus_references
from diffusion_lm.evaluation.optional import ENCODER, MAUVE, OUTSIDE, REFERENCES, require
from diffusion_lm.evaluation.outside import OutsideJudge
from diffusion_lm.evaluation.outside_rows import OutsideRows
from diffusion_lm.evaluation.references import ReferenceScores
from diffusion_lm.evaluation.report import Row, print_rows
from diffusion_lm.evaluation.results import Results, Sample
from diffusion_lm.evaluation.rows import (
    EvaluationRow,
    copied,
    diversity_of,
    make_row,
    nats_per_token,
    originals,
    target_scores,
)
from diffusion_lm.evaluation.systems import Human, JudgeSamples, Model, System, reservoir, target_seed
from diffusion_lm.evaluation.tasks import InfillTask, find_tasks
from diffusion_lm.files import write_whole
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.corpus import Corpus, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from diffusion_lm.evaluation.writer import Writer

NOT_IN_HASH = {
    "model", "judge", "corpus", "tasks", "targets", "pos_targets", "tree_targets",
    "span_targets", "compose_targets", "infill_targets", "lengths", "limit_targets", "device", "out",
    "baseline", "baseline_beams", "outside", "outside_n", "label",
}  # fmt: skip
"""Settings that change no text of a target, or stand in the hash as what they lead to."""

IN_VOCABULARY = "human (dev), model's vocabulary"


def evaluate(
    config: EvaluateConfig, console: Console | None = None, writer: Writer | None = None
) -> list[Row]:
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
    processes = PartialState(
        cpu=config.device == "cpu" or not torch.cuda.is_available(), timeout=timedelta(hours=12)
    )
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
