from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.text.batches import gather, token_batches

LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=60).map(torch.tensor)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(LENGTHS, st.integers(1, 200), st.booleans())
def test_every_sentence_once_and_no_batch_above_the_budget(lengths, budget, shuffled):
    batches = token_batches(lengths, budget, seeded() if shuffled else None)
    assert torch.cat(batches).sort().values.tolist() == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * int(lengths[batch].max()) <= budget or len(batch) == 1


@given(LENGTHS, st.integers(40, 200))
def test_batches_are_as_large_as_the_budget_lets_them(lengths, budget):
    batches = token_batches(lengths, budget, None)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * int(lengths[following[0]]) > budget


def test_sentences_of_a_batch_are_of_like_length():
    lengths = torch.randint(5, 60, (5000,), generator=seeded())
    batches = token_batches(lengths, 3072, seeded())
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.03 * int(lengths.sum())


def test_shuffles_differ_by_seed_and_not_otherwise():
    lengths = torch.randint(5, 20, (100,), generator=seeded())

    def order(generator):
        return torch.cat(token_batches(lengths, 64, generator)).tolist()

    assert order(seeded(1)) == order(seeded(1)) != order(seeded(2))
    assert order(None) == torch.sort(lengths, stable=True).indices.tolist()


def test_equal_lengths_meet_other_sentences_every_epoch():
    lengths = torch.full((100,), 10)
    first, second = (token_batches(lengths, 100, seeded(seed)) for seed in (1, 2))
    assert {frozenset(batch.tolist()) for batch in first} != {frozenset(batch.tolist()) for batch in second}


@pytest.fixture
def corpus():
    """Three sentences of three to five tokens."""
    ids = torch.tensor([0, 10, 1, 0, 20, 21, 22, 1, 0, 30, 31, 1], dtype=torch.int32)
    return SimpleNamespace(ids=ids, offsets=torch.tensor([0, 3, 8, 12]))


def test_exact_sentences_are_padded_to_the_longest_and_masked(corpus):
    ids, mask = gather(corpus, torch.tensor([2, 0]), pad_id=3)
    assert ids.tolist() == [[0, 30, 31, 1], [0, 10, 1, 3]]
    assert mask.tolist() == [[True] * 4, [True, True, True, False]]
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool


def test_on_a_canvas_padding_is_a_word(corpus):
    ids, mask = gather(corpus, torch.tensor([0, 1]), pad_id=3, canvas=6)
    assert ids.tolist() == [[0, 10, 1, 3, 3, 3], [0, 20, 21, 22, 1, 3]]
    assert mask.all() and mask.shape == (2, 6)


def test_the_last_sentence_can_be_gathered(corpus):
    ids, _ = gather(corpus, torch.tensor([2]), pad_id=3)
    assert ids.tolist() == [[0, 30, 31, 1]]
