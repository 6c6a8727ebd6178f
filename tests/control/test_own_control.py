"""The control that docs/controls.md shows is run from that page."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "controls.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_the_control_of_the_documentation_works():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), re.DOTALL)
    assert len(code.splitlines()) <= 40
    namespace = {"__name__": "page"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    assert namespace["ShortWords"](7).success(namespace["texts"]).tolist() == [1.0] * 4
