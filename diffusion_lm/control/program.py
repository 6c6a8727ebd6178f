"""What is steered, what a control may read of it, and what a control compiles to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from diffusion_lm.common import Settings
from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.model.denoiser import Denoiser
from diffusion_lm.store import Kind, load, save
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import Tokenizer

A = TypeVar("A", bound="Asset")


class Host(Protocol):
    """What a control may know of the model that it steers."""

    denoiser: Denoiser
    tokenizer: Tokenizer

    @property
    def padded(self) -> bool:
        """Whether every sentence fills the canvas, PAD being a word."""

    @property
    def max_words(self) -> int:
        """Most words between START and END."""

    @property
    def fields(self) -> Sequence[str]:
        """Names of the fields that its sources are made of; none where they are texts, or there are none."""

    @property
    def fingerprint(self) -> str:
        """What an asset carries that was made for this model."""

    def has(self, kind: type[Asset]) -> bool:
        """Whether the model has such an asset."""

    def asset(self, kind: type[A]) -> A:
        """The asset that was saved with the model, on its device; a `UserError` if there is none, or it is another model's."""


@dataclass(frozen=True)
class AssetConfig(Settings):
    """Of which model something is learned, in which texts, and where it goes."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Texts to learn from; the corpus that the model was trained on."""
    out: str | None = None
    """Where it goes; default the control's folder in the model's folder."""


class Asset(ABC):
    """What a control has learned of one language model: counts, or a classifier; kept in `controls/<name>`.

    A subclass is registered under its name; `train-control NAME` makes it, by `make` with the flags of `Config`.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """What `train-control NAME` does, for the help."""
    kind: ClassVar[Kind]
    Config: ClassVar[type[AssetConfig]]
    config: Any
    """What config.json holds, a dataclass; its `lm` is the fingerprint of the language model."""

    def __init_subclass__(cls, name: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name is not None:
            cls.name = name
            ASSETS[name] = cls

    @classmethod
    @abstractmethod
    def make(cls, config: Any, host: Host, progress: Callable[[int, int], None] | None = None) -> Self:
        """Make it for a model, with a `Config`; `progress` is called with (done, all)."""

    @abstractmethod
    def summary(self) -> str:
        """What it came to, for people."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that its answers depend on, by name."""

    @classmethod
    @abstractmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Self:
        """Put it together again from its config, its tensors and whatever else it wrote into its folder."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, whole or not at all; in bf16, weights take half the place."""
        save(folder, self.kind, asdict(self.config), {name: t.to(dtype=dtype) for name, t in self.tensors().items()})

    @classmethod
    def from_pretrained(cls, folder: str | Path, lm: str) -> Self:
        """Load what `save_pretrained` wrote for the model of a fingerprint; a `UserError` if it is not there, whole and its."""
        return load(folder, cls.kind, lambda config, tensors: cls.build(config, tensors, Path(folder)), lm)


ASSETS: dict[str, type[Asset]] = {}


@dataclass(frozen=True)
class Latents:
    """All that an energy may read of the sampler's state."""

    z: Tensor
    """Latents z_t, [B, L, D]."""
    t: Tensor
    """Time, [B]."""
    mask: Tensor
    """True at positions that exist, [B, L]."""
    x0_hat: Tensor
    """The denoiser's prediction from z_t, [B, L, D]."""
    logits: Tensor
    """Of p(w | z_t), [B, L, V]."""
    vectors: Tensor
    """Emb(w) of every word, [V, D]."""
    _whole: tuple[Latents, Tensor] | None = field(default=None, repr=False)
    _read: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)

    def rows(self, index: Tensor) -> Latents:
        """Those of some sentences of the batch."""
        z, t, mask, x0_hat, logits = (p[index] for p in (self.z, self.t, self.mask, self.x0_hat, self.logits))
        return Latents(z, t, mask, x0_hat, logits, self.vectors, _whole=(self, index))

    def read(self, model: Callable[[Tensor, Tensor, Tensor], list[Tensor]]) -> list[Tensor]:
        """What a classifier says of (z, t, mask); it runs once however many controls and sentences ask."""
        if self._whole is not None:
            whole, index = self._whole
            return [part[index] for part in whole.read(model)]
        if id(model) not in self._read:
            self._read[id(model)] = model(self.z, self.t, self.mask)
        return self._read[id(model)]


@dataclass(frozen=True, eq=False)
class Energy:
    """-log p(c | z_t) a term in nats, whose gradient is followed."""

    of: Callable[[Latents], Tensor]
    """Latents to [B], the mean over the terms."""
    reads_prediction: bool = False
    """Whether it reads x0_hat or logits, so that its gradient goes through the denoiser."""
    terms: int = 1
    """Words or spans that c speaks of: -log p(c | z_t) itself is so many times as much."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """p(c | z_t) to some power, c being what the columns are the likelihood of; sentences are resampled by it."""

    power: float
    columns: Tensor
    """[words, V]."""


Reward = Callable[[Sequence[str]], Tensor]
"""Texts to what they are worth in nats, [B]; sentences are resampled by it."""


@dataclass(frozen=True, eq=False)
class Promise:
    """Some things that a text has to do."""

    broken: Callable[[str], Sequence[str]]
    """Those that a text does not do, by name."""
    way: Callable[[str, torch.Generator], Automaton | None]
    """Texts that do what is named, in one of several ways, which chance takes; some break it yet, as "not cheap" says cheap.
    None where no automaton says it, and another try has to do."""


@dataclass(frozen=True, eq=False)
class Program:
    """What a control wants of one sentence."""

    canvas: Canvas
    """Hard facts: the number of words, words already known."""
    columns: tuple[Tensor, ...] = ()
    """Log p(c | w) of each word w, added to log p(w | z_t): [words, V] for the first words, [V] for every word."""
    evidence: tuple[Evidence, ...] = ()
    """By which sentences of which the same is asked are resampled while they are open."""
    automaton: Automaton | None = None
    """The sentence is one that it accepts; it conditions what the columns have made."""
    energies: tuple[Energy, ...] = ()
    """Followed by their gradient."""
    rewards: tuple[Reward, ...] = ()
    """Followed by resampling."""
    promises: tuple[Promise, ...] = ()
    """Kept by most sentences without help; one that breaks some of them is written anew, held to those."""

    def is_a_probability(self, before: Canvas) -> bool:
        """Whether it has energies, and nothing else holds the sentence, the canvas being as it was before."""
        others = self.columns or self.evidence or self.automaton or self.rewards or self.promises
        return bool(self.energies) and self.canvas == before and not others
