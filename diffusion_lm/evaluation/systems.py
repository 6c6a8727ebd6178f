"""What writes the texts that an evaluation compares: people, the judge itself, the model or a `Writer` on a task."""

from __future__ import annotations

import hashlib
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final

import torch

from diffusion_lm.common import UserError
from diffusion_lm.control.control import Control, Target, together
from diffusion_lm.control.guidance import COMPOSITION, PAPER
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.program import Asset
from diffusion_lm.evaluation.scores import settings_hash, tensors_hash
from diffusion_lm.evaluation.targets import read_records
from diffusion_lm.evaluation.tasks import FREE, EvaluateConfig, Task, name_of
from diffusion_lm.generation.layout import compiled
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import fitted
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.text.corpus import Corpus
from diffusion_lm.text.tokenizer import Tokenizer

JUDGE_BATCH = 256
T = TypeVar("T")
Record = dict[str, Any]
Tick = Callable[[], None]


@dataclass(frozen=True)
class System:
    """A source of texts."""

    task: str
    """The task in the results; of free text that is no model's, who wrote."""
    who: str
    samples: int
    """Texts for each target."""
    write: Callable[[str, int, Tick], list[Record]]
    """(name of a target, seed, tick) to its texts, with what is known of each; the same seed gives the same texts."""
    targets: Sequence[str] = ("",)
    """Names of the targets, empty where nothing is asked for."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the texts depend on beyond the evaluation's own settings."""
    work: int = 1
    """How many calls of `tick` a target takes."""


def references(
    corpus: Corpus | None, judge: JudgeLM, words: Tokenizer, config: EvaluateConfig
) -> tuple[list[System], int]:
    """What stands in every evaluation to compare with: people, in a model's words too, and the judge.

    People are a seeded sample of the dev split, none where there is no corpus. Beside it: how many of it are left out, longer
    than the judge reads.
    """
    if corpus is None:
        return [judge_samples(judge, config.n)], 0
    documents = (document.text for document in corpus.documents("dev"))
    drawn = reservoir(documents, config.n, target_seed(config.seed, "human", ""))
    limit = judge.config.max_length
    texts = [text for text in drawn if len(judge.tokenizer.encode_sentence(text)) <= limit]
    if not texts:
        raise UserError(f"The judge reads {limit - 2} words, fewer than any human sentence; train one that reads more.")
    known = [words.decode(words.encode_sentence(text)) for text in texts]
    people = [_human("human", texts), _human("human in vocabulary", known)]
    return [*people, judge_samples(judge, config.n)], len(drawn) - len(texts)


def _human(task: str, texts: Sequence[str]) -> System:
    return System(task, "human", len(texts), lambda target, seed, tick: [{"text": text} for text in texts])


def judge_samples(judge: JudgeLM, n: int) -> System:
    """The judge as an autoregressive baseline, sampled at temperature 1."""

    def write(target: str, seed: int, tick: Tick) -> list[Record]:
        started = time.perf_counter()
        generator = torch.Generator(judge.device).manual_seed(seed)
        sizes = [JUDGE_BATCH] * (n // JUDGE_BATCH) + [n % JUDGE_BATCH] * bool(n % JUDGE_BATCH)
        ids = [sentence for size in sizes for sentence in judge.sample(size, generator)]
        texts = [judge.tokenizer.decode(sentence) for sentence in ids]
        # One pass a word and one for END; the longest sentence of a batch decides.
        return _costing(texts, time.perf_counter() - started, max(map(len, ids)) - 1)

    return System("judge", "judge", n, write)


def _costing(texts: Sequence[str], seconds: float, passes: int | None) -> list[Record]:
    return [{"text": text, "seconds": seconds / len(texts), "passes": passes} for text in texts]


class Written(NamedTuple):
    """The texts for a target, and what they cost."""

    texts: list[str]
    network_evaluations: int | None = None
    seconds: float | None = None
    """What all of them took, where that was measured when they were written."""


class Writer(ABC):
    """A method that `evaluate` holds against the model's targets and scores as it scores the model.

    Attributes:
        name: what stands in the table.
        settings: what the texts depend on beyond target and seed; results of other settings are not continued.
    """

    name: str
    settings: dict[str, str]

    def check(self, task: str) -> None:
        """A `UserError` if it cannot be asked for a task, the name of a control or names joined by "+"."""
        return

    def samples(self, wanted: int) -> int:
        """How many texts it writes for a target where `wanted` are asked for."""
        return wanted

    @abstractmethod
    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:
        """N texts of which each control's target, by its name, is `asked`; the same seed gives the same texts."""


@final
class Given(Writer):
    """Texts that were written elsewhere: a file of JSON lines with task, target and text, as texts.jsonl has them.

    A target is called as results call it (`tasks.name_of`); of free text, task is `unconditional` and target empty. Where
    lines have `seconds` and `passes` too, as texts.jsonl has, these are what the texts cost.

    Raises:
        UserError: the file cannot be read, or a line of it is no such record.
    """

    def __init__(self, path: str) -> None:
        self.name, self.path = Path(path).stem, path
        self.found: dict[tuple[str, str], list[Record]] = {}
        for record in read_records(path, self._record, '{"task": "length", "target": "12", "text": "A pub."}'):
            self.found.setdefault((record["task"], record["target"]), []).append(record)
        self.settings = {"texts": settings_hash([[*each] for each in self.found.items()])}

    @staticmethod
    def _record(record: Any, line: int) -> Record:
        if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in ("task", "target", "text")):
            raise ValueError("it has not task, target and text")
        return record

    def check(self, task: str) -> None:  # noqa: D102
        tasks = sorted({known for known, _ in self.found})
        if task not in tasks:
            raise UserError(f"{self.path} has no texts of the task {task}; it has those of {', '.join(tasks)}.")

    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:
        """The first n of the target."""
        records = self.found.get(("+".join(asked) or FREE, name_of(asked) if asked else ""), [])[:n]
        seconds = [record["seconds"] for record in records if isinstance(record.get("seconds"), int | float)]
        passes = [record["passes"] for record in records if isinstance(record.get("passes"), int)]
        texts, known = [record["text"] for record in records], len(seconds) == len(records) > 0
        return Written(texts, passes[0] if passes else None, sum(seconds) if known else None)


@final
class Model:
    """The model on a task, or a writer in its place; every control is compiled before the first text is written.

    Attributes:
        asked: the target of each control, by the name of what is asked.
        of: number of targets that there are; more than `asked` has if only some are tried.
        decoding: how texts are drawn; empty for a writer.
        system: what it is to an evaluation.
    """

    def __init__(
        self,
        lm: DiffusionLM,
        corpus: Corpus | None,
        task: Task,
        config: EvaluateConfig,
        who: str,
        writer: Writer | None,
    ) -> None:
        self.lm, self.config, self.writer, self.task, self.kinds = lm, config, writer, task.name, task.controls
        if writer is not None:
            writer.check(task.name)
        targets = task.targets(
            lm, config.targets.get(task.name), lambda: corpus.documents(config.split) if corpus else ()
        )
        self.of = len(targets)
        self.asked = {name: targets[name] for name in spread(list(targets), config.limit_targets)}
        self.controls = {name: task.asks(asked, config) for name, asked in self.asked.items()}
        self._given = config.decoding(task.name if task.name in PAPER else COMPOSITION)
        compiled_alone = (
            compiled(lm, 1, together(self.controls[name].values()), torch.Generator().manual_seed(0))
            for name in self.asked
        )
        fits = [fitted(lm, self._given, each.programs) for each in compiled_alone]
        self.decoding = "; ".join(dict.fromkeys(map(str, fits))) if writer is None else ""
        own: set[type[Asset]] = {
            PairTable,
            CausalHead,
            *(asset for kind in self.kinds.values() for asset in kind.assets(config)),
        }
        assets = {asset for asset in own if lm.has(asset)}
        settings = {asset.name: tensors_hash(lm.asset(asset).tensors()) for asset in assets}
        settings["targets"] = settings_hash(list(targets))
        samples = config.samples_per_target if self.kinds else config.n
        work = int(fits[0].steps or 1) * math.ceil(samples / config.batch_size)
        if writer is not None:
            samples, work, settings = writer.samples(samples), 1, settings | writer.settings
        self.system = System(task.name, who, samples, self.write, list(self.asked), settings, work)

    def write(self, target: str, seed: int, tick: Tick) -> list[Record]:
        """The texts for a target, with their scores and costs."""
        started = time.perf_counter()
        if self.writer is None:
            settings = {**vars(self._given), "seed": seed, "batch_size": self.config.batch_size}
            settings["candidates"] = self.config.candidates
            control = together(self.controls[target].values())
            generation = self.lm.generate(self.system.samples, control, **settings, callback=lambda step: tick())
            written = Written(generation.texts, generation.network_evaluations)
        else:
            written = self.writer.write(self.asked[target], self.system.samples, seed)
            tick()
        texts, passes, seconds = written
        wanted = self.system.samples
        if len(texts) != wanted:
            raise UserError(f"{self.system.who} wrote {len(texts)} texts for {target!r}, not the {wanted} asked for.")
        records = _costing(texts, time.perf_counter() - started if seconds is None else seconds, passes)
        return [record | scores for record, scores in zip(records, self.scores(target, texts), strict=True)]

    def scores(self, target: str, texts: Sequence[str]) -> list[Record]:
        """How far each text does what is asked: in all, by control where there are several, and as the paper counts it."""
        parts = {name: control.success(texts) for name, control in self.controls[target].items()}
        if not parts:
            return [{} for _ in texts]
        kinds, asked = self.kinds, self.asked[target]
        judged = {name: kinds[name].paper_success(asked[name], texts) for name in parts}
        success = torch.stack(list(parts.values())).prod(0)
        return [
            {
                "success": float(success[i]),
                "parts": {name: float(values[i]) for name, values in parts.items()} if len(parts) > 1 else {},
                "paper_success": {name: float(values[i]) for name, values in judged.items() if values is not None},
            }
            for i in range(len(texts))
        ]

    def originals(self) -> dict[str, tuple[str, ...]]:
        """The words of the human sentence that each target was taken from, where they are known."""
        words = {name: max((t.words for t in each.values()), key=len, default=()) for name, each in self.asked.items()}
        return {name: each for name, each in words.items() if each}

    def success_of_originals(self) -> float | None:
        """Mean success of those sentences; None where they are not known."""
        found = [self.scores(name, [" ".join(words)])[0]["success"] for name, words in self.originals().items()]
        return sum(found) / len(found) if found else None

    def answered(self) -> dict[str, tuple[type[Control], Target]]:
        """By the name of what is asked: the control and the target to which texts are answers, gaps and prompts."""
        return {
            name: (self.kinds[part], target)
            for name, asked in self.asked.items()
            for part, target in asked.items()
            if self.kinds[part].prompts_are_texts
        }

    def has_references(self) -> bool:
        """Whether people wrote something for some target too."""
        return any(target.references for _, target in self.answered().values())


def target_seed(seed: int, task: str, target: str) -> int:
    """The seed of a target, which does not depend on the targets beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{task}\n{target}".encode()).digest()[:4], "big")


def spread(targets: Sequence[T], limit: int | None) -> list[T]:
    """`limit` of the targets at even distances, since targets of a kind stand together."""
    if limit is None or limit >= len(targets):
        return list(targets)
    return [targets[i * len(targets) // limit] for i in range(limit)]


def reservoir(texts: Iterable[str], n: int, seed: int) -> list[str]:
    """A random sample of `n` texts of a stream, or all if there are fewer (Vitter 1985, algorithm R)."""
    rng = random.Random(seed)
    kept: list[str] = []
    for i, text in enumerate(texts):
        if i < n:
            kept.append(text)
        elif (j := rng.randrange(i + 1)) < n:
            kept[j] = text
    return kept
