from __future__ import annotations

import torch
from torch import nn

from diffusion_lm.fit import OptimizerConfig, build_optimizer
from diffusion_lm.training.trainer import load_optimizer_tensors, optimizer_tensors


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, ids):
        return self.linear(self.embedding(ids)).square().mean()


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
