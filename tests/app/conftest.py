"""The page over the bundled models."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from diffusion_lm.app.offers import Offer, offers


@pytest.fixture(scope="session")
def offered() -> Mapping[str, Offer]:
    return offers()
