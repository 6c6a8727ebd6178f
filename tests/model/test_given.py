from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.losses import CrossEntropy, Simple, VariationalBound
from diffusion_lm.diffusion.process import UNKNOWN, Given
from diffusion_lm.model.denoiser import Denoiser, ModelConfig
from diffusion_lm.model.gaps import collapse, ends_known, gap_nats

V, L = 20, 8


def network(**settings: Any) -> Denoiser:
    torch.manual_seed(0)
    shape = {"width": 16, "layers": 2, "heads": 2, "embedding_dim": 4, "max_length": L, "given": 0.5, "max_source": 6}
    net = Denoiser(ModelConfig(**{**shape, **settings}), V)
    with torch.no_grad():
        for parameter in net.parameters():  # those that are zero at first too
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net.eval()


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Two texts, ids and mask, and what is known of them: START, END and two words."""
    ids = torch.tensor([[0, 5, 6, 7, 8, 9, 1, 3], [0, 10, 11, 12, 13, 14, 15, 1]])
    mask = torch.tensor([[True] * 7 + [False], [True] * 8])
    known = ends_known(ids, mask)
    known[0, 2], known[1, 5] = ids[0, 2], ids[1, 5]
    return ids, mask, known


def test_only_start_and_end_are_known_of_a_free_text() -> None:
    ids, mask, _ = texts()
    rows = [[0, *[UNKNOWN] * 5, 1, UNKNOWN], [0, *[UNKNOWN] * 6, 1]]
    assert ends_known(ids, mask).tolist() == rows


def test_latents_of_given_words_are_not_read_and_the_words_are() -> None:
    net, (_, mask, known) = network(), texts()
    z, t = torch.randn(2, L, 4), torch.tensor([0.2, 0.9])
    before = net(z, t, mask, None, Given(known)).logits
    noised = torch.where((known != UNKNOWN)[..., None], torch.randn_like(z), z)
    assert before is not None
    assert torch.equal(
        net(noised, t, mask, torch.where((known != UNKNOWN)[..., None], 9.0, 0.0), Given(known)).logits, before
    )
    other = known.clone()
    other[0, 2] = 17
    assert not torch.allclose(net(z, t, mask, None, Given(other)).logits[0], before[0])
    assert torch.allclose(net(z, t, mask, None, Given(other)).logits[1], before[1], atol=1e-5)


def test_a_source_changes_what_is_said_and_its_padding_does_not() -> None:
    net, (_, mask, known) = network(), texts()
    z, t = torch.randn(2, L, 4), torch.rand(2)
    free = net(z, t, mask, None, Given(known)).x0
    short, long = torch.tensor([[5, 6], [UNKNOWN, UNKNOWN]]), torch.tensor([[5, 6, UNKNOWN], [UNKNOWN] * 3])
    said = net(z, t, mask, None, Given(known, net.read(short))).x0
    assert torch.allclose(said, net(z, t, mask, None, Given(known, net.read(long))).x0, atol=1e-5)
    assert not torch.allclose(said[0], free[0], atol=1e-3)
    assert torch.allclose(said[1], free[1], atol=1e-5)  # a sentence without a source beside one that has one


def test_rows_of_a_source_are_those_of_the_batch() -> None:
    net, (_, mask, known) = network(), texts()
    z, t = torch.randn(2, L, 4), torch.rand(2)
    whole = Given(known, net.read(torch.tensor([[5, 6], [7, UNKNOWN]])))
    said = net(z, t, mask, None, whole).x0
    index = torch.tensor([1])
    assert torch.allclose(net(z[1:], t[1:], mask[1:], None, whole.rows(index)).x0, said[1:], atol=1e-5)


@pytest.mark.parametrize("objective", ["cross_entropy", "simple", "vlb"])
def test_given_words_are_not_learned_from(objective: str) -> None:
    ids, mask, known = texts()
    net = network(objective=objective, normalize_embeddings=objective == "cross_entropy")
    loss = {"cross_entropy": CrossEntropy(), "simple": Simple(), "vlb": VariationalBound()}[objective]

    def terms(ids: Tensor) -> list[Tensor]:
        torch.manual_seed(1)
        return list(loss(net, ids, mask, torch.tensor([0.3, 0.8]), Given(known)).values())

    other = torch.where(known != UNKNOWN, 18, ids)  # the targets at given positions, not what the network is shown
    for one, two in zip(terms(ids), terms(other), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_model_without_given_words_has_nothing_for_them() -> None:
    names = set(Denoiser(ModelConfig(size="tiny"), V).state_dict())
    more = set(Denoiser(ModelConfig(size="tiny", given=0.1), V).state_dict()) - names
    assert more == {"marks", *(f"gap_words.{i}.{what}" for i in (0, 1) for what in ("weight", "bias"))}
    torch.manual_seed(3)
    plain = Denoiser(ModelConfig(size="tiny"), V).state_dict()
    torch.manual_seed(3)
    with_given = Denoiser(ModelConfig(size="tiny", given=0.1, max_source=5), V).state_dict()
    assert all(torch.equal(plain[name], with_given[name]) for name in names)


def test_a_network_takes_over_a_smaller_vocabulary() -> None:
    torch.manual_seed(0)
    old = Denoiser(ModelConfig(size="tiny"), V)
    new = Denoiser(ModelConfig(size="tiny", given=0.5, max_source=4), V + 3)
    new.take_over(old)
    z, t = torch.randn(1, 5, 16), torch.rand(1)
    found, wanted = new(z, t, None).logits, old(z, t, None).logits
    assert found is not None and wanted is not None
    assert torch.allclose(found[..., :V], wanted, atol=1e-5)


@pytest.mark.parametrize(("settings", "told"), [
    ({"given": 0.5, "layout": "padded"}, "exact"),
    ({"given": 0.0, "max_source": 8}, "given above 0"),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ModelConfig(**settings).filled()


def test_what_is_left_open_is_as_in_a_known_model() -> None:
    known = ModelConfig(given=0.5, max_source=32, dropout=0.1, source_dropout=0.1).filled()
    assert ModelConfig().filled(known) == known
    assert ModelConfig(max_source=0, dropout=0.0).filled(known) == ModelConfig(
        given=0.5, max_source=0, dropout=0.0, source_dropout=0.1
    )
    assert ModelConfig().filled() == ModelConfig(dropout=0.0, given=0.0, max_source=0, source_dropout=0.35)


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_gaps_become_single_positions() -> None:
    _, mask, known = texts()
    gaps = collapse(known, mask)
    assert gaps.known.tolist() == [[0, -1, 6, -1, 1], [0, -1, 14, -1, 1]]
    assert gaps.words.tolist() == [[0, 1, 0, 3, 0], [0, 4, 0, 1, 0]]
    assert gaps.mask.all()


@hypothesis_given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_collapsing_loses_no_word(rows: list[list[bool]]) -> None:
    width = max(map(len, rows)) + 2
    ids, mask, known = torch.full((len(rows), width), 3), torch.zeros(len(rows), width, dtype=torch.bool), None
    for i, row in enumerate(rows):
        ids[i, : len(row) + 2] = torch.arange(len(row) + 2) + 4
        mask[i, : len(row) + 2] = True
    known = ends_known(ids, mask)
    for i, row in enumerate(rows):
        for j, is_given in enumerate(row):
            if is_given:
                known[i, j + 1] = ids[i, j + 1]
    gaps = collapse(known, mask)
    for i, row in enumerate(rows):
        again: list[int] = []
        for word, size, real in zip(gaps.known[i].tolist(), gaps.words[i].tolist(), gaps.mask[i].tolist(), strict=True):
            again += ([UNKNOWN] * size if size else [word]) if real else []
        assert again == known[i, : len(row) + 2].tolist()


@torch.no_grad()
def test_the_sizes_of_a_gap_are_a_distribution() -> None:
    net = network()
    total = 0.0
    for words in range(1, L - 1):
        mask = torch.ones(1, words + 2, dtype=torch.bool)
        ids = torch.tensor([[0, *[5] * words, 1]])
        total += float(torch.exp(-gap_nats(net, ends_known(ids, mask), mask)))
    assert total == pytest.approx(1, abs=1e-4)
