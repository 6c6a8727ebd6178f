"""MAUVE: its area against the closed form, and sets that are equal, alike and disjoint."""

from __future__ import annotations

from math import gamma

import numpy as np
import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.pretrained import curve_area


def test_area_of_equal_and_of_disjoint_histograms() -> None:
    p = np.array([0.5, 0.3, 0.2, 0, 0])
    assert curve_area(p, p) == pytest.approx(1)
    # Disjoint: KL(p | r) = -log w, so the curve is ((1 - w)^c, w^c), and its area c B(c + 1, c).
    for scale in (1.0, 2.0, 5.0):
        exact = scale * gamma(scale + 1) * gamma(scale) / gamma(2 * scale + 1)
        assert curve_area(p, p[::-1] * [0, 0, 0, 1, 1] / 0.8, scale) == pytest.approx(exact, rel=0.03)


def test_area_is_symmetric_and_falls_with_distance() -> None:
    p = np.array([0.6, 0.4, 0.0])
    areas = [curve_area(p, np.array([0.6 - shift, 0.4, shift])) for shift in (0, 0.1, 0.3, 0.6)]
    assert areas == sorted(areas, reverse=True) and areas[0] == pytest.approx(1)
    q = np.array([0.1, 0.5, 0.4])
    assert curve_area(p, q) == pytest.approx(curve_area(q, p))


def test_mauve_of_sets_of_features() -> None:
    pytest.importorskip("sklearn")
    from diffusion_lm.evaluation.pretrained import mauve

    generator = torch.Generator().manual_seed(0)
    # Directions of two clusters: lengths do not count.
    a, b, c = (torch.randn(120, 8, generator=generator) * 0.1 for _ in range(3))
    a[:, 0], b[:, 0], c[:, 1] = 1, 1, 1
    assert mauve(a, a) == pytest.approx(1)
    assert mauve(a, 3 * a) == pytest.approx(1)
    assert mauve(a, b) > 0.8
    assert mauve(a, c) < 0.01
    assert mauve(a, b, seed=3) == mauve(a, b, seed=3)
    assert 0.01 < mauve(a, torch.cat([b[:60], c[:60]])) < mauve(a, b)


def test_few_and_repeated_texts_are_no_error() -> None:
    pytest.importorskip("sklearn")
    from diffusion_lm.evaluation.pretrained import mauve

    one = torch.ones(3, 4)
    assert mauve(one, one) == pytest.approx(1)
    assert mauve(one, -one) < 0.01
    with pytest.raises(UserError, match="at least one text"):
        mauve(one, one[:0])
