from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.report.page import ReportConfig, make_report, rewrite
from diffusion_lm.report.tables import escape

HOSTILE = "A <script>alert('x')</script> & [b](javascript:c) | *d* `e` &lt; pub."


class Seen(HTMLParser):
    """Sees that every element is closed, and collects elements, what would be loaded from elsewhere, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folders(runs: Any) -> list[str]:
    texts = runs.obeying("ours", "length", 0.0, 1.0)
    texts[0]["text"] = HOSTILE
    steps = [{"t": 1.0, "texts": ["A pub."]}, {"t": 0.0, "texts": ["The pub."]}]
    return [
        runs.evaluation(
            "length", *texts, runs.text("ours", "unconditional", text="# Pub."), hardware=["a CPU", "a GPU"]
        ),
        runs.extra("trace", "trace.json", {"title": "a *trace*", "steps": steps}),
        runs.extra("time", "time.json", {"ours": {"making": 60, "measuring": 60}}),
    ]


def test_one_page_that_needs_no_other_and_holds_all_that_was_measured(folders: list[str], tmp_path: Path) -> None:
    html, markdown = make_report(ReportConfig(folders, out=str(tmp_path / "out")))
    page = html.read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(page)
    assert seen.open == [] and all(link.startswith("data:image/svg+xml;base64,") for link in seen.loaded)
    assert not re.search(r"url\(|@import", page) and str(tmp_path) not in page
    assert page.count("<script>") == 1 and f"✗ {HOSTILE}" in seen.text and "# Pub." in seen.text
    titles = re.findall(r'<h2>(.*?)</h2>|<section aria-label="(.*?)">', page)
    assert [title or question for title, question in titles] == [
        "How good?", "One control at a time", "Success by task", "Success against fluency", "How varied?", "Free text",
        "How fast?", "Success against cost", "What it took", "Look at texts", "Out of the noise", "Texts",
        "Texts beside what was asked",
    ]  # fmt: skip
    assert page.count("<table>") == 6 and page.count("<img") == 3
    text = markdown.read_text(encoding="utf-8")
    assert "beside what was asked" not in text
    assert text.split("\n\n")[1] == "Measured on a CPU; a GPU."
    links = re.findall(r"\]\((img/[^)]+)\)", text)
    assert links == ["img/success.png", "img/fluency.png", "img/cost.png"]
    assert all((markdown.parent / link).is_file() for link in links) and not re.search(r"(?<!\\)<", text)


@pytest.mark.parametrize(
    "text",
    [HOSTILE, "1. Pub", "- Pub", "# Pub", "> Pub", "~~~", "=====", "a\n\nb", r"\*a\*", "+ a", "    code", "&amp;"],
)
def test_what_is_escaped_is_shown_as_it_is(text: str) -> None:
    seen = Seen()
    seen.feed(MarkdownIt("commonmark", {"html": False}).enable("table").render(f"- {escape(text)}"))
    assert seen.text.strip() == " ".join(text.split()) and seen.tags == {"ul", "li"}


def test_into_rewrites_a_file_in_place(folders: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    into = tmp_path / "docs" / "results.md"
    into.parent.mkdir()
    markers = [f"<!-- report:{name} -->\nstale\n<!-- /report:{name} -->\n" for name in ("trace", "table7", "success")]
    into.write_bytes(b"# Ours\r\n\nProse.\n" + "\n".join(markers).encode())
    make_report(ReportConfig(folders, out=str(tmp_path / "out"), into=str(into)))
    text = into.read_bytes().decode()
    assert text.startswith("# Ours\r\n\nProse.\n<!-- report:trace -->\n") and "stale" not in text
    assert "| 1.00 | A **pub.** |" in text and "None of the runs measured this." in text and "'table7'" in caplog.text
    assert [path.name for path in (into.parent / "img" / "report").iterdir()] == ["success.png"]


PROSE = (
    "# Results\n\n<!-- report:table2 -->\nstale\n<!-- /report:table2 -->\nProse.\r\n\n"
    "  <!--report:free-->\n<!--/report:free-->"
)


def test_only_what_stands_between_markers_changes() -> None:
    known = {"table2": r"new \1", "free": "free"}
    new = rewrite(PROSE, "x.md", known)
    assert new == (
        "# Results\n\n<!-- report:table2 -->\n\nnew \\1\n\n<!-- /report:table2 -->\nProse.\r\n\n"
        "  <!--report:free-->\n\nfree\n\n<!--/report:free-->"
    )
    assert rewrite(new, "x.md", known) == new
    inline = "Put `<!-- report:nonsense -->` there.\n<!-- report:free -->\n<!-- /report:free -->"
    assert rewrite(inline, "x.md", known).startswith("Put `<!-- report:nonsense -->` there.")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<!-- report:table3 -->\n<!-- /report:table3 -->", "'table3'"),
        ("\n<!-- report:free -->", "'free'"),
        ("<!-- /report:free -->\n<!-- report:free -->", "'free'"),
        ("<!-- report:free -->\n<!-- report:table2 -->\n<!-- /report:table2 -->\n<!-- /report:free -->", "'table2'"),
        ("<!-- report:free -->\n<!-- /report:free -->\n" * 2, "'free'"),
        ("prose", "no marker"),
        (None, "cannot be read"),
    ],
)
def test_nothing_is_written_where_the_markers_are_wrong(
    runs: Any, tmp_path: Path, text: str | None, named: str
) -> None:
    into = tmp_path / "results.md"
    if text is not None:
        into.write_text(text)
    folder = runs.extra("a", "likelihood.json", {"system": "ours", "nats_per_token": 1.8})
    with pytest.raises(UserError, match=rf"results\.md.*{named}"):
        make_report(ReportConfig([folder], out=str(tmp_path / "out"), into=str(into)))
    assert not (tmp_path / "out").exists() and (text is None or into.read_text() == text)


def test_the_command_takes_folders_without_a_flag(
    runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [runs.extra(name, "likelihood.json", {"system": name, "nats_per_token": 1.8}) for name in "ab"]
    assert main(["report", folders[0], "--out", str(tmp_path / "out"), folders[1]]) == 0
    assert "index.html" in capsys.readouterr().out
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| a | – | 1.800 |" in text and "| b | – | 1.800 |" in text
    assert main(["report"]) == 2 and "runs" in capsys.readouterr().err


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least one folder"):
        ReportConfig([])
