"""What visitors can ask of each model, and what their inputs mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from diffusion_lm.app.offers import Offer, fields_of
from diffusion_lm.common import UserError
from diffusion_lm.control import CONTROLS, Attribute, Keyword, Prompt, Said
from diffusion_lm.generation.pipeline import bundled_models
from diffusion_lm.text.fields import FIELDS


def test_the_bundled_models_are_offered_and_no_other(offered: Mapping[str, Offer]) -> None:
    assert set(offered) == set(bundled_models())
    assert next(iter(offered)) == "e2e-small"
    assert set(fields_of(offered.values())) == set(FIELDS)
    assert {*offered["e2e-small"].lines, "attribute", "data2text"} == set(CONTROLS)
    assert "Japanese" in offered["e2e-given"].menus["food"]


def test_menus_are_attributes_or_a_prompt(offered: Mapping[str, Offer]) -> None:
    chosen = {"food": "Japanese", "area": "", "price": None, "colour": "red"}
    small, given = offered["e2e-small"], offered["e2e-given"]
    assert small.request("e2e-small", 1, chosen, {}).control() == Said("food", "Japanese")
    assert small.request("e2e-small", 1, chosen, {}, exact=False).control() == Attribute("food", "Japanese")
    chosen["name"] = "The Punter"
    assert given.request("e2e-given", 1, chosen, {}, must_say=True).control() == Prompt(
        "name = The Punter, food = Japanese", must_say=True
    )
    assert given.request("e2e-given", 1, {}, {}, must_say=True).control() is None


def test_lines_are_values_of_controls(offered: Mapping[str, Offer]) -> None:
    lines = {"keyword": " riverside , kid  friendly,", "avoid": " ", "length": "12", "data2text": "name = Aromi"}
    request = offered["e2e-small"].request("e2e-small", 2.0, {}, lines, quality="best", steps=0, temperature=0, seed=5)
    assert request.settings.quality == "best" and "--quality best" in request.command()
    assert request.texts == {"keyword": ("riverside", "kid friendly"), "length": ("12",)}
    assert (request.n, request.settings.seed, request.decoding()) == (2, 5, {"quality": "best"})
    assert Keyword("kid friendly") in request.control().parts()


@pytest.mark.parametrize("how", [{"n": 2.5}, {"n": "x"}, {"n": None}, {"n": float("inf")}, {"steps": 1.5}])
def test_numbers_that_are_none_are_refused(offered: Mapping[str, Offer], how: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be a whole number"):
        offered["e2e-small"].request("e2e-small", how.pop("n", 1), {}, {}, **how)
