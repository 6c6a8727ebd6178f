from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from diffusion_lm.evaluation.metrics import likelihood
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import encode_corpus


def test_the_whole_is_the_words_given_their_number_and_their_number(parts: Path, tmp_path: Path) -> None:
    lm = DiffusionLM.from_pretrained(parts / "lm", "cpu")
    lm.lengths.copy_(torch.arange(1, 18))
    corpus = encode_corpus(open_corpus(CorpusConfig(str(parts / "corpus"))), "dev", lm.tokenizer, 16, tmp_path)
    found = likelihood(lm, corpus, n=4)
    assert found.n == 4 and found == likelihood(lm, corpus, n=4)
    lengths = corpus.lengths.tolist()
    total = float(lm.lengths.sum())
    nats = sum(-math.log(float(lm.lengths[length]) / total) for length in lengths)
    assert found.length_nats_per_token == pytest.approx(nats / sum(length - 1 for length in lengths))
    # A model that knows nothing is not better than guessing among its words.
    guess = math.log(lm.tokenizer.vocab_size)
    assert found.nats_per_token - found.length_nats_per_token > 0.9 * guess
