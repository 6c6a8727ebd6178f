"""One text with what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FIELDS = ("name", "Type", "area", "customer rating", "near", "family friendly", "food", "price")
"""The canonical names of E2E's eight fields, as the paper's attribute targets spell them."""


@dataclass(frozen=True)
class Document:
    """One text of a corpus and its gold annotation, as far as the corpus has any.

    Attributes:
        text: The text, with every run of white space made one space and none at either end.
        fields: Values by canonical field name (see `FIELDS`); a field that is not given is absent.
        tags: One universal part-of-speech tag (UPOS) a word, or None.
        tree: A bracketed constituency tree in the Penn Treebank's notation, or None.
    """

    text: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] | None = None
    tree: str | None = None
