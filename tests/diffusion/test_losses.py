from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion_lm.diffusion.losses import CrossEntropy, Objective, Simple, VariationalBound, cross_entropy, token_mean
from diffusion_lm.diffusion.process import Given, Prediction, posterior
from diffusion_lm.diffusion.schedule import SCHEDULES, NoiseSchedule, Sqrt

PRIOR = torch.tensor([0.5, 0.3, 0.2])
TABLE = torch.tensor([[-1.2], [0.1], [1.3]])
ENTROPY = -(PRIOR * PRIOR.log()).sum().item()

Predict = Callable[[Tensor, Tensor], Prediction]


class Words:
    """Words drawn from `prior`, each alone: Bayes' rule makes the denoiser and the rounding exact."""

    def __init__(self, table: Tensor = TABLE, prior: Tensor = PRIOR, schedule: NoiseSchedule | None = None) -> None:
        self.table, self.prior, self.schedule = table, prior, schedule or Sqrt()

    def embed(self, ids: Tensor) -> Tensor:
        return self.table[ids]

    def logits(self, z: Tensor, alpha_bar: Tensor) -> Tensor:
        distance = (z[..., None, :] - alpha_bar.sqrt()[..., None] * self.table).square().sum(-1)
        return self.prior.log() - distance / (2 * (1 - alpha_bar))

    def predict(self, z: Tensor, t: Tensor, mask: Tensor, given: Given | None = None) -> Prediction:
        logits = self.logits(z, self.schedule.alpha_bar(t).reshape(-1, 1, 1))
        return Prediction(logits.softmax(-1) @ self.table, logits)

    def rounding_logits(self, x0: Tensor) -> Tensor:
        clean = self.schedule.alpha_bar(torch.zeros(1, 1, 1))
        return self.logits(clean.sqrt() * x0, clean)


class Gentle(NoiseSchedule):
    """Never so clean that a grid of z cannot follow it."""

    def __init__(self, last: float = 0.001) -> None:
        self.fall = 0.8 - last

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return 0.8 - self.fall * t

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return (0.8 - alpha_bar) / self.fall


class Told(Words):
    """A model whose prediction is given."""

    def __init__(self, answer: Predict, table: Tensor = TABLE, schedule: NoiseSchedule | None = None) -> None:
        super().__init__(table, schedule=schedule)
        self.answer = answer

    def predict(self, z: Tensor, t: Tensor, mask: Tensor, given: Given | None = None) -> Prediction:
        return self.answer(z, t)


def sentences(n: int, length: int = 1) -> tuple[Tensor, Tensor]:
    """Words in the proportions of the prior and a mask that hides none."""
    ids = (torch.rand(n, length)[..., None] > PRIOR.cumsum(-1)).sum(-1).clamp(max=2)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def even_times(n: int) -> Tensor:
    return (torch.arange(n) + torch.rand(n)) / n


def test_token_mean_counts_the_positions_that_exist() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 3.0, 1e9], [5.0, -1e9, 1e9]])
    assert token_mean(values, mask).tolist() == [2.0, 5.0]


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, -1.0], [0.5, 0.5, 0.0], [9.0, 9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    by_hand = [math.log(sum(math.exp(x) for x in row)) - row[i] for row, i in (([2, 0, -1], 1), ([0.5, 0.5, 0], 2))]
    assert cross_entropy(logits, torch.tensor([[1, 2, 0]]), mask).item() == pytest.approx(sum(by_hand) / 2)
    got = CrossEntropy()(Told(lambda z, t: Prediction(z, logits)), torch.tensor([[1, 2, 0]]), mask, torch.tensor([0.5]))
    assert list(got) == ["words"] and got["words"].item() == pytest.approx(sum(by_hand) / 2)


@pytest.mark.parametrize("objective", [CrossEntropy(), VariationalBound(None)])
def test_z_is_noised_around_the_clean_embedding(objective: Objective) -> None:
    seen: list[Tensor] = []

    def answer(z: Tensor, t: Tensor) -> Prediction:
        seen.append(z)
        return Prediction(z, torch.zeros(*z.shape[:2], 3))

    ids, mask = torch.zeros(4000, 5, dtype=torch.long), torch.ones(4000, 5, dtype=torch.bool)
    objective(Told(answer), ids, mask, torch.full((4000,), 0.09))
    a = Sqrt().alpha_bar(torch.tensor(0.09)).item()
    assert seen[0].mean().item() == pytest.approx(-1.2 * a**0.5, abs=0.02)
    assert seen[0].var().item() == pytest.approx(1 - a, rel=0.05)


def test_cross_entropy_runs_from_nothing_to_the_entropy_of_the_words() -> None:
    ids, mask = sentences(20_000)
    means = [
        CrossEntropy()(Words(), ids, mask, torch.full((20_000,), t))["words"].mean().item()
        for t in (0.0, 0.1, 0.4, 1.0)
    ]
    assert means[0] == pytest.approx(0, abs=1e-3) and means[-1] == pytest.approx(ENTROPY, abs=0.02)
    assert all(a < b for a, b in pairwise(means))


# -- L_simple ------------------------------------------------------------------------------------


def test_simple_has_the_papers_terms_and_changes_them_at_the_first_step() -> None:
    ids, mask = sentences(3, 4)
    t = torch.tensor([0.0, 0.99 / 2000, 1.01 / 2000])
    terms = Simple()(Told(lambda z, t: Prediction(z + 1)), ids, mask, t)
    assert list(terms) == ["x0", "embedding", "rounding", "prior"]
    assert all(term.shape == (3,) for term in terms.values())
    assert (terms["x0"] > 0).tolist() == [False, False, True]
    assert (terms["embedding"] > 0).tolist() == [True, True, False]


def test_simple_looks_at_the_steps_one_to_t_of_the_grid() -> None:
    seen: list[Tensor] = []
    model = Told(lambda z, t: (seen.append(t), Prediction(z))[1])
    ids, mask = sentences(4)
    Simple(steps=10)(model, ids, mask, torch.tensor([0.0, 0.05, 0.15, 0.999]))
    assert seen[0].tolist() == pytest.approx([0.1, 0.1, 0.2, 1.0])


def test_the_target_of_simple_is_the_noisy_x0() -> None:
    # A model that knows the word but not its noise is off by sigma_0^2, and by nothing at the first step.
    ids, mask = sentences(500, 8)
    terms = Simple()(Told(lambda z, t: Prediction(TABLE[ids])), ids, mask, torch.full((500,), 0.5))
    assert terms["x0"].mean().item() == pytest.approx(0.01, rel=0.1)
    first = Simple()(Told(lambda z, t: Prediction(TABLE[ids])), ids, mask, torch.zeros(500))
    assert first["embedding"].abs().max() == 0 and first["x0"].abs().max() == 0


@pytest.mark.parametrize("sigma_0", [0.0, 0.3])
def test_the_noise_of_a_word_is_what_it_is_set_to(sigma_0: float) -> None:
    ids, mask = sentences(4000)
    model, still = Told(lambda z, t: Prediction(TABLE[ids])), torch.full((4000,), 0.5)
    terms = Simple(sigma_0=sigma_0)(model, ids, mask, still)
    assert terms["x0"].mean().item() == pytest.approx(sigma_0**2, rel=0.1)
    assert sigma_0 > 0 or terms["x0"].max() == 0


@pytest.mark.parametrize("name", ["x0", "embedding", "rounding", "prior"])
def test_a_term_that_is_left_out_is_nothing_and_the_others_stay(name: str) -> None:
    ids, mask = sentences(5)
    model, t = Told(lambda z, t: Prediction(z)), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    torch.manual_seed(0)
    whole = Simple()(model, ids, mask, t)
    torch.manual_seed(0)
    for term, value in Simple(leave_out=name)(model, ids, mask, t).items():
        torch.testing.assert_close(value, 0 * whole[term] if term == name else whole[term])


def test_simple_is_zero_for_an_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    # With eps = 0 the noisy x0 can be read off z_t.
    draws = iter([torch.randn, torch.zeros])
    monkeypatch.setattr(torch, "randn_like", lambda x: next(draws)(x.shape))
    ids, mask = sentences(6, 4)

    def oracle(z: Tensor, t: Tensor) -> Prediction:
        return Prediction(z / Sqrt().alpha_bar(t).reshape(-1, 1, 1).sqrt())

    terms = Simple()(Told(oracle), ids, mask, torch.linspace(0.1, 0.9, 6))
    assert terms["x0"].max() < 1e-9


def test_prior_and_rounding_of_simple() -> None:
    table = 30 * TABLE
    ids = torch.tensor([[0, 0], [2, 2]]).repeat(500, 1)
    terms = Simple()(Words(table), ids, torch.ones_like(ids), torch.rand(1000))
    last = Sqrt().alpha_bar(torch.tensor(1.0)).item()
    assert terms["prior"][0].item() == pytest.approx(last * 36**2, rel=0.02)
    assert terms["prior"][1].item() == pytest.approx(last * 39**2, rel=0.02)
    assert terms["rounding"].max() < 1e-6
    # The rounding term is -log p(w | x0) of x0 = Emb(w) + sigma_0 noise, with two words 0.2 apart.
    close = Simple()(Words(torch.tensor([[0.0], [0.2], [9.0]])), ids * 0, torch.ones_like(ids), torch.rand(1000))
    x0 = 0.1 * torch.randn(100_000, 1, 1)
    expected = -Words(torch.tensor([[0.0], [0.2], [9.0]])).rounding_logits(x0).log_softmax(-1)[..., 0].mean()
    assert close["rounding"].mean().item() == pytest.approx(expected.item(), rel=0.1)


def test_the_prior_of_simple_is_that_of_the_noisy_x0() -> None:
    # Word 0 is the zero vector here: all that is left of it at t = 1 is the noise of variance 0.2.
    ids = torch.zeros(5_000, 4, dtype=torch.long)
    terms = Simple()(Words(0 * TABLE, schedule=Gentle()), ids, torch.ones_like(ids), torch.rand(5_000))
    assert terms["prior"].mean().item() == pytest.approx(0.001 * 0.2, rel=0.05)


def test_gradients_of_simple() -> None:
    # Nothing is stopped: the embedding is moved as target and as input. Rounding never meets the network.
    weight = torch.ones((), requires_grad=True)
    table = TABLE.clone().requires_grad_(True)
    model = Told(lambda z, t: Prediction(weight * z), table)
    ids, mask = sentences(5, 3)
    terms = Simple()(model, ids, mask, torch.rand(5))
    for name, through_network in {"x0": True, "rounding": False, "prior": False}.items():
        to_weight, to_table = torch.autograd.grad(
            terms[name].sum(), (weight, table), retain_graph=True, allow_unused=True
        )
        assert (to_weight is not None) == through_network and to_table.abs().sum() > 0
    # d/dE of (x0 - f)^2 with f = 0 is that of x0^2: the target's own gradient.
    terms = Simple()(Told(lambda z, t: Prediction(0 * z.detach()), table), ids, mask, torch.full((5,), 0.5))
    assert torch.autograd.grad(terms["x0"].sum(), table)[0].abs().sum() > 0


# -- L_vlb ---------------------------------------------------------------------------------------


def weight(schedule: NoiseSchedule, steps: int | None, t: Tensor) -> Tensor:
    """The weight of the error: the diffusion term of a model that is off by one."""
    ids = torch.zeros(len(t), 1, dtype=torch.long)
    model = Told(lambda z, _: Prediction(TABLE[ids] + 1), schedule=schedule)
    return VariationalBound(steps)(model, ids, torch.ones_like(ids), t)["diffusion"]


@pytest.mark.parametrize("schedule", [s() for s in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_weights_of_the_bound_are_differences_of_snr(schedule: NoiseSchedule, steps: int) -> None:
    snr = schedule.log_snr(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).exp()
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    got = weight(schedule, steps, t)
    assert torch.allclose(got, -steps / 2 * snr.diff(), rtol=1e-5)
    # They telescope: the mean over t is (SNR(0) - SNR(1)) / 2 whatever the number of steps.
    assert got.mean().item() == pytest.approx(((snr[0] - snr[-1]) / 2).item())


@pytest.mark.parametrize("schedule", [s() for s in SCHEDULES.values()], ids=list(SCHEDULES))
def test_finite_weights_tend_to_the_continuous_ones(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0.05, 0.9, 50, dtype=torch.float64)
    limit = weight(schedule, None, t)
    errors = [(weight(schedule, n, t - 0.5 / n) / limit - 1).abs().max().item() for n in (100, 1000, 10_000)]
    assert errors[-1] < 0.01 and all(b < 0.5 * a for a, b in pairwise(errors))


def test_the_prior_of_the_bound_is_the_divergence_from_a_standard_gaussian() -> None:
    # On a schedule that stops far from all noise.
    table, last, normal = (
        torch.tensor([[3.0, -1.0], [0.0, 0.5], [1.0, 1.0]]),
        torch.tensor(0.4),
        torch.distributions.Normal,
    )
    ids = torch.arange(3)[None]
    terms = VariationalBound()(Words(table, schedule=Gentle(0.4)), ids, torch.ones_like(ids), torch.tensor([0.9]))
    kl = torch.distributions.kl_divergence(normal(last.sqrt() * table, (1 - last).sqrt()), normal(0.0, 1.0))
    assert terms["prior"].item() == pytest.approx(kl.sum(-1).mean().item(), rel=1e-5)


def test_the_continuous_bound_of_an_exact_denoiser_is_the_entropy_of_the_words() -> None:
    ids, _ = sentences(60_000)
    u = even_times(60_000)[torch.randperm(60_000)]
    # More times near 0, where the weight is large; 3 u^2 keeps the expectation.
    terms = VariationalBound(None)(Words(), ids, torch.ones_like(ids), u**3)
    total = sum((terms | {"diffusion": 3 * u**2 * terms["diffusion"]}).values())
    assert isinstance(total, Tensor)
    exact = -PRIOR.log()[ids].mean().item()  # of these words, which are not quite in the prior's proportion
    assert total.mean().item() == pytest.approx(exact, abs=0.02)


def exact_nll(model: Words, steps: int) -> Tensor:
    """-log p(w) of the chain of `steps` Gaussian transitions by summation over a grid of z, [V]."""
    z = torch.linspace(-6, 6, 601, dtype=torch.float64)
    alpha_bar = model.schedule.alpha_bar(model.schedule.grid(steps).double())
    p = torch.softmax(-z.square() / 2, 0)
    for i in range(steps):
        x0 = model.predict(z[None, :, None], model.schedule.grid(steps)[i : i + 1].double(), torch.ones(1, 601)).x0
        mean, std = posterior(z, x0[0, :, 0], alpha_bar[i], alpha_bar[i + 1])
        p = p @ torch.softmax(-(z - mean[:, None]).square() / (2 * std**2), 1)
    words = model.rounding_logits((z / alpha_bar[-1].sqrt())[None, :, None]).softmax(-1)[0]
    return -(p @ words).log()


@pytest.mark.parametrize("prior", [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], ids=["exact", "wrong"])
def test_the_bound_is_above_the_exact_likelihood_and_near_it(prior: list[float]) -> None:
    # A model of any prior is a model of language; the bound must hold for its own likelihood, word by word.
    model = Words(TABLE.double(), torch.tensor(prior, dtype=torch.float64), Gentle())
    gaps = []
    for steps in (1, 10, 50):
        nll = exact_nll(model, steps)
        assert (-nll).exp().sum().item() == pytest.approx(1)
        ids = torch.arange(3).repeat_interleave(4_000)[:, None]
        total = sum(VariationalBound(steps)(model, ids, torch.ones_like(ids), even_times(4_000).repeat(3)).values())
        assert isinstance(total, Tensor)
        gap = total.reshape(3, -1).mean(-1) - nll
        assert (gap > 0).all()
        gaps.append((gap * model.prior).sum().item())
    assert gaps[0] > 5 * gaps[1] > 10 * gaps[2] > 0 and gaps[2] < 0.05
