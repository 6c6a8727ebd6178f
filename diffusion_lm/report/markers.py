"""Rewrites what stands between marker lines of a file, <!-- report:NAME --> and <!-- /report:NAME -->, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from diffusion_lm.errors import UserError

_MARKER = re.compile(r"\s*<!--\s*(/?)report:(.*?)\s*-->\s*")


def marked(text: str, where: str, known: Collection[str]) -> list[str]:
    """The names that a text has markers of.

    Args:
        text: the text.
        where: what the text is of, for errors.
        known: the names that there are.

    Raises:
        UserError: a name is unknown, stands twice, is not closed, or is closed and not open.
    """
    names: list[str] = []
    open_ = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not (match := _MARKER.fullmatch(line)):
            continue
        closes, name = match.groups()
        here = f"Line {number} of {where}"
        if name not in known:
            raise UserError(
                f"{here} has a marker of {name!r}, which is no section; the sections are {', '.join(known)}."
            )
        if closes and open_ != name:
            raise UserError(
                f"{here} closes {name!r}, which is not open; put <!-- report:{name} --> before it."
            )
        if not closes and open_:
            raise UserError(
                f"{here} opens {name!r}, but {open_!r} is not closed; put <!-- /report:{open_} --> before it."
            )
        if not closes and name in names:
            raise UserError(f"{here} opens {name!r} a second time; keep one of the two.")
        open_ = "" if closes else name
        names += [] if closes else [name]
    if open_:
        raise UserError(f"{where} does not close {open_!r}; put <!-- /report:{open_} --> after it.")
    if not names:
        raise UserError(
            f"{where} has no marker; put <!-- report:table2 --> and <!-- /report:table2 --> on lines of it."
        )
    return names


def rewrite(text: str, new: Callable[[str], str]) -> str:
    """The text with what `new` says for a name between the markers of each; `marked` has seen that they match."""
    out: list[str] = []
    inside = False
    for line in text.split("\n"):
        match = _MARKER.fullmatch(line)
        if match and match[1]:
            inside = False
        if not inside:
            out.append(line)
        if match and not match[1]:
            inside = True
            out += ["", new(match[2]), ""]
    return "\n".join(out)
