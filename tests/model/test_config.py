from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.model.denoiser import SIZES, ModelConfig


def test_a_size_is_a_shape_and_each_number_can_be_set_alone() -> None:
    assert ModelConfig(size="base").shape == (768, 12, 12) == SIZES["base"]
    assert ModelConfig(size="tiny", layers=3).shape == (128, 3, 2)
    assert ModelConfig(size="tiny", width=64, heads=8).shape == (64, 4, 8)


def test_the_canvas_is_there_only_in_the_padded_layout() -> None:
    assert ModelConfig(layout="padded", max_length=64).canvas == 64
    assert ModelConfig(layout="exact", max_length=64).canvas is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100, "heads": 3}, "width 100 is not a multiple of the number of heads, 3"),
        ({"objective": "cross_entropy", "prediction": "eps"}, "take --model.objective simple"),
        ({"max_length": 2}, "at least 3, not 2"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        ModelConfig(**settings)
    assert "\n" not in str(refused.value)


def test_a_config_survives_its_own_dictionary() -> None:
    config = ModelConfig(size="base", objective="simple", prediction="eps", norm="post", dropout=0.1)
    assert ModelConfig(**asdict(config)) == config
