"""What writes the texts that an evaluation compares: people, the judge itself, the model on a task."""

from __future__ import annotations

import hashlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch

from diffusion_lm.control.canvas import Canvas
from diffusion_lm.evaluation.tasks import PAPER_JUDGES, EvaluateConfig, Task
from diffusion_lm.generation.settings import clamp_of, guidance_of, sampler_of

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM
    from diffusion_lm.model.causal import JudgeLM
    from diffusion_lm.text.corpus import Corpus


class Written(NamedTuple):
    """The texts for a target, and what they cost."""

    texts: list[str]
    network_evaluations: int | None = None


class Writer(ABC):
    """A method that `evaluate` holds against the model's targets and scores as it scores the model.

    Attributes:
        name: what stands in the table.
        settings: what the texts depend on beyond target and seed; results of other settings are not continued.
    """

    name: str
    settings: dict[str, str]

    def check(self, task: str) -> None:
        """See that it can be asked for a task.

        Raises:
            UserError: if it cannot.
        """
        return

    def samples(self, wanted: int) -> int:
        """How many texts it writes for a target where `wanted` are asked for."""
        return wanted

    @abstractmethod
    def write(self, target: Any, n: int, seed: int) -> Written:
        """N texts for a target of `evaluation.tasks`; the same seed gives the same texts."""


JUDGE_BATCH = 256


@dataclass(frozen=True)
class Texts:
    """What a system wrote for one target, and what it cost."""

    texts: list[str]
    success: list[float] | None = None
    parts: dict[str, list[float]] = field(default_factory=dict)
    """Success of each of several controls, by the name of its task."""
    paper: dict[str, list[float]] = field(default_factory=dict)
    """Paper-compatible success of each control, by the name of its task."""
    seconds: float | None = None
    network_evaluations: int | None = None


class System(ABC):
    """A source of texts.

    Attributes:
        name: the task in the results.
        label: the row in the table.
        targets: names of the targets, [""] where nothing is asked for.
        of: number of targets that there are; more than `targets` has if only some are tried.
        samples: texts for each target.
        settings: what the texts depend on beyond the evaluation's own settings.
        work: how many calls of `tick` a target takes.
    """

    name: str
    label: str
    targets: Sequence[str] = ("",)
    of: int = 1
    samples: int
    work: int = 1

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}

    @abstractmethod
    def write(self, target: str, seed: int, tick: Callable[[], None]) -> Texts:
        """The texts for a target; the same seed gives the same texts."""


@final
class Human(System):
    """A seeded subsample of the dev split, as people wrote it.

    Sentences that are longer than the judge can read are left out and counted in `left_out`.
    """

    name = "human"
    label = "human (dev), as written"

    def __init__(self, corpus: Corpus, judge: JudgeLM, n: int, seed: int) -> None:
        super().__init__()
        drawn = reservoir((document.text for document in corpus.documents("dev")), n, seed)
        limit = judge.config.max_length
        self.texts = [text for text in drawn if len(judge.tokenizer.encode_sentence(text)) <= limit]
        self.left_out = len(drawn) - len(self.texts)
        self.samples = len(self.texts)

    def write(self, target: str, seed: int, tick: Callable[[], None]) -> Texts:  # noqa: D102
        return Texts(self.texts)


@final
class JudgeSamples(System):
    """The judge as an autoregressive baseline, sampled at temperature 1."""

    name = "judge"
    label = "judge's own samples"

    def __init__(self, judge: JudgeLM, n: int) -> None:
        super().__init__()
        self.judge, self.samples = judge, n

    def write(self, target: str, seed: int, tick: Callable[[], None]) -> Texts:  # noqa: D102
        started = time.perf_counter()
        generator = torch.Generator(self.judge.embedding.weight.device).manual_seed(seed)
        ids: list[list[int]] = []
        while len(ids) < self.samples:
            ids += self.judge.sample(min(JUDGE_BATCH, self.samples - len(ids)), generator)
        texts = [self.judge.tokenizer.decode(sentence) for sentence in ids]
        # One pass a word and one for END; the longest sentence of a batch decides.
        evaluations = max(len(sentence) for sentence in ids) - 1
        return Texts(texts, seconds=time.perf_counter() - started, network_evaluations=evaluations)


@final
class Model(System):
    """The model on a task, or a writer in its place; every control is checked before the first text is written."""

    def __init__(self, lm: DiffusionLM, task: Task[Any], config: EvaluateConfig, writer: Writer | None = None) -> None:
        super().__init__()
        self.writer = writer
        if writer is not None:
            writer.check(task.name)
        targets = task.targets()
        chosen = spread(targets, config.limit_targets)
        self.lm, self.task, self.config = lm, task, config
        self.name, self.samples, self.of = task.name, task.samples, len(targets)
        self.controls = {str(target): task.control(target) for target in chosen}
        self.targets = list(self.controls)
        self.settings = task.settings() if writer is None else {**task.settings(), **writer.settings}
        self.asked = {str(target): target for target in chosen}
        if writer is not None:
            self.samples = writer.samples(self.samples)
        free = all(control is None for control in self.controls.values())
        self.guidance = None if free else guidance_of(config, task.guided_as)
        self.words = {str(target): words for target in chosen if (words := task.words(target))}
        self.work = config.steps * -(-task.samples // config.batch_size)
        self.bound = {name: control and control.bind(lm) for name, control in self.controls.items()}
        for control in self.bound.values():
            if control is not None:
                control.canvas(Canvas(lm.max_words))

    @property
    def label(self) -> str:  # type: ignore[override]
        """The task, and how many of its targets were tried."""
        if self.of == 1:
            return self.name
        some = "" if len(self.targets) == self.of else f"only {len(self.targets)} of "
        who = "" if self.writer is None else f"{self.writer.name}: "
        return f"{who}{self.name} ({some}{self.of} targets x {self.samples})"

    def success_of_originals(self) -> float | None:
        """Mean success of the human sentences that the targets were taken from; None where they are not known."""
        scores = [
            float(control.success([" ".join(words)])[0])
            for target, words in self.words.items()
            if (control := self.bound[target]) is not None
        ]
        return sum(scores) / len(scores) if scores else None

    def write(self, target: str, seed: int, tick: Callable[[], None]) -> Texts:  # noqa: D102
        if self.writer is None:
            return self._scored(target, *self._generated(target, seed, tick))
        started = time.perf_counter()
        texts, evaluations = self.writer.write(self.asked[target], self.samples, seed)
        for _ in range(self.work):
            tick()
        return self._scored(target, texts, time.perf_counter() - started, evaluations)

    def _generated(self, target: str, seed: int, tick: Callable[[], None]) -> tuple[list[str], float, int | None]:
        generation = self.lm.generate(
            self.samples,
            self.controls[target],
            steps=self.config.steps,
            sampler=sampler_of(self.config),
            clamp=clamp_of(self.config),
            guidance=self.guidance,
            seed=seed,
            batch_size=self.config.batch_size,
            callback=lambda step: tick(),
        )
        return generation.texts, generation.seconds, generation.network_evaluations

    def _scored(self, target: str, texts: list[str], seconds: float, evaluations: int | None) -> Texts:
        control = self.bound[target]
        if control is None:
            return Texts(texts, seconds=seconds, network_evaluations=evaluations)
        wanted = self.task.parts(self.asked[target])
        parts = {}
        if len(wanted) > 1:
            controls = zip(wanted, control.parts(), strict=True)
            parts = {name: part.success(texts).tolist() for name, part in controls}
        paper = {name: PAPER_JUDGES[name](part, texts) for name, part in wanted.items() if name in PAPER_JUDGES}
        return Texts(texts, control.success(texts).tolist(), parts, paper, seconds, evaluations)


def target_seed(seed: int, task: str, target: str) -> int:
    """The seed of a target, which does not depend on the targets beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{task}\n{target}".encode()).digest()[:4], "big")


def spread(targets: Sequence[Any], limit: int | None) -> list[Any]:
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
