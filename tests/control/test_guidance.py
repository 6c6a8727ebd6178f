"""Energies: their gradients, how they are followed, and their algebra."""

import pytest
import torch

from diffusion_lm.annotate.trees import Leaf, spans_of_leaves
from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Guidance, Length, Pos, Span, Tree
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.guidance import Adagrad, InnerLoop, Proximal, Pull, Steered
from diffusion_lm.control.syntax import chart_energy
from diffusion_lm.diffusion.process import Gaussian, Prediction
from tests.control.conftest import Quadratic, energy, latents, programs

TREE = "(S (NP (DT _) (NN _)) (VP (VBZ _)))"


def steered(control, lm, *, batch=2, length=3):
    rows = torch.arange(batch)
    energies = [(each, rows) for each in programs(control, lm)[0].energies]
    mask = torch.ones(batch, length, dtype=torch.bool)
    return Steered(lambda z, t: Prediction(z, z), mask, lm.denoiser.embedding.vectors(), energies)


def test_the_slope_is_the_energys_gradient_and_is_counted(lm):
    z, state = torch.randn(2, 3, 4), steered(Quadratic(2.0), lm)
    slope = state.slope(z, torch.full((2,), 0.5))
    assert state.passes == 1
    torch.testing.assert_close(slope.gradient, 2 * z)
    torch.testing.assert_close(slope.energy, z.square().flatten(1).sum(-1))
    assert Steered(state.denoise, state.mask, state.vectors).slope(z, torch.ones(2)) is None


def test_pull_moves_each_sentence_by_rate_times_one_minus_p(lm):
    z = torch.randn(2, 3, 4)
    moved = Pull(steps=1, rate=0.7).guide(steered(Quadratic(1.0), lm))(z, None, torch.full((2,), 0.5))
    nats = z.square().flatten(1).sum(-1) / 2
    torch.testing.assert_close((z - moved).flatten(1).norm(dim=1), 0.7 * (1 - torch.exp(-nats)))


def test_the_papers_step_is_the_sign_of_energy_and_fluency_and_ends_early(lm):
    z, mean = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    guide = InnerLoop(steps=1, rate=0.1, fluency=0.5, until=0.05).guide(steered(Quadratic(2.0), lm))
    step = Gaussian(mean, torch.tensor(0.5))
    moved = guide(z, step, torch.full((2,), 0.5))
    # d/dz (|z|^2 + 0.5 |z - mean|^2 / 0.5), the batch's mean.
    torch.testing.assert_close(moved, z - 0.1 * (2 * z + 2 * (z - mean)).sign())
    assert guide(z, step, torch.full((2,), 0.04)) is z
    with pytest.raises(UserError, match="'poetry'"):
        Guidance.paper("poetry")


def test_adagrad_divides_by_the_root_of_the_squares_of_its_step(lm):
    z, rate = torch.randn(2, 3, 4), 0.3
    guide = Adagrad(steps=3, rate=rate, fluency=0.0).guide(steered(Quadratic(2.0), lm))
    moved, squares = z.clone(), torch.zeros_like(z)
    for _ in range(3):
        squares += (2 * moved) ** 2
        moved = moved - rate * 2 * moved / squares.sqrt()
    step = Gaussian(z, torch.tensor(0.5))
    torch.testing.assert_close(guide(z, step, torch.full((2,), 0.5)), moved)
    torch.testing.assert_close(guide(z, step, torch.full((2,), 0.5)), moved)  # nothing is left of an earlier step
    optimizer = torch.optim.Adagrad([free := z.clone().requires_grad_(True)], lr=rate, eps=1e-10)
    for _ in range(3):
        optimizer.zero_grad()
        free.square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(free.detach(), moved)


def test_proximal_goes_to_the_likeliest_point_in_units_of_the_noise(lm):
    mean, std, t = torch.randn(2, 3, 4), torch.tensor(0.2), torch.full((2,), 0.5)
    # -log p = |z|^2 / 2, so with fluency 1 the likeliest z_s of the product of two Gaussians is mean / (1 + std^2).
    guide = Proximal(steps=400, rate=0.02, fluency=1.0).guide(steered(Quadratic(1.0), lm))
    moved = guide(mean + std * torch.randn(2, 3, 4), Gaussian(mean, std), t)
    assert (moved - mean / (1 + std**2)).abs().max() <= 0.02 * std + 1e-6
    once = Proximal(steps=1, rate=0.5).guide(steered(Quadratic(1.0), lm))(mean, Gaussian(mean, std), t)
    torch.testing.assert_close((once - mean).abs(), torch.full_like(mean, 0.5 * 0.2))


def test_a_mean_over_terms_is_followed_and_its_sum_says_how_sure_it_is(lm):
    control = Pos("DET NOUN VERB", by_classifier=True)
    state, z, t = steered(control, lm, length=5), torch.randn(2, 5, 16), torch.full((2,), 0.3)
    slope = state.slope(z, t)
    torch.testing.assert_close(slope.nats, 3 * slope.energy)
    moved = Pull(1, 0.7).guide(state)(z, None, t)
    torch.testing.assert_close((z - moved).flatten(1).norm(dim=1), 0.7 * (1 - torch.exp(-slope.nats)))


@pytest.mark.parametrize("guidance", [Pull(), InnerLoop(fluency=0.0), Guidance.paper("attribute")])
def test_an_energy_of_zero_changes_no_bit(lm, guidance):
    free = lm.generate(4, Length(7), steps=5, seed=3)
    still = InnerLoop(fluency=0.0) if guidance == Guidance.paper() else guidance  # fluency alone pulls z_s to its mean
    how = {"clamp": free.decoding.clamp, "sampler": free.decoding.sampler}
    held = lm.generate(4, Quadratic(0.0) & Length(7), steps=5, seed=3, guidance=still, **how)
    assert held.ids == free.ids and held.network_evaluations > free.network_evaluations


@pytest.mark.parametrize(
    "control",
    [
        Attribute("food", "thai"),
        ~Attribute("food", "Thai"),
        Attribute("food", "Thai") | Attribute("Type", "bar"),
        Pos("DET NOUN VERB", by_classifier=True),
        Tree(TREE, by_classifier=True),
        Span("1:2:NP 3:3:VP", by_classifier=True),
    ],
    ids=str,
)
def test_energies_agree_with_finite_differences_and_are_lowered(control, lm):
    of = energy(control, lm)
    z = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [5]])
    (gradient,) = torch.autograd.grad(of(latents(z, lm, mask)).sum(), z)
    assert gradient[1, 5:].abs().max() == 0  # what is beyond the sentence does not count
    direction, step = gradient / gradient.norm(), 1e-2
    up, down = (of(latents(z + sign * step * direction, lm, mask)).sum() for sign in (1, -1))
    assert ((up - down) / (2 * step)).item() == pytest.approx(gradient.norm().item(), rel=2e-2)
    state = steered(control, lm, length=6)
    t, still = torch.full((2,), 0.3), z.detach()
    after = state.slope(Pull(3, 0.05).guide(state)(still, None, t), t)
    assert bool((after.energy < state.slope(still, t).energy).all())


def test_the_algebra_is_that_of_probabilities(lm):
    a, b = Attribute("food", "Thai"), Attribute("Type", "bar")
    at = latents(torch.randn(3, 5, 16), lm)
    e, f = (energy(c, lm)(at) for c in (a, b))
    p, q = torch.exp(-e), torch.exp(-f)
    torch.testing.assert_close([each.of(at) for each in programs(a & b, lm)[0].energies], [e, f])
    torch.testing.assert_close(torch.exp(-energy(a | b, lm)(at)), p + q - p * q)
    torch.testing.assert_close(torch.exp(-energy(~a, lm)(at)), 1 - p)
    torch.testing.assert_close(torch.exp(-energy(~(a & b), lm)(at)), 1 - p * q)
    torch.testing.assert_close(energy(3 * a, lm)(at), 3 * e)
    assert [str(part) for part in (a & b).parts()] == ["food=Thai", "Type=bar"]
    texts = ["A Thai bar.", "A thai cafe.", "Thailand"]
    assert (a & b).success(texts).tolist() == [1, 0, 0]
    assert (a | b).success(texts).tolist() == [1, 1, 0]
    assert (~a).success(texts).tolist() == (1 - (2 * a).success(texts)).tolist() == [0, 0, 1]


def test_energies_are_each_sentences_own_and_the_classifier_runs_once(lm):
    thai, bar = (programs(Attribute(*pair), lm)[0].energies[0] for pair in (("food", "Thai"), ("Type", "bar")))
    z, calls = torch.randn(3, 6, 16), []
    model = lm.asset(AttributeModel)
    state = steered(Quadratic(0.0), lm, batch=3, length=6)
    state.energies = [(thai, torch.tensor([0])), (bar, torch.tensor([2]))]
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    found = state.energy(z, torch.full((3,), 0.3))
    handle.remove()
    energy, nats, terms = found
    assert terms.tolist() == [1, 0, 1]
    assert len(calls) == 1 and energy[1] == 0 and torch.equal(energy, nats)
    at = latents(z, lm)
    torch.testing.assert_close(energy[[0, 2]], torch.stack([thai.of(at)[0], bar.of(at)[2]]))


def test_the_padded_layout_follows_the_papers_length_energy(padded):
    vectors = padded.denoiser.embedding.vectors().detach()
    x0 = torch.zeros(1, 32, 16)
    x0[0, 0], x0[0, 7] = vectors[padded.tokenizer.start_id], vectors[padded.tokenizer.end_id]
    (program,) = programs(Length(6), padded)
    assert program.energies[0].reads_prediction and program.energies[0].of(latents(x0, padded)).item() == 0
    assert energy(Length(7), padded)(latents(x0, padded)).item() > 0


class Chart:
    """Stands for a classifier: random log-probabilities of 5 classes for spans of positions."""

    device = torch.device("cpu")

    def __init__(self):
        self.config = type("Config", (), {"chains": ["S", "NP", "VP", "PP"]})
        self.chart = torch.randn(1, 5, 5, 5).log_softmax(-1)

    def __call__(self, z, t, mask):
        return [z]

    def cells(self, hidden, first, last):
        return self.chart[:, first, last]


def test_a_tree_labels_every_cell_of_the_chart_and_a_span_its_own(lm):
    model, at = Chart(), latents(torch.randn(1, 5, 16), lm)
    spans = spans_of_leaves([Leaf("DT", ("S", "NP")), Leaf("NN", (), ("NP",)), Leaf("VBZ", ("VP",), ("S", "VP"))])
    # First, last, class: chains S, NP, VP, PP are 1 to 4, and 0 is no constituent.
    cells = [(0, 0, 0), (0, 1, 2), (0, 2, 1), (1, 1, 0), (1, 2, 0), (2, 2, 3)]
    for found, wanted in ((chart_energy(model, spans, 3), cells), (chart_energy(model, spans[:1]), cells[1:2])):
        nats = [-model.chart[0, first + 1, last + 1, label] for first, last, label in wanted]
        torch.testing.assert_close(found.of(at)[0], torch.stack(nats).mean())
