from __future__ import annotations

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.report.page import marked, rewrite

KNOWN = ["table2", "free"]
PROSE = "# Results\n\n<!-- report:table2 -->\nold\n<!-- /report:table2 -->\nProse.\r\n\n  <!--report:free-->\n<!--/report:free-->"


def test_only_what_stands_between_markers_changes() -> None:
    assert marked(PROSE, "x.md", KNOWN) == ["table2", "free"]
    new = rewrite(PROSE, lambda name: f"new {name}")
    assert new == (
        "# Results\n\n<!-- report:table2 -->\n\nnew table2\n\n<!-- /report:table2 -->\nProse.\r\n\n"
        "  <!--report:free-->\n\nnew free\n\n<!--/report:free-->"
    )
    assert rewrite(new, lambda name: f"new {name}") == new


def test_markers_in_a_line_of_prose_are_prose() -> None:
    text = "Put `<!-- report:nonsense -->` there.\n<!-- report:free -->\n<!-- /report:free -->"
    assert marked(text, "x.md", KNOWN) == ["free"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- report:table3 -->", "Line 1 of x.md has a marker of 'table3'.*the sections are table2, free"),
        ("\n<!-- report:free -->", "x.md does not close 'free'"),
        (
            "<!-- report:free -->\n<!-- report:table2 -->",
            "Line 2 .* opens 'table2', but 'free' is not closed",
        ),
        ("<!-- /report:free -->", "Line 1 .* closes 'free', which is not open"),
        ("<!-- report:free -->\n<!-- /report:free -->\n" * 2, "opens 'free' a second time"),
        ("prose", "x.md has no marker"),
    ],
)
def test_markers_that_do_not_match_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        marked(text, "x.md", KNOWN)
