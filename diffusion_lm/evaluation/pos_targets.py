"""Files of part-of-speech targets: one JSON object a line, `{"pos": ["DET", "NOUN", "PUNCT"]}`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from diffusion_lm.errors import UserError

_EXAMPLE = '{"pos": ["DET", "NOUN", "VERB", "PUNCT"]}'


@dataclass(frozen=True)
class PosTarget:
    """The tags of one text, and the line that they stand on: two lines may ask for the same tags."""

    line: int
    tags: str
    human: str | None = None
    """The words that the tags were taken from, where the file has them."""

    def __str__(self) -> str:
        return f"{self.line}: {self.tags}"


def read_pos_targets(path: str | Path) -> list[PosTarget]:
    """Read the targets of a file in its order; empty lines do not count.

    START, END and the line break that ends the original's texts are no words; they are dropped with their tags.

    Raises:
        UserError: the file cannot be read or has no target, or a line is malformed; the message gives its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The targets {path} cannot be read ({error}).") from error
    targets = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                targets.append(_parse(line, number))
            except ValueError as error:
                raise UserError(
                    f"Line {number} of {path} is no target ({error}); a line looks like {_EXAMPLE}."
                ) from error
    if not targets:
        raise UserError(f"{path} has no target; a line looks like {_EXAMPLE}.")
    return targets


def _parse(line: str, number: int) -> PosTarget:
    record = json.loads(line)
    tags = record.get("pos") if isinstance(record, dict) else None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("it has no list of tags under the key pos")
    words = record.get("words_", tags)
    if not isinstance(words, list) or len(words) != len(tags):
        raise ValueError("it has not as many words as tags")
    pairs = [(w, t) for w, t in zip(words, tags, strict=True) if t not in ("START", "END") and w != "\n"]
    if not pairs:
        raise ValueError("it has no tag")
    human = " ".join(str(word) for word, _ in pairs) if "words_" in record else None
    return PosTarget(number, " ".join(tag for _, tag in pairs), human)
