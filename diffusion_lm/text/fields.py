"""Names of fields, and whether a text says a value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from diffusion_lm.errors import UserError
from diffusion_lm.text.document import FIELDS

ALIASES = {"eattype": "Type", "pricerange": "price", "familyfriendly": "family friendly"}
"""E2E's own names of fields whose canonical name is another, in lower case."""


def canonical_field(name: str, known: Iterable[str] = FIELDS) -> str:
    """The canonical name of a field, whatever its case or alias.

    Raises:
        UserError: if there is no such field; the known ones are listed.
    """
    known = tuple(known)
    wanted = " ".join(name.replace("_", " ").split()).lower()
    wanted = ALIASES.get(wanted.replace(" ", ""), wanted)
    for field in known:
        if field.lower() == wanted.lower():
            return field
    raise UserError(f"There is no field {name!r}; the known fields are {', '.join(known)}.")


def canonical_value(field: str, value: str, known: Iterable[str]) -> str:
    """The value as the corpus writes it, whatever its case and spacing.

    Raises:
        UserError: if the field has no such value; the known ones are listed.
    """
    known = tuple(known)
    squeezed = {"".join(v.split()).lower(): v for v in known}
    wanted = "".join(value.split()).lower()
    if wanted in squeezed:
        return squeezed[wanted]
    near = get_close_matches(wanted, squeezed, n=1)
    hint = f" (did you mean {squeezed[near[0]]!r}?)" if near else ""
    raise UserError(f"{field} has no value {value!r}{hint}; the known values are {', '.join(known)}.")


def says(text: str, value: str) -> bool:
    """Whether the text holds the value as whole words, in any case."""
    body = r"\s*".join(re.escape(part) for part in value.split())
    return re.search(rf"(?<!\w){body}(?!\w)", text, re.IGNORECASE) is not None
