from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXTS = ["the cat sat on the mat .", "a dog sat on a cat .", "the mat is red ."]

MakeLM = Callable[..., DiffusionLM]


@pytest.fixture
def make_lm() -> MakeLM:
    """A tiny model whose every weight is random, so that nothing is hidden by zeros."""

    def make(**settings: Any) -> DiffusionLM:
        shape = {"width": 16, "layers": 2, "heads": 2, "embedding_dim": 4, "max_length": 12}
        lm = DiffusionLM.new(ModelConfig(**{**shape, **settings}), build_word_tokenizer(TEXTS, 1), torch.ones(13))
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))
        return lm.eval()

    return make
