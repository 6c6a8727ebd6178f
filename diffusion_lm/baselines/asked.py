"""Which controls a target asks for: a writer is given the target alone, and its form says the task."""

from __future__ import annotations

import re
from typing import Any

from diffusion_lm.evaluation.sentence_targets import SentenceTarget
from diffusion_lm.evaluation.targets import AttributeTarget
from diffusion_lm.evaluation.tasks import Composed

_SPAN = re.compile(r"\d+:\d+:\S")


def asked_of(target: Any) -> dict[str, Any]:
    """The target of each single control that a target of `evaluation.tasks` is made of, by the name of its task.

    Args:
        target: an attribute, a number of words, or a sentence's tags, tree or spans, each written as its flag takes it;
            or one of these together with an attribute; "" asks for nothing.
    """
    if isinstance(target, Composed):
        return asked_of(target.sentence) | asked_of(target.attribute)
    if isinstance(target, AttributeTarget):
        return {"attribute": target}
    if isinstance(target, int):
        return {"length": target}
    if isinstance(target, SentenceTarget):
        if target.value.startswith("("):
            return {"tree": target}
        return {"span" if _SPAN.match(target.value) else "pos": target}
    return {}
