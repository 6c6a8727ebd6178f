from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusion_lm.model.denoiser import Denoiser, ModelConfig

MakeNet = Callable[..., Denoiser]


@pytest.fixture
def make_net() -> MakeNet:
    """A tiny network over 20 tokens whose every weight is random, so that nothing is hidden by zeros."""

    def make(**settings: Any) -> Denoiser:
        shape = {"width": 16, "layers": 2, "heads": 2, "embedding_dim": 4, "max_length": 12}
        net = Denoiser(ModelConfig(**{**shape, **settings}), 20)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))
        return net.eval()

    return make
