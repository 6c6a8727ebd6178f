"""How figures are written."""

from __future__ import annotations

import math

DASH = "–"
"""A cell whose figure was not measured."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a number of percent; what is not all of it is never rounded to 100."""
    if share is None:
        return DASH
    scale = 10**digits
    value = round(100 * share * scale) / scale
    if value >= 100 and share < 1:
        value = math.floor(100 * share * scale) / scale
    return f"{value:.{digits}f}"


def number(value: float | None, form: str) -> str:
    """A figure in a format; a dash where it was not measured."""
    return DASH if value is None else signed(form.format(value))


def signed(text: str) -> str:
    """With the minus sign of typography, as wide as the plus."""
    return text.replace("-", "−")
