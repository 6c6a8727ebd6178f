"""What a baseline is: a language model, what is trained of it or beside it, and how it writes; and the registry of baselines."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from diffusion_lm.annotate.labels import Annotation, labelled_documents
from diffusion_lm.common import UserError, autocast, device_named, number
from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.fit import Progress
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, NextWord, sample
from diffusion_lm.store import CONFIG, Kind, load, read_json, save
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.fields import Document
from diffusion_lm.text.tokenizer import Tokenizer
from diffusion_lm.training.judge import CausalTrainConfig


@dataclass(frozen=True)
class BaselineTrainConfig(CausalTrainConfig):
    """How a baseline is made of a small autoregressive language model."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    judge: str = "runs/judge"
    """Folder of the language model to start from, as train-judge writes it."""
    epochs: float = number(4.0, above=0)
    lr: float = number(6e-4, above=0)
    warmup: int = number(100, least=0)
    weight_decay: float = number(0.01, least=0)
    out: str | None = None
    """Folder of the result, which holds the language model too; null: runs/ and the baseline's name, with ft its task."""


@dataclass(frozen=True)
class LabelledTrainConfig(BaselineTrainConfig):
    """How a baseline is made that reads the tags and trees of the corpus."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it; it is made if it does not hold those of this corpus."""


Sentences = Iterator[tuple[Document, Annotation, list[int]]]
"""Sentences of the training split that a language model can read: with their labels, and as START words END."""


def sentences(config: LabelledTrainConfig, judge: JudgeLM) -> Sentences:
    """Those of a corpus with the labels of its file."""
    return _readable(judge, labelled_documents(config.corpus, config.labels))


def unlabelled(config: BaselineTrainConfig, judge: JudgeLM) -> Sentences:
    """Those of a corpus with labels that are empty, which takes no tagger and no parser."""
    none = Annotation([], [], "")
    return _readable(judge, ((document, none) for document in open_corpus(config.corpus).documents("train")))


def _readable(judge: JudgeLM, documents: Iterable[tuple[Document, Annotation]]) -> Sentences:
    for document, labels in documents:
        ids = judge.tokenizer.encode_sentence(document.text)
        if len(ids) <= judge.config.max_length:
            yield document, labels, ids


class BaselineLM(nn.Module):
    """A language model, and what a baseline trains of it or beside it."""

    kind: ClassVar[Kind]
    Config: ClassVar[type]
    """Dataclass of what it is built from; its `lm` is the language model's shape."""

    def __init__(self, config: Any, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.lm = JudgeLM(config.lm, tokenizer)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all of it, the language model too, into `folder`, made if need be."""
        save(folder, self.kind, dataclasses.asdict(self.config), self.state_dict(), extra=self.lm.tokenizer.save)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """What `save_pretrained` wrote, for evaluation; a `UserError` if the folder is missing, damaged or something else."""

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
            model = cls(cls.Config(**config | {"lm": JudgeConfig(**config["lm"])}), Tokenizer.load(folder))
            model.load_state_dict(tensors)
            return model.eval().requires_grad_(False)

        return load(folder, cls.kind, build)


class Lesson(NamedTuple):
    """What is trained on what."""

    model: BaselineLM
    lengths: Sequence[int]
    """Positions of each sentence."""
    loss: Callable[[list[int]], Tensor]
    """From the numbers of a batch's sentences to its loss, []."""


class Baseline(Writer):
    """An autoregressive method. A subclass with a name is registered: `train-baseline NAME` then trains its `Model`."""

    command: ClassVar[str]
    """The name that it is registered under."""
    about: ClassVar[str]
    """What `train-baseline NAME` does, for the help."""
    Config: ClassVar[type[BaselineTrainConfig]]
    Model: ClassVar[type[BaselineLM]]
    passes: int
    """Network evaluations a word."""

    def __init_subclass__(cls, name: str) -> None:
        """Register the baseline."""
        cls.command = name
        BASELINES[name] = cls

    def __init__(self, model: BaselineLM) -> None:
        self.lm = model.lm
        self.settings = {"baseline": weights_hash(model)}

    @classmethod
    @abstractmethod
    def lesson(cls, config: Any, judge: JudgeLM) -> Lesson:
        """What is to be trained; a `UserError` if the corpus, its labels or the judge cannot be used."""

    @abstractmethod
    def next_word(self, asked: Mapping[str, Target]) -> NextWord:
        """The distribution of the next word that follows what is asked; a `UserError` if no such text could be written."""

    @classmethod
    def folder(cls, config: Any) -> str:
        """Where the result of a training goes."""
        return config.out or f"runs/{cls.command}"

    @classmethod
    def train(cls, config: Any, report: Callable[[Progress], None] | None = None) -> str:
        """Train it, save the result and return its folder; `report` is called after every epoch.

        Raises:
            UserError: the judge, the corpus, its labels or the folder cannot be used.
        """
        if Path(folder := cls.folder(config)).is_file():
            raise UserError(f"{folder} is a file; give --out a folder.")
        torch.manual_seed(config.seed)
        device = device_named(config.device)
        model, lengths, loss = cls.lesson(config, JudgeLM.from_pretrained(config.judge))
        model.to(device)

        def loss_of(rows: Tensor) -> Tensor:
            with autocast(device):
                return loss(rows.tolist())

        config.fit(model, torch.tensor(lengths), loss_of, report)
        model.save_pretrained(folder)
        return folder

    @classmethod
    def open(cls, folders: Sequence[str | Path], beams: int | None = None) -> Self:
        """What `train` wrote; a `UserError` if it is damaged, or it knows neither products nor beams and these are wanted."""
        if len(folders) > 1 or beams is not None:
            raise UserError("Only fine-tuned models make a product or search by beams; give one folder and no beams.")
        return cls(cls.Model.from_pretrained(folders[0]))

    def decode(self, next_word: NextWord, n: int, seed: int) -> list[list[int]]:
        """N sentences, each START words END."""
        return sample(next_word, self.lm.ends, n, torch.Generator().manual_seed(seed))

    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:  # noqa: D102
        found = self.decode(self.next_word(asked), n, seed)
        texts = [self.lm.tokenizer.decode(ids) for ids in found]
        for name, target in asked.items():
            texts = [CONTROLS[name].completed(target, text) for text in texts]
        return Written(texts, self.passes * (max(map(len, found)) - 1))


BASELINES: dict[str, type[Baseline]] = {}


def open_baseline(folders: Sequence[str | Path], beams: int | None = None) -> Baseline:
    """The writer of a baseline's folder, or the product of several fine-tuned models; with `beams` these search, else sample.

    Raises:
        UserError: a folder holds no baseline, or they do not go together.
    """
    known, kinds = {kind.Model.kind.name: kind for kind in BASELINES.values()}, set[type[Baseline]]()
    for folder in folders:
        try:
            kinds.add(known[read_json(Path(folder, CONFIG))["kind"]])
        except (UserError, LookupError, TypeError):
            raise UserError(f"{folder} holds no baseline; make one with diffusion-lm train-baseline.") from None
    if len(kinds) != 1:
        raise UserError("A baseline is one folder, or those of several fine-tuned models; give one.")
    return kinds.pop().open(folders, beams)
