"""Score a model on tasks with the judge, beside human text and the judge's own samples."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from diffusion_lm.common import UserError, device_named
from diffusion_lm.control.prompt import Prompt
from diffusion_lm.evaluation import scores
from diffusion_lm.evaluation.data2text import scores_of_prompts, with_fewest_errors
from diffusion_lm.evaluation.metrics import Against, choose, scores_by_way, scores_of_gaps
from diffusion_lm.evaluation.pretrained import ENCODER, MAUVE, OUTSIDE, SentenceEncoder, outside_figures, require
from diffusion_lm.evaluation.scores import COLUMNS, RUN, TEXTS, read_run, read_texts, settings_hash
from diffusion_lm.evaluation.systems import Model, System, Writer, references, reservoir, target_seed
from diffusion_lm.evaluation.tasks import EvaluateConfig, find_tasks
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.store import append_line, explain_full_disk, write_whole
from diffusion_lm.text.corpus import NO_CORPUS, open_corpus
from diffusion_lm.text.spacing import words_of

if TYPE_CHECKING:
    from rich.console import Console

CHOSEN = "chosen.jsonl"
"""Of each gap and each prompt the answer of least risk."""
NOT_IN_HASH = {
    "model", "judge", "corpus", "tasks", "targets", "limit_targets", "device", "out", "baseline", "baseline_beams", "outside",
    "outside_n", "label", "texts", "split",
}  # fmt: skip
"""Settings that change no text of a target, or stand in the hash as what they lead to."""


def evaluate(config: EvaluateConfig, console: Console | None = None, writer: Writer | None = None) -> pd.DataFrame:
    """Run the tasks of the config, print the table, and return it (`scores.table`).

    Under `accelerate launch` or `torchrun` each process calls this and writes the texts of its share of the targets.
    Every text is written to `out`/texts.jsonl as soon as its target is done; the same call goes on where an earlier one
    stopped, and other tasks join what is there. `out`/run.json holds the config and what was measured of the texts together;
    only the main process measures with pretrained models and writes it.

    Args:
        config: what to evaluate, and how.
        console: where the table and the progress go; None prints nothing.
        writer: writes the texts in the model's place; the model still says what the targets are.

    Raises:
        UserError: the model, judge, corpus, a task or a target cannot be used, a package is missing, or `out` holds an
            evaluation with other settings.
    """
    run = Evaluation(config, writer)
    run.write_missing(console)
    frame = read_texts(config.out)
    record = run.record(frame)
    context = scores.Context.of(record)
    rows = scores.table(frame, context)
    if not run.processes.is_main_process:
        return rows
    record["notes"] += [*scores.notes(rows, scores.scores_by_target(frame), context), *_remarks(rows, record)]
    with explain_full_disk(Path(config.out)):
        write_whole(Path(config.out) / RUN, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if console is not None:
        scores.print_table(console, rows, f"{run.who}, judged by {config.judge}")
        for line in [f"{task}: {how}" for task, how in record["decoding"].items()] + record["notes"]:
            console.print(f"- {line}", highlight=False, markup=False)
    return rows


class Evaluation:
    """All that takes part, checked before the first text is written."""

    def __init__(self, config: EvaluateConfig, writer: Writer | None) -> None:
        tasks = find_tasks(config.tasks)
        find_tasks([*config.tasks, *config.targets])
        if config.outside:  # nothing is to be missing at the end, when the texts have been written
            require(*ENCODER, *OUTSIDE, *MAUVE)
        self.config = config
        self.corpus = None if config.corpus.source == NO_CORPUS else open_corpus(config.corpus)
        self.processes = PartialState(cpu=device_named(config.device).type == "cpu", timeout=timedelta(hours=12))
        self.judge = JudgeLM.from_pretrained(config.judge)
        self.lm = DiffusionLM.from_pretrained(config.model, self.processes.device)
        self.judge.to(self.lm.device)
        self.who = config.label or (config.model if writer is None else writer.name)
        known, self.left_out = references(self.corpus, self.judge, self.lm.tokenizer, config)
        self.models = [Model(self.lm, self.corpus, task, config, self.who, writer) for task in tasks]
        self.systems = [*known, *(model.system for model in self.models)]
        if any(model.has_references() for model in self.models if model.task != Prompt.task):
            require(*ENCODER)

    @cached_property
    def digest(self) -> str:
        """A hash of all that every text and its scores depend on."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in NOT_IN_HASH}
        weights = self.lm.denoiser.state_dict() | {"lengths": self.lm.lengths}
        parts = {
            "model": [scores.tensors_hash(weights), asdict(self.lm.config), self.lm.tokenizer.fingerprint],
            "judge": [scores.weights_hash(self.judge), self.judge.tokenizer.fingerprint],
            "corpus": [self.corpus.fingerprint(split) for split in ("train", "dev")] if self.corpus else [],
        }
        return settings_hash(settings | parts)

    def hash_of(self, system: System) -> str:
        """A hash of all that the texts of one system depend on."""
        return f"{self.digest}-{settings_hash([system.who, system.settings])}"

    @cached_property
    def train(self) -> set[int] | None:
        """Hashes of the words of the training texts; white space does not count. None where there is no corpus."""
        if self.corpus is None:
            return None
        return {hash(tuple(document.text.split())) for document in self.corpus.documents("train")}

    def write_missing(self, console: Console | None) -> None:
        """Write the texts of this process's share of the targets that are not there yet.

        The seed of a target does not depend on who writes it, so any number of processes writes the same texts.
        """
        path = Path(self.config.out) / TEXTS
        frame = read_texts(path.parent) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
        hashes = {system.task: self.hash_of(system) for system in self.systems}
        for task, config in zip(frame["task"], frame["config"], strict=True):
            if config != hashes.get(task, config) or not config.startswith(self.digest):
                raise UserError(
                    f"{path} holds texts of other settings or targets, another model, judge, corpus or label; give --out "
                    "another folder."
                )
        self.processes.wait_for_everyone()  # before one appends to what another still reads
        if self.processes.is_main_process and path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # what a killed process left of a last line
        self.processes.wait_for_everyone()
        for system in self.systems:
            done = set(frame.loc[frame["task"] == system.task, ["target", "index"]].itertuples(index=False, name=None))
            missing = [t for t in system.targets if not all((t, i) in done for i in range(system.samples))]
            share = missing[self.processes.process_index :: self.processes.num_processes]
            hidden = console is None or not console.is_terminal
            with tqdm(total=system.work * len(share), desc=system.task, disable=hidden, leave=False) as bar:
                for target in share:
                    for record in self._written(system, target, bar.update):
                        if (target, record["index"]) not in done:
                            with explain_full_disk(path):
                                append_line(path, record)
        self.processes.wait_for_everyone()

    def _written(self, system: System, target: str, tick: Callable[[], None]) -> list[dict[str, Any]]:
        """What a system writes for a target, with all that is known of it."""
        seed = target_seed(self.config.seed, system.task, target)
        records = system.write(target, seed, tick)
        nats, tokens = self.judge.score([self.judge.tokenizer.encode_sentence(each["text"]) for each in records])
        known: dict[str, Any] = dict.fromkeys(COLUMNS) | {"parts": {}, "paper_success": {}}
        known |= {"system": system.who, "task": system.task, "target": target, "seed": seed}
        known |= {"config": self.hash_of(system)}
        for i, record in enumerate(records):
            judged = {"index": i, "nats": float(nats[i]), "tokens": int(tokens[i])}
            copied = None if self.train is None else hash(tuple(record["text"].split())) in self.train
            records[i] = known | record | judged | {"copied": copied}
        return records

    def record(self, frame: pd.DataFrame) -> dict[str, Any]:
        """What run.json holds, beside what an earlier call measured of other tasks."""
        config = self.config
        people = frame[frame["task"] == "human"]
        record: dict[str, Any] = {
            "system": self.who,
            "config": asdict(config),
            "hash": self.digest,
            "hardware": [_hardware(self.lm.device)],
            "decoding": {model.task: model.decoding for model in self.models if model.decoding},
            "human_nats": float(people["nats"].sum() / people["tokens"].sum())
            if self.corpus
            else self.judge.human_nats,
            "left_out": self.left_out,
            "targets": {model.task: {"of": model.of, "tried": len(model.asked)} for model in self.models},
            **{"originals": {}, "outside": {}, "references": {}, "notes": []},
        }
        if not self.processes.is_main_process:
            return record
        record |= {"originals": self._originals(), "references": self._references(frame)}
        if config.outside and self.corpus:
            record["outside"], note = outside_figures(frame, self.corpus, config.outside_n, config.seed, self.lm.device)
            record["notes"].append(note)
        with suppress(UserError):  # there is none yet, or a damaged one, which is written anew
            before = read_run(config.out)
            if before["hash"] == self.digest:
                record["hardware"] = list(dict.fromkeys([*before.get("hardware", []), *record["hardware"]]))
                for name in ("decoding", "targets", "originals", "outside", "references"):
                    record[name] = {**before.get(name, {}), **record[name]}
        return record

    def _nats(self, texts: Iterable[str]) -> float:
        """Nats a token of those texts that the judge can read."""
        sentences = [self.judge.tokenizer.encode_sentence(text) for text in texts]
        nats, tokens = self.judge.score([each for each in sentences if len(each) <= self.judge.config.max_length])
        return float(nats.sum() / tokens.sum())

    def _originals(self) -> dict[str, dict[str, Any]]:
        """The very sentences which targets were taken from, where the training split has them."""
        wanted = {model.task: set(model.originals().values()) for model in self.models}
        if self.corpus is None or not any(wanted.values()):
            return {}
        everything = set().union(*wanted.values())
        train = [document.text for document in self.corpus.documents("train")]
        known = {words: text for text in train if (words := tuple(words_of(text))) in everything}
        drawn = self._nats(reservoir(train, self.config.n, self.config.seed))
        return {
            model.task: {
                "nats": self._nats(known[words] for words in sorted(found)),
                "found": len(found),
                "train": drawn,
                "success": model.success_of_originals(),
            }
            for model in self.models
            if (found := wanted[model.task] & known.keys())
        }

    @cached_property
    def _scores_of_gaps(self) -> Against:
        return scores_of_gaps(SentenceEncoder.from_package(self.lm.device).tokens)

    def _references(self, frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
        """Figures of what was written where people have written something too; what was chosen goes to `out`/chosen.jsonl."""
        found, lines = {}, []
        for model in self.models:
            asked = model.answered()
            own = frame[(frame["task"] == model.task) & frame["target"].isin(list(asked))]
            answers = {
                name: [asked[name][0].answer(asked[name][1], text) for text in rows["text"]]
                for name, rows in own.groupby("target", sort=False)
            }
            chosen = {name: each[choose(each)] for name, each in answers.items()}
            lines += [{"task": model.task, "target": name, "answer": answer} for name, answer in chosen.items()]
            if known := [name for name in answers if asked[name][1].references]:
                score = scores_of_prompts if model.task == Prompt.task else self._scores_of_gaps
                wanted = [asked[name][1] for name in known]
                texts, best = [answers[name] for name in known], {"mbr": [chosen[name] for name in known]}
                references, values = [each.references for each in wanted], [each.value for each in wanted]
                if model.task == Prompt.task:
                    right = map(with_fewest_errors, values, texts)
                    best["mbr, checked"] = [each[choose(each)] for each in right]
                found[model.task] = scores_by_way(texts, best, references, values, score)
        if lines and self.processes.is_main_process:
            path = Path(self.config.out) / CHOSEN
            before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            here = {line["task"] for line in lines}
            lines = [old for old in map(json.loads, before) if old["task"] not in here] + lines
            write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return found


def _hardware(device: torch.device) -> str:
    """On what the texts are written, which seconds depend on."""
    cpu = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return f"{chip}, torch {torch.__version__}"


def _remarks(rows: pd.DataFrame, record: Mapping[str, Any]) -> Iterator[str]:
    """What is to be said of the measures that only some tasks have, and of what there was no corpus for."""
    if record["config"]["corpus"]["source"] == NO_CORPUS and record["human_nats"] is not None:
        yield (
            f"Human text of the judge's own corpus has {record['human_nats']:.3f} nats a token by it (all of the dev split). "
            "--corpus.source FOLDER puts human text beside the rest, and finds copies."
        )
    for row in rows.to_dict("records"):
        if found := record["originals"].get(row["task"]):
            yield (
                f"{row['name']}: {row['nats'] - found['nats']:+.3f} nats against the human sentences that its targets were taken "
                f"from ({found['nats']:.3f}; {found['found']} of them stand in the training split), whose own success is "
                f"{found['success']:.1%}."
            )
        for way, each in record["references"].get(row["task"], {}).items():
            figures = ", ".join(f"{name} {value:.2f}" for name, value in each.items() if name != "n")
            yield f"{row['name']}, {way}, of {each['n']:,} texts against the references: {figures}."
    for found in list(record["originals"].values())[:1]:
        yield (
            "A judge that was trained on those human sentences (without --hold_out) knows them: random training sentences "
            f"score {found['train']:.3f} under it."
        )
    if any(task != Prompt.task for task in record["references"]):
        yield (
            "BERTScore is on MiniLM. The paper's choice by mbr on aNLG: BLEU-4 7.1, ROUGE-L 28.3, CIDEr 30.7, and a BERTScore on "
            "another encoder."
        )
    if record["left_out"]:
        yield f"Left out: {record['left_out']} of the human sentences drawn, longer than the judge reads."
