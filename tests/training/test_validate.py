from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.training.validation import validate


@pytest.fixture
def lm(data, make_config):
    return DiffusionLM.new(make_config().model, data.tokenizer, data.train.length_histogram()).denoiser


def first(encoded, n):
    """A corpus of its first n sentences."""
    return replace(encoded, offsets=encoded.offsets[: n + 1], rows=encoded.rows[:n])


def test_it_is_always_the_same_and_leaves_the_generator_alone(lm, data):
    state = torch.get_rng_state()
    one = validate(lm, data.dev, data.tokenizer.pad_id, None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert validate(lm, data.dev, data.tokenizer.pad_id, None) == one


def test_it_tells_the_loss_by_noise_level_and_the_bound(lm, data):
    values = validate(lm, data.dev, data.tokenizer.pad_id, None)
    levels = [values[f"loss_t{i / 100:.2f}"] for i in range(5, 100, 10)]
    assert values.keys() == {"words", "loss", "bound"} | {f"loss_t{i / 100:.2f}" for i in range(5, 100, 10)}
    assert values["loss"] == values["words"]
    assert min(levels) - 1e-4 <= values["loss"] <= max(levels) + 1e-4
    # A head that is zero says that every word is as likely as any other.
    assert values["loss"] == pytest.approx(torch.tensor(float(data.tokenizer.vocab_size)).log().item(), rel=1e-3)


def test_a_band_that_no_sentence_falls_in_is_left_out(lm, data):
    values = validate(lm, first(data.dev, 3), data.tokenizer.pad_id, None)
    assert [name for name in values if name.startswith("loss_t")] == ["loss_t0.05", "loss_t0.25", "loss_t0.65"]


def test_on_a_canvas_padding_counts(lm, data):
    exact = validate(lm, first(data.dev, 20), data.tokenizer.pad_id, None)
    padded = validate(lm, first(data.dev, 20), data.tokenizer.pad_id, 24)
    assert padded["bound"] != exact["bound"]
