"""The tokenizer and the encoded splits of a run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from diffusion_lm.errors import UserError
from diffusion_lm.text.batches import token_batches
from diffusion_lm.text.corpus import Corpus, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.tokenizer import Tokenizer, build_bpe_tokenizer, build_word_tokenizer
from diffusion_lm.training.config import RunConfig, TokenizerConfig, TrainConfig

logger = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when a tokenizer of the same settings comes out differently


@dataclass(frozen=True)
class Data:
    """A corpus made ready.

    Attributes:
        corpus: where the texts are read.
        tokenizer: built on the training split.
        train: encoded training sentences.
        dev: encoded dev sentences.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    train: EncodedCorpus
    dev: EncodedCorpus


def build_tokenizer(corpus: Corpus, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a corpus's training split."""
    texts = (document.text for document in corpus.documents("train"))
    if config.kind == "word":
        return build_word_tokenizer(texts, config.min_count)
    return build_bpe_tokenizer(texts, config.vocab_size)


def _cached_tokenizer(corpus: Corpus, config: TokenizerConfig, cache: Path) -> Tokenizer:
    """The tokenizer from the cache, if it was built there from the same text with the same settings."""
    key = json.dumps([_FORMAT, corpus.fingerprint("train"), asdict(config)])
    folder = cache / f"tokenizer-{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"
    if folder.exists():
        try:
            return Tokenizer.load(folder)
        except UserError as error:
            logger.warning("The cache is damaged and is built again: %s", error)
    tokenizer = build_tokenizer(corpus, config)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def prepare(config: TrainConfig, folder: Path) -> Data:
    """Open the corpus, build the tokenizer and encode both splits, or take them from `folder`/cache.

    Raises:
        UserError: if the corpus cannot be read or a split is empty.
    """
    corpus = open_corpus(config.corpus)
    cache = folder / "cache"
    tokenizer = _cached_tokenizer(corpus, config.tokenizer, cache)
    train, dev = (
        encode_corpus(corpus, split, tokenizer, config.model.max_length, cache) for split in ("train", "dev")
    )
    return Data(corpus, tokenizer, train, dev)


def epoch_batches(
    lengths: torch.Tensor, config: RunConfig, canvas: int | None, epoch: int
) -> list[torch.Tensor]:
    """The batches of an epoch, the same for the same seed and epoch: sentence numbers, one tensor a step."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    if config.batch_sentences is not None:
        order = torch.randperm(len(lengths), generator=generator)
        return list(order.split(config.batch_sentences))
    return token_batches(
        torch.full_like(lengths, canvas) if canvas else lengths, config.batch_tokens, generator
    )


def batches_from(
    lengths: torch.Tensor, config: RunConfig, canvas: int | None, step: int
) -> Iterator[torch.Tensor]:
    """The batches of steps `step`, `step` + 1, ... without end, the same wherever a run is taken up."""
    epoch = 0
    while True:
        batches = epoch_batches(lengths, config, canvas, epoch)
        yield from batches[step:]
        step = max(0, step - len(batches))
        epoch += 1
