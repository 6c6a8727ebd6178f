"""Nothing that the package reads can run code: no pickle anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffusion_lm

PACKAGE = Path(diffusion_lm.__file__).parent
BANNED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def complaints(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in BANNED)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in BANNED:
                yield f"from {node.module}"
            if node.module == "torch":
                yield from (f"torch.{a.name}" for a in node.names if a.name in ("load", "save"))
        elif isinstance(node, ast.Call):
            called, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "torch.save" or (called == "torch.load" and keywords.get("weights_only") != "True"):
                yield called
            if keywords.get("allow_pickle", "False") != "False":
                yield f"{called}(allow_pickle)"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_pickle(path):
    assert list(complaints(ast.parse(path.read_text(encoding="utf8")))) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)",
     "from torch import load", "np.load(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert list(complaints(ast.parse(source)))
    assert not list(complaints(ast.parse("torch.load(f, weights_only=True); np.load(f)")))
