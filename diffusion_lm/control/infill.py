"""Text around gaps: the context is kept, the gaps are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Blank, Canvas, Piece
from diffusion_lm.control.control import Control, Target, Ways, words_of_record
from diffusion_lm.control.language import check_known, known_words
from diffusion_lm.control.program import Host, Program
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import join_words, split_words, threes, words_of

BLANK = "___"
_BLANK = re.compile(r"_{3,}(?:\{(\d+)\})?")
SLOTS = 10
"""Of a gap in the padded layout (paper section 6.2)."""
_MOST_DIGITS = 4
_LEAST_WORDS = 8
"""Of a sentence that a gap is drawn in."""
_KEYS = (("left", "right", "references"), ("obs1", "obs2", "gold_labels"))
"""The keys of a target: ours, and those of aNLG (Bhagavatula et al. 2020)."""


@final
@dataclass(frozen=True)
class Infill(Control, name="infill"):
    """A template such as "The Punter ___ riverside.": each `___` is one word or more, `___{3}` exactly three.

    How many is drawn, by the model where it says how long gaps are, else so that the sentence's length follows the corpus. In the
    padded layout a gap has ten slots, as in the paper (section 6.2), each a word or PAD.
    """

    help = 'A sentence with blanks, "The Punter ___ riverside.": ___ is any number of words, ___{3} is three.'
    prompts_are_texts = True
    example = '{"left": "Ann was late.", "right": "She missed it.", "references": ["She ran to the bus."]}'
    template: str
    unknown: bool = False
    """Whether a word of the context that the model lacks is read as UNK, as the paper does, and not refused."""

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        if not _BLANK.search(self.template):
            raise UserError(f"The infill {self.template!r} has no blank; write ___ where words are wanted.")
        pieces: list[Piece] = []
        for context, blank in self._pieces():
            unknown = host.tokenizer.unknown_words(context)
            if unknown and not self.unknown:
                check_known(unknown, known_words(host), "the infill")
            slots = [replace(each, words=each.words or SLOTS) if host.padded else each for each in blank]
            pieces += [tuple(host.tokenizer.encode(context)), *slots]
        template = tuple(piece for piece in pieces if piece != ())
        return [Program(canvas.with_template(template)) for canvas in canvases]

    def _pieces(self) -> Iterator[tuple[str, list[Blank]]]:
        """The text before each blank and the blank; the last text has none."""
        position = 0
        for blank in _BLANK.finditer(self.template):
            digits = blank[1]
            if digits and (len(digits) > _MOST_DIGITS or int(digits) == 0):
                shown = digits if len(digits) <= _MOST_DIGITS else f"{digits[:_MOST_DIGITS]}..."
                raise UserError(f"A blank of {shown} words is out of range; write ___{{1}} or more, or leave it out.")
            yield self.template[position : blank.start()], [Blank(int(digits) if digits else None)]
            position = blank.end()
        yield self.template[position:], []

    def success(self, texts: Sequence[str]) -> Tensor:
        """1 where the words of the context stand in order around blanks of the right size, [B]; spacing does not count."""
        return torch.tensor([float(self._is_context_of(words_of(text))) for text in texts])

    def _is_context_of(self, words: list[str]) -> bool:
        ends = {0}  # how many words the template up to here can take up
        for context, blank in self._pieces():
            given = words_of(context)
            ends = {end + len(given) for end in ends if words[end : end + len(given)] == given}
            for gap in blank:
                first = min(ends, default=len(words)) + 1
                ends = {end + gap.words for end in ends} if gap.words else set(range(first, len(words) + 1))
        return len(words) in ends

    @classmethod
    def of_target(cls, target: Target, ways: Ways) -> Control:  # noqa: D102
        return cls(target.value, unknown=True)

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        return f"any number of blanks{f', of up to {SLOTS} words each' if host.padded else ''}"

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """What stands left and right of a gap, and what people wrote into it, where that is known; one side may be empty."""
        record = record if isinstance(record, dict) else {}
        keys = next((keys for keys in _KEYS if keys[0] in record), _KEYS[0])
        left, right, references = (record.get(key) for key in keys)
        if not isinstance(left, str) or not isinstance(right, str) or not (left.strip() or right.strip()):
            raise ValueError(f"it has no text under the keys {keys[0]} and {keys[1]}")
        if BLANK in left + right:
            raise ValueError(f"its context holds {BLANK}, which stands for the gap")
        texts = references if isinstance(references, list) else []
        if references is not None and not (texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise ValueError(f"it has no list of texts under the key {keys[2]}")
        value = f"{left.strip()} {BLANK} {right.strip()}".strip()
        return Target(value, line, words_of_record(record), tuple(texts))

    @classmethod
    def prepared(cls, target: Target, host: Host) -> Target:
        """The same with UNK for each word of the context that the model lacks, as the paper's model reads it.

        Such a target has no `words`: the human sentence does not have this context.
        """
        sides = [host.tokenizer.decode(host.tokenizer.encode(side)) for side in target.value.split(BLANK)]
        value = f" {BLANK} ".join(sides).strip()
        return target if value == target.value else replace(target, value=value, words=())

    @classmethod
    def answer(cls, target: Target, text: str) -> str:
        """What a text has in the gap: its words but for as many as the context has on either side."""
        left, right = (len(split_words(side)) for side in target.value.split(BLANK))
        words = split_words(text)
        return join_words(words[left : len(words) - right])

    @classmethod
    def lessons(cls, document: Document, labels: Annotation) -> list[tuple[str, str]]:
        """Each sentence of a text that stands between two others: those around it, and the first and the last."""
        return [(f"{left} {BLANK} {right}", middle) for left, middle, right in threes(document.text)]

    @classmethod
    def completed(cls, target: Target, written: str) -> str:
        """The context with what was written in the gap."""
        return target.value.replace(BLANK, written)

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """The words of the context, the gap as one of them, each with its place."""
        left, right = value.split(BLANK)
        return [(word, i) for i, word in enumerate([*words_of(left), BLANK, *words_of(right)])]

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any] | None:
        """A stretch of 2 words to half of the sentence as the gap, at least two words standing on either side."""
        words = labels.words
        if len(words) < _LEAST_WORDS:
            return None
        size = rng.randint(2, len(words) // 2)
        start = rng.randint(2, len(words) - size - 2)
        left, gap, right = words[:start], words[start : start + size], words[start + size :]
        return {"left": join_words(left), "right": join_words(right), "references": [join_words(gap)]}
