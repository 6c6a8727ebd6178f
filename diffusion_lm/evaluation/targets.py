"""Files of attribute targets: one JSON list of tokens a line, `["food", ":", "Fast", "food"]`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_lm.errors import UserError
from diffusion_lm.text.fields import canonical_field, canonical_value
from diffusion_lm.text.spacing import join_words


@dataclass(frozen=True)
class AttributeTarget:
    """A field and the value that a text should say."""

    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}"


def read_attribute_targets(path: str | Path, known: Mapping[str, Sequence[str]]) -> list[AttributeTarget]:
    """Read the targets of a file in its order; empty lines do not count.

    Args:
        path: the file.
        known: the values of each field that can be asked for; case and spacing do not matter.

    Raises:
        UserError: the file cannot be read or has no target, or a line is malformed, repeated, or asks for
            what is not known; the message gives the line's number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The targets {path} cannot be read ({error}).") from error
    first: dict[AttributeTarget, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            target = _parse(line, known)
            if target in first:
                raise UserError(f"it repeats line {first[target]}.")
        except UserError as error:
            raise UserError(f"Line {number} of {path} is no target: {error}") from error
        first[target] = number
    if not first:
        raise UserError(f"{path} has no target; a line looks like {_EXAMPLE}.")
    return list(first)


_EXAMPLE = '["food", ":", "Fast", "food"]'


def _parse(line: str, known: Mapping[str, Sequence[str]]) -> AttributeTarget:
    try:
        tokens = json.loads(line)
    except ValueError as error:
        raise UserError(f"it is not JSON ({error}); a line looks like {_EXAMPLE}.") from error
    return parse_attribute(tokens, known)


def parse_attribute(tokens: object, known: Mapping[str, Sequence[str]]) -> AttributeTarget:
    """The target that a list of tokens stands for.

    Args:
        tokens: the field's words, ":", and the value's.
        known: the values of each field that can be asked for.

    Raises:
        UserError: they are no such list, or ask for what is not known.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{tokens!r} is not a list of strings such as {_EXAMPLE}.")
    colon = tokens.index(":") if ":" in tokens else -1
    if not 0 < colon < len(tokens) - 1:
        raise UserError(f'{tokens!r} is not a field, ":" and a value, such as {_EXAMPLE}.')
    field = canonical_field(" ".join(tokens[:colon]), known)
    return AttributeTarget(field, canonical_value(field, join_words(tokens[colon + 1 :]), known[field]))
