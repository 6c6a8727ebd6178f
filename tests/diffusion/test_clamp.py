from __future__ import annotations

import pytest
import torch

from diffusion_lm.diffusion.clamp import CLAMPS, Clamp, HardClamp, NoClamp, SampledClamp, SoftClamp, clamped
from diffusion_lm.diffusion.process import Prediction

VECTORS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, -3.0]])
T = torch.full((2,), 0.5)


def prediction() -> Prediction:
    return Prediction(torch.randn(2, 5, 2), torch.randn(2, 5, 3))


@pytest.mark.parametrize("clamp", [c() for c in CLAMPS.values()], ids=list(CLAMPS))
def test_a_clamp_leaves_what_is_said_of_words(clamp: Clamp) -> None:
    before = prediction()
    after = clamp(before, VECTORS, T)
    assert after.x0.shape == before.x0.shape and after.logits is before.logits
    assert isinstance(clamp, NoClamp) == torch.equal(after.x0, before.x0)


def test_hard_takes_the_nearest_vector_and_not_the_likeliest_word() -> None:
    x0 = torch.tensor([[[0.9, 0.2], [0.1, 0.6], [-1.0, -2.0]]])
    logits = torch.zeros(1, 3, 3)
    logits[..., 2] = 9.0
    got = HardClamp()(Prediction(x0, logits), VECTORS, T[:1])
    assert torch.equal(got.x0[0], VECTORS)
    assert torch.equal(HardClamp()(Prediction(x0), VECTORS, T[:1]).x0, got.x0)
    assert torch.equal(HardClamp()(got, VECTORS, T[:1]).x0, got.x0)


def test_soft_is_the_mean_vector_and_hardens_as_it_cools() -> None:
    p = prediction()
    assert p.logits is not None
    assert torch.allclose(SoftClamp()(p, VECTORS, T).x0, p.logits.softmax(-1) @ VECTORS)
    assert torch.allclose(SoftClamp(temperature=1e-3)(p, VECTORS, T).x0, VECTORS[p.logits.argmax(-1)], atol=1e-3)
    assert torch.allclose(SoftClamp(temperature=1e6)(p, VECTORS, T).x0, VECTORS.mean(0), atol=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_draws_words_in_proportion(temperature: float) -> None:
    logits = torch.tensor([0.5, -0.5, 0.0])
    p = Prediction(torch.zeros(10, 1000, 2), logits.expand(10, 1000, 3))
    clamp = SampledClamp(temperature=temperature, generator=torch.Generator().manual_seed(0))
    words = clamp(p, VECTORS, torch.full((10,), 0.5)).x0
    share = torch.stack([(words == v).all(-1).float().mean() for v in VECTORS])
    assert torch.allclose(share, (logits / temperature).softmax(-1), atol=0.02)


def test_sampled_follows_its_generator_and_draws_each_position_alone() -> None:
    p = Prediction(torch.zeros(4, 50, 2), torch.zeros(4, 50, 3))
    t = torch.ones(4)
    one, two = (SampledClamp(generator=torch.Generator().manual_seed(3))(p, VECTORS, t).x0 for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1]) and len(one[0].unique(dim=0)) == 3


def test_sampled_never_draws_a_banned_word(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf]).expand(50, 200, 3)
    x0 = SampledClamp()(Prediction(torch.zeros(50, 200, 2), logits), VECTORS, torch.ones(50)).x0
    assert torch.equal(x0, VECTORS[1].expand_as(x0))
    for extreme in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda size, extreme=extreme, **_: torch.full(size, extreme))
        x0 = SampledClamp()(Prediction(torch.zeros(50, 200, 2), logits), VECTORS, torch.ones(50)).x0
        assert torch.equal(x0, VECTORS[1].expand_as(x0))


@pytest.mark.parametrize("clamp", [SoftClamp(), SampledClamp()])
def test_a_clamp_of_words_needs_logits(clamp: Clamp) -> None:
    with pytest.raises(ValueError, match="take HardClamp"):
        clamp(Prediction(torch.zeros(2, 5, 2)), VECTORS, T)


@pytest.mark.parametrize("kind", [HardClamp, SoftClamp, SampledClamp])
def test_from_time_waits_sentence_by_sentence(kind: type[Clamp]) -> None:
    p, t = prediction(), torch.tensor([0.3, 0.31])
    got = kind(from_time=0.3)(p, VECTORS, t).x0
    assert not torch.equal(got[0], p.x0[0]) and torch.equal(got[1], p.x0[1])
    assert kind(from_time=0.0)(p, VECTORS, t) is p


def test_clamped_wraps_a_denoiser() -> None:
    p = prediction()
    denoise = clamped(lambda z, t: p, HardClamp(from_time=0.6), VECTORS)
    assert torch.equal(denoise(p.x0, T).x0, HardClamp()(p, VECTORS, T).x0)
    assert torch.equal(denoise(p.x0, T + 0.2).x0, p.x0)


@pytest.mark.parametrize("kind", list(CLAMPS.values()))
def test_autocast_costs_a_clamp_no_digits(kind: type[Clamp]) -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.001, 0.0]])
    p = Prediction(torch.tensor([[[1.0008, 0.1], [1.0002, 0.1]]]), torch.tensor([[[0.0, 40.0], [40.0, 0.0]]]))
    with torch.autocast("cpu", torch.bfloat16):
        x0 = kind()(p, vectors, T[:1]).x0
    assert torch.equal(x0, p.x0 if kind is NoClamp else vectors.flip(0)[None])
