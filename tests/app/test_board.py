"""Sentences, what still changes in them, and verdicts."""

from __future__ import annotations

from html import unescape

import pytest

from diffusion_lm.app import board
from diffusion_lm.app.board import Verdict
from diffusion_lm.control import Infill, Keyword, Length

NASTY = "<script>alert(1)</script> & \"quotes\" 'too'"


@pytest.mark.parametrize(
    ("text", "other", "shown"),
    [
        ("The pub is good.", "The pub is good.", "The pub is good."),
        ("The pub is good.", "The bar is bad.", "The <i>pub</i> is <i>good.</i>"),
        ("The pub", "", "<i>The pub</i>"),
        ("", "The pub", ""),
        ("a <b> c", "a x c", "a <i>&lt;b&gt; c</i>"),
    ],
)
def test_words_that_change_are_marked(text: str, other: str, shown: str) -> None:
    assert board.settling(text, other) == shown


def test_each_control_has_a_verdict_on_each_text() -> None:
    control = Keyword("pub") & Length(3) & Infill("The ___.")
    good, bad = board.verdicts_of(control, ["The pub.", "A bar is here"])
    assert good == [Verdict("keyword", "pub", 1), Verdict("length", "3", 1), Verdict("infill", "The ___.", 1)]
    assert [verdict.success for verdict in bad] == [0, 0, 0]
    assert board.verdicts_of(None, ["a", "b"]) == [[], []]


def test_a_table_has_a_tick_or_a_cross_for_each_verdict() -> None:
    shown = board.table(["one", "two"], [[Verdict("pos", "DET", 1)], [Verdict("pos", "DET", 0.999)]], caption="Two.")
    assert shown.count("✓") == 1 and shown.count("✗") == 1
    assert "99 %" in shown and "100 %" not in shown and "<caption>Two.</caption>" in shown
    assert shown.index("one") < shown.index("✓") < shown.index("two") < shown.index("✗")


def test_what_people_and_models_write_is_text() -> None:
    for shown in (
        board.settling(NASTY, "x"),
        board.problem(NASTY),
        board.note(NASTY),
        board.table(["a"], [[Verdict(NASTY, NASTY, 0.5)]], caption=NASTY),
    ):
        assert "<script" not in shown and "&lt;script&gt;" in shown
    assert NASTY in unescape(board.problem(NASTY))
