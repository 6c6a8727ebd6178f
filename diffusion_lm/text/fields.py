"""A document, its fields, and whether a text says a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diffusion_lm.common import UserError
from diffusion_lm.text.spacing import near_words, normal

FIELDS = ("name", "Type", "area", "customer rating", "near", "family friendly", "food", "price")
"""The canonical names of E2E's eight fields, as the paper's attribute targets spell them."""


@dataclass(frozen=True)
class Document:
    """One text of a corpus, in its normal form, and its gold annotation, as far as the corpus has any."""

    text: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values by canonical field name (see `FIELDS`); a field that is not given is absent."""
    tags: tuple[str, ...] | None = None
    """One universal part-of-speech tag (UPOS) a word."""
    tree: str | None = None
    """A constituency tree in the Penn Treebank's brackets."""


ALIASES = {
    "eattype": "Type", "pricerange": "price", "customerrating": "customer rating", "familyfriendly": "family friendly"
}  # fmt: skip
"""E2E's own names of fields whose canonical name is another, in lower case."""


def canonical_field(name: str, known: Iterable[str] = FIELDS) -> str:
    """The canonical name of a field, whatever its case or alias.

    Raises:
        UserError: if there is no such field; the known ones are listed.
    """
    known = tuple(known)
    wanted = normal(name.replace("_", " ")).lower()
    wanted = ALIASES.get(wanted.replace(" ", ""), wanted).lower()
    for each in known:
        if each.lower() == wanted:
            return each
    raise UserError(f"There is no field {name!r}; the known fields are {', '.join(known)}.")


def canonical_value(field: str, value: str, known: Iterable[str]) -> str:
    """The value as the corpus writes it, whatever its case and spacing.

    Raises:
        UserError: if the field has no such value; the known ones are listed.
    """
    known = tuple(known)
    squeezed = {"".join(v.split()).lower(): v for v in known}
    wanted = "".join(normal(value).split()).lower()
    if wanted in squeezed:
        return squeezed[wanted]
    near = near_words(wanted, squeezed)
    hint = f" (did you mean {squeezed[near[0]]!r}?)" if near else ""
    raise UserError(f"{field} has no value {value!r}{hint}; the known values are {', '.join(known)}.")


def says(text: str, value: str) -> bool:
    """Whether the text holds the value as whole words, in any case."""
    body = r"\s*".join(re.escape(part) for part in normal(value).split())
    return re.search(rf"(?<!\w){body}(?!\w)", normal(text), re.IGNORECASE) is not None
