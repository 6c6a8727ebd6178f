"""A request while it is written."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from diffusion_lm.app.offers import Offer
from diffusion_lm.app.request import Request
from diffusion_lm.app.writing import FAILED, Result, write
from diffusion_lm.common import UserError
from diffusion_lm.control import Keyword
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.settings import SamplingConfig


@pytest.fixture(scope="module")
def lm(offered: Mapping[str, Offer]) -> DiffusionLM:
    return offered["e2e-small"].lm


def request(steps: int = 6, **texts: tuple[str, ...]) -> Request:
    return Request("e2e-small", 2, texts, SamplingConfig(steps=steps, seed=4))


def test_steps_come_and_then_the_sentences_that_generate_gives(lm: DiffusionLM) -> None:
    *moments, result = write(lm, request(keyword=("riverside",)), 60)
    assert isinstance(result, Result) and result.texts == list(lm.generate(2, Keyword("riverside"), steps=6, seed=4))
    assert moments and all(isinstance(each, str) and "still change" in each for each in moments)
    assert len(result.frames) == 6 and "Step 1 of 6" in result.frames[0] and result.frames[-1].count("✓") == 2
    assert len(result.trees) == 2 and all("<svg" in tree for tree in result.trees)


def test_what_cannot_be_done_is_the_librarys_own_sentence(lm: DiffusionLM) -> None:
    with pytest.raises(UserError, match="'zebra' in The keyword 'zebra': not in the model's vocabulary"):
        list(write(lm, request(keyword=("zebra",)), 60))


def test_time_is_bounded(lm: DiffusionLM) -> None:
    with pytest.raises(UserError, match=r"took more than 0.05 seconds; ask for fewer"):
        list(write(lm, request(steps=200), 0.05))


def test_who_leaves_stops_the_writing(lm: DiffusionLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    generate = DiffusionLM.generate

    def counted(self: DiffusionLM, *args: object, callback, **options: object) -> object:
        return generate(self, *args, callback=lambda step: (seen.append(step.index), callback(step)), **options)

    monkeypatch.setattr(DiffusionLM, "generate", counted)
    left = write(lm, request(steps=200), 60)
    next(left)
    left.close()
    assert len(seen) < 100
    assert isinstance(list(write(lm, request(steps=2), 60))[-1], Result)


def test_a_fault_of_ours_shows_no_traceback(lm: DiffusionLM, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def fail(self: DiffusionLM, *args: object, **options: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(DiffusionLM, "generate", fail)
    with pytest.raises(UserError, match=FAILED):
        list(write(lm, request(), 60))
    assert "secret path" in caplog.text
