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
    source: str = ""
    """What the text is written from: another text; of a document with fields these (`parts_of`)."""


def parts_of(document: Document) -> tuple[str, ...]:
    """What the text is written from, in parts whose order says nothing: "food = Thai," of each field, or the source."""
    if document.fields:
        return tuple(f"{name} = {value}," for name, value in document.fields.items())
    return (document.source,) if document.source else ()


def source_of(document: Document) -> str:
    """What the text is written from, as a prompt says it; empty without a source."""
    return " ".join(parts_of(document)).rstrip(",")


def split_fields(text: str) -> list[tuple[str, str, str]]:
    """Name, equals sign and value of each part of `name = The Punter, food = Italian`; what a part lacks is empty."""
    parts = (part.partition("=") for part in normal(text).strip(" ,").split(","))
    return [(name.strip(), equals, value.strip()) for name, equals, value in parts]


def parse_fields(text: str, known: Iterable[str]) -> dict[str, str]:
    """Parse `name = The Punter, food = Italian` to values by canonical name.

    Raises:
        UserError: if the text is not of that form, has a field twice, or one that is not known; the known ones are listed.
    """
    known, fields = tuple(known), dict[str, str]()
    for name, equals, value in split_fields(text):
        if not (name and equals and value):
            raise UserError(
                f'A prompt is FIELD = VALUE, ..., such as "name = The Punter, food = Italian", not {text!r}.'
            )
        name = canonical_field(name, known)
        if name in fields:
            raise UserError(f"The prompt {text!r} gives the field {name} twice; give it once.")
        fields[name] = value
    return fields


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
