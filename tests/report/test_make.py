from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.report.page import ReportConfig, make_report
from diffusion_lm.report.samples import samples, spread

VOID = {"meta", "br", "path", "use", "rect", "stop"}


class Nested(HTMLParser):
    """Sees that every element is closed, and collects what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def folders(runs: Any) -> list[str]:
    texts = [runs.text("length", "9", f"A <pub> & {i}.", float(i > 0)) for i in range(3)]
    row = runs.row("ours", "length", success=0.97, success_interval=[0.9, 1.0], nats_per_token=None)
    steps = [{"t": 1.0, "texts": ["A pub."]}, {"t": 0.0, "texts": ["The pub."]}]
    return [
        runs.evaluation("length", row, texts=tuple(texts)),
        runs.extra("trace", "trace.json", {"title": "a *trace*", "steps": steps}),
    ]


def test_one_page_that_needs_no_other(folders: list[str], tmp_path: Path) -> None:
    html, markdown = make_report(ReportConfig(folders, out=str(tmp_path / "out")))
    page = html.read_text(encoding="utf-8")
    parser = Nested()
    parser.feed(page)
    assert parser.open == [] and parser.loaded == []
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    assert "A &lt;pub&gt; &amp; 0." in page and "prefers-color-scheme" in page
    assert 'class="miss"' in page and str(tmp_path) not in page
    text = markdown.read_text(encoding="utf-8")
    assert r"✗ A \<pub\> & 0." in text and "| paper: FUDGE |" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links == ["img/success.png"]
    assert all((markdown.parent / link).is_file() for link in links)


def test_into_rewrites_a_file_in_place(folders: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    into = tmp_path / "docs" / "results.md"
    into.parent.mkdir()
    sections = ("trace", "table7", "success")
    markers = [f"<!-- report:{name} -->\nold\n<!-- /report:{name} -->\n" for name in sections]
    into.write_bytes(b"# Ours\r\n\nProse.\n" + "\n".join(markers).encode())
    make_report(ReportConfig(folders, out=str(tmp_path / "out"), into=str(into)))
    text = into.read_bytes().decode()
    assert text.startswith("# Ours\r\n\nProse.\n<!-- report:trace -->\n") and "old" not in text
    assert "| 1.00 | A **pub.** |" in text and r"a \*trace\*" in text
    assert "None of the runs measured this." in text and "'table7'" in caplog.text
    assert "](img/report/success.png)" in text
    assert [path.name for path in (into.parent / "img" / "report").iterdir()] == ["success.png"]


@pytest.mark.parametrize("content", ["<!-- report:table3 -->\n", "<!-- report:table2 -->\n", None])
def test_nothing_is_written_where_the_markers_are_wrong(runs: Any, tmp_path: Path, content: str | None) -> None:
    into = tmp_path / "results.md"
    if content is not None:
        into.write_text(content)
    folder = runs.extra("a", "likelihood.json", {"system": "ours", "nats_per_token": 1.8})
    with pytest.raises(UserError, match=r"results\.md"):
        make_report(ReportConfig([folder], out=str(tmp_path / "out"), into=str(into)))
    assert not (tmp_path / "out").exists() and (content is None or into.read_text() == content)


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


def test_samples_hold_the_worst_and_the_best(runs: Any) -> None:
    from diffusion_lm.report.data import collect, read_run

    texts = [runs.text("pos", str(t), f"{t} {s}", s * t / 10) for t in range(10) for s in (1.0, 0.5, 0.0)]
    found = collect([read_run(runs.evaluation("a", runs.row("ours", "pos"), texts=tuple(texts)))])
    (each,) = samples(found)
    assert [sample.target for sample in each.targets] == ["0", "4", "9"]
    assert [text.text for text in each.targets[2].texts] == ["9 0.0", "9 1.0"]


def test_spread_keeps_both_ends() -> None:
    assert spread(range(10), 3) == [0, 4, 9] and spread(range(2), 3) == [0, 1] and spread(range(5), 1) == [0]
