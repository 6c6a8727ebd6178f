from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffusion_lm.diffusion.process import diffuse
from diffusion_lm.model.denoiser import EpsHead, Head, LogitHead, X0Head

B, L, D, V, H = 2, 3, 4, 11, 8


def randomized(head: Head) -> Head:
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    alpha_bar = torch.tensor([0.3, 0.8]).reshape(B, 1, 1)
    return torch.randn(B, L, H), torch.randn(B, L, D), alpha_bar, torch.randn(V, D)


def test_an_untrained_network_says_nothing() -> None:
    hidden, z, alpha_bar, vectors = inputs()
    prediction = LogitHead(H, V, 99.0)(hidden, z, alpha_bar, vectors)
    assert torch.equal(prediction.logits, torch.zeros(B, L, V))
    assert torch.allclose(prediction.x0, vectors.mean(0).expand(B, L, D), atol=1e-6)


def test_x0_of_words_is_their_average() -> None:
    hidden, z, alpha_bar, vectors = inputs()
    said = randomized(LogitHead(H, V, 99.0))(hidden, z, alpha_bar, vectors)
    assert said.logits is not None
    assert torch.allclose(said.x0, said.logits.softmax(-1) @ vectors)
    assert said.x0 is said.x0  # taken once


@pytest.mark.parametrize("kind", [X0Head, EpsHead])
def test_words_of_the_papers_heads_come_from_their_x0(kind: type[X0Head] | type[EpsHead]) -> None:
    hidden, z, alpha_bar, vectors = inputs()
    head = randomized(kind(H, D, V))
    said = head(hidden, z, alpha_bar, vectors)
    x0, logits = said.x0, said.logits
    assert x0.shape == (B, L, D)
    assert torch.equal(logits, head.rounding_logits(x0, vectors))
    assert torch.allclose(logits, x0 @ vectors.T + head.bias)


def test_eps_and_x0_heads_that_know_the_noise_say_the_same() -> None:
    hidden, noise, alpha_bar, vectors = inputs()
    x0 = torch.randn(B, L, D)
    z = diffuse(x0, alpha_bar, noise)
    x0_head, eps_head = X0Head(H, D, V), EpsHead(H, D, V)
    x0_head.out, eps_head.out = Constant(x0), Constant(noise)  # type: ignore[assignment]
    for head in (x0_head, eps_head):
        assert torch.allclose(head(hidden, z, alpha_bar, vectors).x0, x0, atol=1e-5)


class Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return self.value


@pytest.mark.parametrize("head", [LogitHead(H, V, 99.0), X0Head(H, D, V), EpsHead(H, D, V)])
def test_predictions_are_float32_under_autocast(head: Head) -> None:
    hidden, z, alpha_bar, vectors = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = head(hidden.bfloat16(), z, alpha_bar, vectors)
    assert prediction.x0.dtype == torch.float32
    assert prediction.logits is not None
