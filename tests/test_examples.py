"""The examples and the notebook run as they are, each in a namespace of its own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_the_notebook_runs_and_is_kept_without_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [c for c in json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    names: dict[str, object] = {}
    for i, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {i}", "exec"), names)
        assert capsys.readouterr().out and not cell["outputs"]
