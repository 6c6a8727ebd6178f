"""Files of infilling targets: what stands left and right of a gap, and what people wrote into it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.sentence_targets import Record, read_records, sentence_of
from diffusion_lm.text.spacing import join_words, split_words

if TYPE_CHECKING:
    from diffusion_lm.text.tokenizer import Tokenizer

BLANK = "___"
INFILL_EXAMPLE = '{"left": "Ann was late.", "right": "She missed it.", "references": ["She ran to the bus."]}'
LAYOUTS = (("left", "right", "references"), ("obs1", "obs2", "gold_labels"))
"""The keys of a target: ours, and those of aNLG (Bhagavatula et al. 2020)."""


@dataclass(frozen=True)
class InfillTarget:
    """A text with a gap, and the line that it stands on; one side may be empty."""

    line: int
    left: str
    right: str
    references: tuple[str, ...]
    """What people wrote into the gap, once or more."""
    words: tuple[str, ...] = ()
    """Of the human sentence that it was taken from, where the file has them."""

    @property
    def template(self) -> str:
        """As the infill control takes it."""
        return f"{self.left} {BLANK} {self.right}".strip()

    def __str__(self) -> str:
        return f"{self.line}: {self.template}"

    def known_to(self, tokenizer: Tokenizer) -> InfillTarget:
        """The same with UNK for each word of the context that a vocabulary lacks, as the paper's model reads it.

        It then has no `words`: the human sentence does not have this context.
        """
        left, right = (tokenizer.decode(tokenizer.encode(side)) for side in (self.left, self.right))
        as_written = (left, right) == (self.left, self.right)
        return replace(self, left=left, right=right, words=self.words if as_written else ())

    def middle(self, text: str) -> str:
        """What a text has in the gap: its words but for as many as the context has on either side."""
        words = split_words(text)
        return join_words(words[len(split_words(self.left)) : len(words) - len(split_words(self.right))])


def infill_target(record: Record, line: int) -> InfillTarget:
    """The target of a line in one of `LAYOUTS`; "words_" says which sentence it was taken from."""
    keys = next((keys for keys in LAYOUTS if keys[0] in record), LAYOUTS[0])
    left, right, references = (record.get(key) for key in keys)
    if not isinstance(left, str) or not isinstance(right, str) or not (left.strip() or right.strip()):
        raise ValueError(f"it has no text under the keys {keys[0]} and {keys[1]}")
    if BLANK in left + right:
        raise ValueError(f"its context holds {BLANK}, which stands for the gap")
    if not isinstance(references, list) or not all(
        isinstance(each, str) and each.strip() for each in references
    ):
        raise ValueError(f"it has no list of texts under the key {keys[2]}")
    if not references:
        raise ValueError(f"the list under the key {keys[2]} is empty")
    words = sentence_of(record, line) if "words_" in record else ()
    return InfillTarget(line, left.strip(), right.strip(), tuple(references), words)


def read_infill_targets(path: str | Path) -> list[InfillTarget]:
    """Read the targets of a file in its order: one JSON object a line, or aNLG's one object of them by name.

    Raises:
        UserError: the file cannot be read or has no target, or a target is malformed; the message gives its number.
    """
    found = []
    for number, record in enumerate(_by_name(path), start=1):
        try:
            found.append(infill_target(record, number))
        except ValueError as error:
            raise UserError(f"Entry {number} of {path} is no target ({error}).") from error
    return found or read_records(path, infill_target, INFILL_EXAMPLE)


def _by_name(path: str | Path) -> list[Record]:
    """The objects within the one object of a file; none where its lines are objects of their own."""
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # read line by line it is a file of lines, or the error names the line
        return []
    values = list(whole.values()) if isinstance(whole, dict) else []
    return values if all(isinstance(value, dict) for value in values) else []
