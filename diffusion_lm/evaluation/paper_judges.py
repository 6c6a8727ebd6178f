"""From texts to their paper-compatible success: the pure functions of `paper_success` with the annotators that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.control.pos import spacy_tagger
from diffusion_lm.control.span import Span
from diffusion_lm.control.tree import our_parser
from diffusion_lm.evaluation import paper_success
from diffusion_lm.evaluation.rows import words_of
from diffusion_lm.evaluation.sentence_targets import SentenceTarget
from diffusion_lm.evaluation.targets import AttributeTarget


def _attribute(target: AttributeTarget, texts: Sequence[str]) -> list[float]:
    value = words_of(target.value)
    return [paper_success.attribute(value, words_of(text)) for text in texts]


def _pos(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    wanted = target.value.split()
    tags = spacy_tagger().tag([words_of(text) for text in texts])
    return [paper_success.pos(wanted, found) for found in tags]


def _tree(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    wanted = read_tree(target.value)
    length = len(wanted.leaves())
    trees = our_parser().parse([paper_success.fitted(words_of(text), length) for text in texts])
    return [paper_success.tree(wanted, found) for found in trees]


def _span(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    return Span(target.value).success(texts).tolist()


def _length(target: int, texts: Sequence[str]) -> list[float]:
    return [paper_success.length(target, words_of(text)) for text in texts]


PAPER_JUDGES: dict[str, Callable[[Any, Sequence[str]], list[float]]] = {
    "attribute": _attribute,
    "pos": _pos,
    "tree": _tree,
    "span": _span,
    "length": _length,
}
"""(target, texts) to the success of each text in [0, 1], by the name of the task; infilling has none."""
