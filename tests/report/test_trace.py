from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.report.samples import MOST_STEPS, traces_of
from diffusion_lm.text.tokenizer import build_word_tokenizer


def test_words_are_settled_where_they_are_the_last_ones() -> None:
    steps = [{"t": 1.0, "texts": ["A the, is."]}, {"t": 0.0, "texts": ["The pub, is cheap."]}]
    (trace,) = traces_of({"title": "x", "steps": steps})
    (_, first), (_, last) = trace.steps
    assert [(word.text, word.settled) for word in first] == [
        ("A", False), (" the", False), (",", True), (" is", True), (".", False),
    ]  # fmt: skip
    assert all(word.settled for word in last) and "".join(w.text for w in last) == "The pub, is cheap."


def test_what_the_callback_of_a_generation_sees_makes_a_trace() -> None:
    tokenizer = build_word_tokenizer(["The pub is cheap.", "The pub is near."], min_count=1)
    counts = torch.zeros(9)
    counts[5:7] = 1
    lm = DiffusionLM.new(ModelConfig(width=8, layers=1, heads=2, embedding_dim=4, max_length=8), tokenizer, counts)
    steps: list[dict[str, Any]] = []

    def watch(step: Step) -> None:
        marks = (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id)
        texts = [tokenizer.decode(i for i in ids if i not in marks) for ids in step.ids.tolist()]
        steps.append({"t": step.t, "texts": texts})

    lm.generate(2, steps=20, seed=0, callback=watch)
    traces = traces_of({"title": "tiny", "steps": steps})
    assert [trace.title for trace in traces] == ["tiny, sentence 1", "tiny, sentence 2"]
    times = [t for t, _ in traces[0].steps]
    assert len(times) == MOST_STEPS and times == sorted(times, reverse=True)
    assert "".join(word.text for word in traces[0].steps[-1][1]) == steps[-1]["texts"][0]


@pytest.mark.parametrize("record", [{}, {"steps": []}, {"steps": [{"t": 1.0}]}, {"steps": 3}])
def test_another_layout_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"A trace\.json holds"):
        traces_of(record)
