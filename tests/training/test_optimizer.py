from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffusion_lm.training.trainer import (
    OptimizerConfig,
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
)


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
    decayed, free = build_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert [p is model.linear.weight for p in decayed["params"]] == [True]
    assert {id(p) for p in free["params"]} == {id(model.embedding.weight), id(model.linear.bias)}


def test_a_loaded_state_goes_on_as_the_saved_one():
    ids = torch.tensor([0, 1, 2])
    a, b = Small(), Small()
    config = OptimizerConfig(lr=0.1, weight_decay=0.1)
    first, second = build_optimizer(a, config), build_optimizer(b, config)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(ids).backward()
        optimizer.step()

    for _ in range(3):
        step(a, first)
    saved = optimizer_tensors(a, first)
    assert {"linear.weight/exp_avg", "linear.weight/exp_avg_sq", "linear.weight/step"} <= saved.keys()
    b.load_state_dict(a.state_dict())
    load_optimizer_tensors(b, second, saved)
    assert all(saved[name] is not value for name, value in optimizer_tensors(b, second).items())
    step(a, first)
    step(b, second)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_new_optimizer_has_no_state():
    model = Small()
    assert optimizer_tensors(model, build_optimizer(model, OptimizerConfig())) == {}
