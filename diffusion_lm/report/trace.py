"""How a sentence comes out of the noise: its words by step, and whether each is already the last one at its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffusion_lm.errors import UserError
from diffusion_lm.report.samples import spread
from diffusion_lm.text.spacing import bare, join_words, split_words

MOST_STEPS, MOST_TEXTS = 12, 3


class Word(NamedTuple):
    """A word with the space before it, and whether it is the final one at its place."""

    text: str
    settled: bool


@dataclass(frozen=True)
class Trace:
    """A sentence by step: time and words."""

    title: str
    steps: Sequence[tuple[float, Sequence[Word]]]


def traces_of(record: Mapping[str, Any]) -> list[Trace]:
    """The first few sentences of a trace.json: {"title": str, "steps": [{"t": float, "texts": [str, ...]}, ...]}.

    Raises:
        UserError: it is laid out otherwise.
    """
    try:
        steps = [(float(step["t"]), list(step["texts"])) for step in record["steps"]]
        title = str(record.get("title", ""))
        count = min(MOST_TEXTS, *(len(texts) for _, texts in steps))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            'A trace.json holds {"title": TEXT, "steps": [{"t": NUMBER, "texts": [TEXT, ...]}, ...]}; '
            f"this one does not ({error})."
        ) from error
    titles = [title if count == 1 else f"{title}, sentence {i + 1}" for i in range(count)]
    return [_trace(name, [(t, texts[i]) for t, texts in steps]) for i, name in enumerate(titles)]


def _trace(title: str, steps: Sequence[tuple[float, str]]) -> Trace:
    last = [bare(word) for word in split_words(steps[-1][1])]
    return Trace(title, [(t, _words(text, last)) for t, text in spread(steps, MOST_STEPS)])


def _words(text: str, last: Sequence[str]) -> list[Word]:
    words = split_words(text)
    joined = [join_words(words[:i]) for i in range(len(words) + 1)]
    return [
        Word(joined[i + 1][len(joined[i]) :], i < len(last) and bare(word) == last[i])
        for i, word in enumerate(words)
    ]
