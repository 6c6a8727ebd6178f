"""The learning rate against steps and time, and one step."""

import math

import pytest
import torch
from torch import nn

from diffusion_lm.common import UserError
from diffusion_lm.training.trainer import Clock


def test_the_learning_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    clock, rates = Clock(2.5, None, steps_per_epoch=8, lr=0.1, warmup=4), []
    while clock.fraction() < 1:
        rates.append(clock.lr())
        clock.steps += 1
    wanted = [0.1 * min(1, (i + 1) / 4) * 0.5 * (1 + math.cos(math.pi * i / 20)) for i in range(20)]
    assert rates == pytest.approx(wanted)
    assert clock.lr() == 0


def test_where_time_is_short_the_learning_rate_reaches_zero_with_it(monkeypatch):
    clock = Clock(1, 1.0, steps_per_epoch=1000, lr=1.0, warmup=1)
    monkeypatch.setattr(clock, "seconds", lambda: 30.0)
    assert (clock.fraction(), clock.lr()) == (0.5, pytest.approx(0.5))
    monkeypatch.setattr(clock, "seconds", lambda: 61.0)
    assert (clock.fraction(), clock.lr()) == (1.0, 0.0)


def test_a_step_goes_down_a_gradient_of_norm_one():
    model = nn.Linear(1, 1, bias=False)
    before, clock = model.weight.item(), Clock(1, None, 10, lr=0.5, warmup=1)
    clock.step(1000 * model.weight.sum(), model, torch.optim.SGD(model.parameters()))
    assert before - model.weight.item() == pytest.approx(0.5)
    assert clock.steps == 1


@pytest.mark.parametrize("epochs, minutes", [(0, None), (1, 0)])
def test_a_training_without_a_step_is_refused(epochs, minutes):
    with pytest.raises(UserError, match="above 0"):
        Clock(epochs, minutes, 10, 0.1, 1)
