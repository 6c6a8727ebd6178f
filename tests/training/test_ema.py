from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_lm.training.trainer import EMA


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


def test_swapping_twice_changes_nothing():
    module = model(2.0)
    ema = EMA(module, decay=0.9)
    set_weights(module, 5.0)
    ema.swap()
    assert (module.weight == 2).all() and (ema.state()["weight"] == 5).all()
    ema.swap()
    assert (module.weight == 5).all() and (ema.state()["weight"] == 2).all()


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
