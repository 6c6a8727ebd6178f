from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.diffusion.schedule import SCHEDULES, Cosine, Linear, NoiseSchedule, Sqrt, Tan

ALL = pytest.mark.parametrize("schedule", [s() for s in SCHEDULES.values()], ids=list(SCHEDULES))
# Away from the ends, where alpha_bar is held above 1e-6 and below 1 - 1e-6 and has no inverse.
INNER_TIME = st.floats(0.002, 0.995)


@ALL
def test_alpha_bar_falls_from_almost_one_to_almost_zero(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar(t)
    assert alpha_bar.shape == t.shape
    assert ((alpha_bar > 0) & (alpha_bar < 1)).all()
    assert (alpha_bar[:990].diff() < 0).all() and (alpha_bar.diff() <= 0).all()
    assert alpha_bar[0] > 0.98 and alpha_bar[-1] < 1e-4


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_snr_is_finite_to_the_very_ends(schedule: NoiseSchedule, dtype: torch.dtype) -> None:
    log_snr = schedule.log_snr(torch.tensor([0.0, 1e-9, 0.5, 1 - 1e-7, 1.0], dtype=dtype))
    assert log_snr.isfinite().all() and (log_snr.diff() <= 0).all()


@ALL
@given(time=INNER_TIME)
def test_time_is_the_inverse_of_log_snr(schedule: NoiseSchedule, time: float) -> None:
    t = torch.tensor(time, dtype=torch.float64)
    assert schedule.time(schedule.log_snr(t)).item() == pytest.approx(time, abs=1e-9)


@ALL
@given(log_snr=st.floats(-6, 3))
def test_log_snr_is_the_inverse_of_time(schedule: NoiseSchedule, log_snr: float) -> None:
    value = torch.tensor(log_snr, dtype=torch.float64)
    assert schedule.log_snr(schedule.time(value)).item() == pytest.approx(log_snr, abs=1e-6)


@given(time=INNER_TIME, s=st.floats(1e-5, 1e-2), d=st.floats(0.5, 20), beta=st.floats(5, 30))
def test_the_inverse_holds_for_every_parameter(time: float, s: float, d: float, beta: float) -> None:
    t = torch.tensor(time * (1 - s), dtype=torch.float64)
    for schedule in (Sqrt(s), Cosine(s), Linear(beta / 100, beta), Tan(d)):
        assert schedule.time(schedule.log_snr(t)).item() == pytest.approx(t.item(), abs=1e-8)


@ALL
def test_times_beyond_the_ends_are_the_ends(schedule: NoiseSchedule) -> None:
    assert schedule.time(torch.tensor([40.0, -40.0])).tolist() == pytest.approx([0.0, 1.0], abs=2e-4)


def test_closed_forms() -> None:
    t = torch.tensor(0.25, dtype=torch.float64)
    assert Sqrt(0.0).alpha_bar(t).item() == pytest.approx(0.5)
    assert Sqrt().alpha_bar(t * 0).item() == pytest.approx(0.99)  # appendix A: an initial standard deviation of 0.1
    assert Cosine(0.0).alpha_bar(2 * t).item() == pytest.approx(0.5)
    assert Linear(0.0, 8.0).log_snr(t * 2).item() == pytest.approx(-torch.log(torch.expm1(t * 4)).item())
    assert Tan(1.0).log_snr(2 * t).item() == pytest.approx(0.0)
    assert Tan(7.0).alpha_bar(2 * t).item() == pytest.approx(1 / 50)


def test_sqrt_has_the_standard_deviations_of_the_papers_code() -> None:
    # The code multiplies betas 1 - f((i + 1)/T) / f(i/T), and so divides by f(0).
    def sigma(index: int, steps: int) -> float:
        t = torch.tensor([0.0, (index + 1) / steps], dtype=torch.float64)
        clean, alpha_bar = Sqrt().alpha_bar(t)
        return (1 - alpha_bar / clean).sqrt().item()

    published = {0: 0.121, 49: 0.387, 199: 0.556, 499: 0.704, 999: 0.839, 1999: 1.0}
    assert {i: sigma(i, 2000) for i in published} == pytest.approx(published, abs=2e-3)
    assert sigma(0, 200) == pytest.approx(0.249, abs=2e-3)


@ALL
def test_grid_runs_down_from_one_to_zero(schedule: NoiseSchedule) -> None:
    for n in (1, 2, 7, 2000):
        grid = schedule.grid(n)
        assert grid.shape == (n + 1,) and grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()
    # A coarse grid is part of the fine one: fewer steps need no other model.
    assert torch.allclose(schedule.grid(200), schedule.grid(2000)[::10], atol=1e-6)
    assert torch.equal(schedule.grid(4, 0.5), schedule.grid(4).sqrt())
    with pytest.raises(ValueError, match="steps must be at least 1"):
        schedule.grid(0)
    with pytest.raises(ValueError, match=r"times must be above 0"):
        schedule.grid(3, -1.0)
