"""What a run that trains a language model is: its settings, its data, its batches."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import yaml

from diffusion_lm.common import Settings, UserError, multiplies_bf16, number
from diffusion_lm.fit import OptimizerConfig
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.store import write_whole
from diffusion_lm.text.batches import token_batches
from diffusion_lm.text.corpus import Corpus, CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.fields import parts_of
from diffusion_lm.text.tokenizer import Tokenizer, WordTokenizer, build_bpe_tokenizer, build_word_tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


logger = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when a tokenizer of the same settings comes out differently


@dataclass(frozen=True)
class TokenizerConfig(Settings):
    """How text becomes tokens."""

    kind: Literal["word", "bpe"] = "word"
    """word: reversible words and marks; bpe: byte-level pieces, for any corpus."""
    min_count: int = number(11, least=1)
    """word: a word is kept if the training split has it at least so often (paper: more than 10)."""
    vocab_size: int = number(8192, least=260, most=1_000_000)
    """bpe: number of tokens, the 256 bytes and START, END, UNK and PAD counted."""


@dataclass(frozen=True)
class RunConfig(Settings):
    """How long, how large, where to."""

    out: str = "runs/lm"
    """Folder of the run: the model, metrics.jsonl, TensorBoard events and checkpoints for resuming."""
    init: str | None = None
    """Model to go on from, a bundled one, a folder or a hub id: its shape is kept, of --model only given, max_source,
    source_dropout and dropout can be set anew, and so are its words, to which those that the corpus needs are added; null:
    weights of chance."""
    init_share: float = number(0.0, least=0, below=1)
    """Share that the weights of --run.init have in the model that is written, beside what was trained: what that model could do
    elsewhere is kept, and most of what was learned (Wortsman et al. 2022); `distill` takes 0.5."""
    teacher: str | None = None
    """Model whose two passes one pass of this one learns to match, in place of text: `distill` sets it (docs/speed.md)."""
    freeze_embeddings: bool = False
    """Leave the words of --run.init and their vectors as they are: what its controls have learned of them (train-control) then
    fits the new model too, and goes with it. Other words of the corpus are unknown to it."""
    steps: int = number(1000, least=1)
    """Optimiser steps; with more of them, a run that has ended goes on."""
    batch_tokens: int = number(3072, least=1, most=100_000_000)
    """Positions a step, padding included and sources not, over all processes; batches hold sentences of like length."""
    batch_sentences: int | None = number(None, least=1, most=10_000_000)
    """Sentences a step instead of a token budget (the paper's 64)."""
    accumulate: int = number(1, least=1, most=100_000)
    """Parts into which each step's batch is split to save memory."""
    time_sampling: Literal["uniform", "importance"] = "uniform"
    """How t is drawn (paper: uniform for L_simple, importance for L_vlb)."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """auto: bf16 autocast where the hardware multiplies in bf16."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: an accelerator where there is one."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    checkpoint_minutes: float = number(5.0, least=0)
    """Minutes between checkpoints."""
    validate_every: int = number(1000, least=1)
    """Steps between validations on the dev split."""
    sample_every: int = number(2000, least=1)
    """Steps between printed samples, always from the same seed."""
    log_every: int = number(50, least=1)
    """Steps between lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range and a run without a folder."""
        super().__post_init__()
        if not self.out:
            raise UserError("run.out must name a folder.")
        if self.freeze_embeddings and self.init is None:
            raise UserError("run.freeze_embeddings keeps the word vectors of a model; name it by --run.init.")
        if self.precision is False:  # YAML's reading of a bare `no`
            object.__setattr__(self, "precision", "no")

    @property
    def on_cpu(self) -> bool:
        """Whether it is on the CPU: because that is asked for, or there is nothing else."""
        return self.device == "cpu" or not torch.accelerator.is_available()

    @property
    def mixed_precision(self) -> str:
        """'bf16' where asked for, or where `auto` finds that the hardware multiplies in bf16; else 'no'."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if multiplies_bf16(torch.device("cpu" if self.on_cpu else "cuda")) else "no"


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    FIRST = (
        "config", "corpus.source", "run.out", "run.steps", "run.init", "model.size", "model.max_length", "model.given",
        "optimizer.lr", "tokenizer.min_count",
    )  # fmt: skip

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What to train."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How to train it."""
    run: RunConfig = field(default_factory=RunConfig)
    """How long, how large, where to."""

    def __post_init__(self) -> None:
        """Refuse a share of no model."""
        if self.run.init_share and self.run.init is None:
            raise UserError("run.init_share is the share of a model's weights; name it by --run.init.")


RUN_FILE = "run.yaml"


def save_settings(folder: Path, config: DataclassInstance) -> None:
    """Write `run.yaml`; as a configuration file of the same command it starts the same run."""
    write_whole(folder / RUN_FILE, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


class Data(NamedTuple):
    """A corpus made ready: its tokenizer, built on the training split, and its encoded sentences."""

    tokenizer: Tokenizer
    train: EncodedCorpus
    dev: EncodedCorpus


def build_tokenizer(
    corpus: Corpus, config: TokenizerConfig, *, sources: bool = False, known: Tokenizer | None = None
) -> Tokenizer:
    """The tokenizer of a corpus's training split, of its sources too if they are to be read.

    A `known` one is kept, and has words added that the corpus needs; one of byte pairs needs none.
    """
    documents = corpus.documents("train")
    texts = (text for document in documents for text in (document.text, *(parts_of(document) if sources else ())))
    if isinstance(known, WordTokenizer):
        return build_word_tokenizer(texts, config.min_count, known)
    if known is not None:
        return known
    if config.kind == "word":
        return build_word_tokenizer(texts, config.min_count)
    return build_bpe_tokenizer(texts, config.vocab_size)


def _cached_tokenizer(
    corpus: Corpus, config: TokenizerConfig, cache: Path, *, sources: bool, known: Tokenizer | None
) -> Tokenizer:
    """The tokenizer from the cache, if it was built there from the same text with the same settings."""
    more = ["sources"] * sources + ([] if known is None else [known.fingerprint])
    key = json.dumps([_FORMAT, corpus.fingerprint("train"), asdict(config), *more])
    folder = cache / f"tokenizer-{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"
    if folder.exists():
        try:
            return Tokenizer.load(folder)
        except UserError as error:
            logger.warning("The cache is damaged and is built again: %s", error)
    tokenizer = build_tokenizer(corpus, config, sources=sources, known=known)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def prepare(config: TrainConfig, folder: Path, known: Tokenizer | None = None) -> Data:
    """Open the corpus, build the tokenizer, on a `known` one, and encode both splits, or take all from `folder`/cache.

    Where the vectors of the known words are not to be learned, none are added.

    Raises:
        UserError: the corpus cannot be read, a split is empty, or it has no sources and the model wants some.
    """
    corpus, cache, model = open_corpus(config.corpus), folder / "cache", config.model.filled()
    longest = model.max_source or 0
    if known is not None and config.run.freeze_embeddings:
        tokenizer = known  # a new word would have a vector of chance for good
    else:
        tokenizer = _cached_tokenizer(corpus, config.tokenizer, cache, sources=longest > 0, known=known)
    train, dev = (
        encode_corpus(corpus, split, tokenizer, model.max_length, cache, longest) for split in ("train", "dev")
    )
    return Data(tokenizer, train, dev)


ANEW = ("given", "max_source", "source_dropout", "dropout")
"""What of a model's shape may be set anew when a training goes on from it."""


def of_init(config: ModelConfig, known: ModelConfig, name: str) -> ModelConfig:
    """The shape of the model `name`, `known`, with what `config` sets anew; a `UserError` if it sets anything else."""
    default = asdict(ModelConfig())
    for key, value in asdict(config).items():
        if key not in ANEW and value not in (default[key], getattr(known, key)):
            stays = f"{name} has {key} {getattr(known, key)}, which stays as it is"
            raise UserError(f"{stays}; leave --model.{key} {value} out.")
    return replace(known, **{key: getattr(config, key) for key in ANEW}).filled(known)


def epoch_batches(lengths: torch.Tensor, config: RunConfig, canvas: int | None, epoch: int) -> list[torch.Tensor]:
    """The batches of an epoch, the same for the same seed and epoch: sentence numbers, one tensor a step."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    if config.batch_sentences is not None:
        return list(torch.randperm(len(lengths), generator=generator).split(config.batch_sentences))
    return token_batches(torch.full_like(lengths, canvas) if canvas else lengths, config.batch_tokens, generator)


def batches_from(lengths: torch.Tensor, config: RunConfig, canvas: int | None, step: int) -> Iterator[torch.Tensor]:
    """The batches of steps `step`, `step` + 1, ... without end, the same wherever a run is taken up."""
    for epoch in count():
        batches = epoch_batches(lengths, config, canvas, epoch)
        yield from batches[step:]
        step = max(0, step - len(batches))
