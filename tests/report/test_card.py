"""The card of a model with what was measured of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from diffusion_lm.common import UserError
from diffusion_lm.report.card import CardConfig, make_card
from tests.report.conftest import Runs


def test_a_card_has_the_numbers_beside_human_text(runs: Runs, tmp_path: Path) -> None:
    texts = [runs.text("ours", "unconditional", text="A pub."), *runs.obeying("ours", "length", 1.0, 0.5)]
    folder = runs.evaluation("run", *texts)
    path = make_card(CardConfig("e2e-small", [folder], name="ann/pubs", out=str(tmp_path / "new" / "README.md")))
    card = ModelCard.load(path)
    (result,) = {
        (each.metric_type, each.metric_value) for each in card.data.eval_results if "success" in each.metric_type
    }
    assert result == ("length success %", 0.75)
    assert "| human (dev), as written | 1.600 |" in card.text and "| length | 1.700 | +0.100 | 75.0 |" in card.text
    assert 'from_pretrained("ann/pubs")' in card.text and "E2E" in card.text


def test_without_a_run_a_card_says_so(tmp_path: Path) -> None:
    text = make_card(CardConfig("e2e-small", out=str(tmp_path / "card.md"))).read_text(encoding="utf-8")
    assert "Nothing is said here" in text and "| vocabulary | 826 tokens |" in text
    with pytest.raises(UserError, match="is a folder"):
        CardConfig("e2e-small", out=str(tmp_path))
