"""The loop of everything that is trained but the language model."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.fit import EMA, Limits, OptimizerConfig, Progress, build_optimizers, fit, follow, learning_rate

PLAIN = OptimizerConfig(lr=0.1, warmup=0, ema=0)


def points() -> list[Tensor]:
    """Batches of a line through the origin."""
    x = torch.linspace(-1, 1, 8)[:, None]
    return list(torch.cat([x, 3 * x], 1).split(2))


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1, bias=False)


def squares(model: nn.Module):
    return lambda batch: (model(batch[:, :1]) - batch[:, 1:]).square().mean()


def test_it_finds_the_slope_of_a_line():
    model = line()
    fit(model, points, squares(model), Limits(epochs=50), PLAIN)
    assert model.weight.item() == pytest.approx(3, abs=0.01)
    assert not model.training


def test_steps_go_over_passes_and_epochs_may_be_half():
    for limits, wanted in (
        (Limits(steps=6), [1, 1, 1, 1, 2, 2]),
        (Limits(epochs=1.5), [1, 1, 1, 1, 2, 2]),
        (Limits(steps=3, epochs=9), [1, 1, 1]),
        (Limits(steps=3, minutes=9), [1, 1, 1]),
    ):
        model, steps, passes = line(), list[Progress](), list[Progress]()
        fit(model, points, squares(model), limits, PLAIN, on_step=steps.append, on_epoch=passes.append)
        assert [step.epoch for step in steps] == wanted
        assert [step.steps for step in steps] == list(range(1, len(wanted) + 1))
        assert [step.fraction for step in steps] == pytest.approx([(i + 1) / len(wanted) for i in range(len(wanted))])
        assert [each.epoch for each in passes] == sorted(set(wanted))
        last = [step.loss for step in steps if step.epoch == wanted[-1]]
        assert passes[-1].loss == pytest.approx(sum(last) / len(last))


def test_where_time_is_short_the_learning_rate_reaches_zero_with_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    model, rates = line(), []

    def loss_of(batch: Tensor) -> Tensor:
        rates.append(built[0].param_groups[0]["lr"])
        now[0] += 6.0
        return squares(model)(batch)

    built = []
    monkeypatch.setattr(
        "diffusion_lm.fit.build_optimizers", lambda *given: built.extend(build_optimizers(*given)) or built
    )
    seen = []
    fit(model, points, loss_of, Limits(epochs=1000, minutes=1), PLAIN, on_step=seen.append)
    assert [each.fraction for each in seen] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates == sorted(rates, reverse=True) and built[0].param_groups[0]["lr"] < 0.01


def test_the_gradient_is_clipped_to_its_largest_norm():
    def after(clip):
        model = line()
        seen = []
        model.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p))
        optimizer = OptimizerConfig(lr=1e-6, warmup=0, clip=clip, ema=0)
        norms = []
        step = torch.optim.AdamW.step

        def spy(self, *args):
            norms.append(model.weight.grad.norm().item())
            return step(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", spy)
            fit(model, points, lambda batch: 1000 * model.weight.sum(), Limits(steps=1), optimizer)
        return norms

    assert after(0.5) == pytest.approx([0.5])
    assert after(0) == pytest.approx([1000])


def test_the_averaged_weights_are_seen_after_a_pass_and_kept():
    model, live = line(), []
    average = []
    fit(
        model,
        points,
        squares(model),
        Limits(epochs=2),
        OptimizerConfig(lr=0.1, warmup=0, ema=0.5),
        on_step=lambda _: live.append(model.weight.item()),
        on_epoch=lambda _: average.append(model.weight.item()),
    )
    shadow, wanted = line().weight.item(), []
    for n, weight in enumerate(live, 1):
        decay = min(0.5, (1 + n) / (10 + n))
        shadow = decay * shadow + (1 - decay) * weight
        wanted.append(shadow)
    assert average == pytest.approx([wanted[3], wanted[7]])
    assert model.weight.item() == pytest.approx(wanted[7])


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    model = line()
    with pytest.raises(UserError, match="at step 3; take a lower lr"):
        fit(model, points, lambda batch: model.weight.sum() / (batch[0, 0] < 0.1), Limits(epochs=1), PLAIN)


@pytest.mark.parametrize("limits", [{}, {"epochs": 0}, {"minutes": 0}, {"steps": -1}, {"epochs": math.nan}])
def test_a_training_without_a_step_or_an_end_is_refused(limits):
    with pytest.raises(UserError):
        Limits(**limits)


def test_a_training_without_a_batch_is_refused():
    with pytest.raises(UserError, match="nothing to train on"):
        fit(line(), list, lambda batch: batch, Limits(steps=1), PLAIN)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1), ("lr", math.nan), ("warmup", -5), ("weight_decay", -1), ("beta2", 1.5), ("clip", -1), ("ema", 1.5)],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be .*, not {value}"):
        OptimizerConfig(**{name: value})


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, ids):
        return self.linear(self.embedding(ids)).square().mean()


def test_warmup_rises_in_equal_steps_to_the_peak():
    config = OptimizerConfig(lr=1.0, warmup=4)
    assert [learning_rate(step, 100, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(0, 100, OptimizerConfig(lr=1.0, warmup=0)) == 1.0


@pytest.mark.parametrize(("decay", "halfway", "end"), [("linear", 0.5, 0.0), ("cosine", 0.5, 0.0), ("none", 1.0, 1.0)])
def test_decay_ends_at_the_last_step(decay, halfway, end):
    config = OptimizerConfig(lr=2.0, warmup=10, decay=decay)
    rates = [learning_rate(step, 110, config) for step in range(10, 111)]
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(2 * halfway)
    assert rates[100] == pytest.approx(2 * end)
    assert rates == sorted(rates, reverse=True)


def test_cosine_is_a_cosine():
    config = OptimizerConfig(lr=1.0, warmup=0, decay="cosine")
    assert learning_rate(25, 100, config) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_run_shorter_than_its_warmup_does_not_divide_by_zero():
    assert learning_rate(5, 6, OptimizerConfig(lr=1.0, warmup=6)) == 1.0


def test_only_matrices_are_decayed():
    model = Small()
    (adamw,) = build_optimizers(model, OptimizerConfig(weight_decay=0.1))
    decayed, free = adamw.param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert [p is model.linear.weight for p in decayed["params"]] == [True]
    assert {id(p) for p in free["params"]} == {id(model.embedding.weight), id(model.linear.bias)}


def test_muon_moves_the_matrices_of_blocks_by_a_matrix_without_scale():
    module = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(32, 24)]), "out": nn.Linear(24, 2)})
    adamw, muon = build_optimizers(module, OptimizerConfig(blocks="muon"))
    inner = module["blocks"][0].weight
    assert [p is inner for group in muon.param_groups for p in group["params"]] == [True]
    assert inner not in {p for group in adamw.param_groups for p in group["params"]}
    before, (u, _, v) = inner.detach().clone(), torch.linalg.svd(torch.randn(24, 32), full_matrices=False)
    scales = torch.logspace(0, 1, 24)
    inner.grad = 100 * (u * scales) @ v
    follow([adamw, muon], 0.01)
    # Of the gradient U S V the step has U and V, its singular values near 1, times sqrt(longer side), so the mean square is 1.
    step = u.T @ (before - inner.detach()) @ v.T / (0.01 * math.sqrt(32))
    assert ((step.diagonal() > 0.5) & (step.diagonal() < 1.4)).all()
    assert (step - step.diagonal().diag()).abs().max() < 0.1


def model(value):
    module = nn.Linear(3, 2)
    module.register_parameter("fixed", nn.Parameter(torch.ones(2), requires_grad=False))
    set_weights(module, value)
    return module


def set_weights(module, value):
    with torch.no_grad():
        module.weight.fill_(value)
        module.bias.fill_(-value)


def test_it_is_the_average_that_it_says():
    module = model(0.0)
    ema = EMA(module, decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        set_weights(module, float(step))
        ema.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert ema.state().keys() == {"weight", "bias"}
    torch.testing.assert_close(ema.state()["weight"], torch.full((2, 3), expected))
    torch.testing.assert_close(ema.state()["bias"], torch.full((2,), -expected))


def test_the_initial_weights_are_soon_forgotten():
    module = model(1e6)
    ema = EMA(module, decay=0.9999)
    set_weights(module, 1.0)
    for _ in range(100):
        ema.update()
    assert ema.state()["weight"].max() < 1.01


def test_the_initial_weights_have_their_share_in_the_model_and_none_in_the_average():
    module = model(2.0)
    ema = EMA(module, decay=0.5, first=0.25)
    for _ in range(40):
        set_weights(module, 6.0)
        ema.update()
    with ema.in_place():
        torch.testing.assert_close(module.weight, torch.full((2, 3), 5.0))
    assert (module.weight == 6).all()
    torch.testing.assert_close(ema.state()["weight"], torch.full((2, 3), 6.0))
    ema.put()
    torch.testing.assert_close(module.bias, torch.full((2,), -5.0))


def test_the_weights_come_back_after_an_error():
    module = model(2.0)
    ema = EMA(module, decay=0.9)
    set_weights(module, 5.0)
    with pytest.raises(RuntimeError), ema.in_place():
        assert (module.weight == 2).all()
        raise RuntimeError
    assert (module.weight == 5).all()


def test_a_loaded_average_goes_on_as_the_saved_one():
    first, second = model(1.0), model(7.0)
    a, b = EMA(first, 0.99), EMA(second, 0.99)
    for _ in range(3):
        a.update()
    b.load({name: value.clone() for name, value in a.state().items()}, a.steps)
    for module, ema in ((first, a), (second, b)):
        set_weights(module, 3.0)
        ema.update()
    assert all(torch.equal(a.state()[name], b.state()[name]) for name in a.state())
