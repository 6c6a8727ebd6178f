"""Intervals around the figures of a row."""

from __future__ import annotations

import pytest

from diffusion_lm.evaluation.scores import Sample, bootstrap, make_row, nats_interval, nats_per_token


def scored(nats: float, tokens: int, **parts: float) -> Sample:
    return Sample(
        task="",
        target="",
        index=0,
        text="A pub.",
        success=None,
        parts=parts,
        nats=nats,
        tokens=tokens,
        seed=0,
        seconds=None,
        network_evaluations=None,
        config="",
    )


def test_the_bootstrap_covers_the_standard_error_of_a_mean() -> None:
    values = [0.0, 1.0] * 200
    low, high = bootstrap(values, [1] * 400, seed=0) or (0.0, 0.0)
    # 1.96 standard errors of a fair coin that was thrown 400 times.
    assert low == pytest.approx(0.5 - 0.049, abs=0.006) and high == pytest.approx(0.5 + 0.049, abs=0.006)
    assert bootstrap([1.0], [1], seed=0) is None


def test_fluency_is_drawn_anew_by_targets_or_else_by_texts() -> None:
    two = {"a": [scored(2.0, 2)] * 2, "b": [scored(6.0, 2)] * 2}
    assert nats_interval(two, seed=0) == (pytest.approx(1.0), pytest.approx(3.0))
    free = {"": [scored(2.0, 2)] * 50 + [scored(12.0, 4)] * 50}
    low, high = nats_interval(free, seed=0) or (0.0, 0.0)
    mean = nats_per_token(free[""])
    assert mean == pytest.approx(14 / 6) and low < mean < high < 3
    assert nats_interval({"": [scored(2.0, 2)]}, seed=0) is None


def test_each_of_several_controls_has_an_interval() -> None:
    groups = {"a": [scored(2.0, 2, pos=1.0, attribute=0.0)], "b": [scored(2.0, 2, pos=1.0, attribute=1.0)]}
    row = make_row("ours", groups, task="pos+attribute", system="ours", of=2, human=1.0, copies=set(), most=10, seed=0)
    assert row.parts == {"pos": 1.0, "attribute": 0.5}
    assert row.parts_interval == {"pos": (1.0, 1.0), "attribute": (0.0, 1.0)}
