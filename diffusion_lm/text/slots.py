"""How values of E2E's fields are said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from diffusion_lm.text.fields import says


class SlotErrors(NamedTuple):
    """Stub."""

    missing: int
    added: int


def phrases(field: str, value: str) -> list[str]:
    """Stub."""
    return [value]


def slot_errors(fields: Mapping[str, str], text: str) -> SlotErrors:
    """Stub."""
    return SlotErrors(sum(not says(text, value) for value in fields.values()), 0)
