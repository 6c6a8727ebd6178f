"""Words and their spacing: a reversible split of text into words and punctuation marks.

Every mark has a usual spacing (a comma leans on the word before it, a pound sign on the number after it, a hyphen on both).
A mark that stands otherwise carries joiners that say on which sides it touches its neighbours, so that the text can be put
together again exactly: `'The Eagle', £20 - 25` is split into `'~ The Eagle ~' , £ 20 ~-~|` and so on, with the joiner
written as U+FFED. Words themselves never carry a joiner: "friendly" is one word wherever it stands.
"""

from __future__ import annotations

import re

JOINER = "￭"
"""Written on the side on which a mark touches its neighbour."""

_CLITIC = r"n't|'(?:s|re|ve|ll|d|m|S)"
_WORD = r"\d+(?:[.,]\d+)*|[^\W\d_]+"
_SPLIT = re.compile(rf"[^\W\d_]+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m|S)\b|{_WORD}|[^\w\s]|_")
_PLAIN = re.compile(_WORD)
_LEANS_LEFT = re.compile(rf"[.,;:!?%)\]]|{_CLITIC}")
_LEANS_RIGHT = frozenset("£$€([")
_LEANS_BOTH = frozenset("-/")


def _usual(mark: str) -> tuple[bool, bool]:
    """Whether a mark touches the word before it and the word after it when it stands as usual."""
    if mark in _LEANS_BOTH:
        return True, True
    if mark in _LEANS_RIGHT:
        return False, True
    return bool(_LEANS_LEFT.fullmatch(mark)), False


def split_words(text: str) -> list[str]:
    """Split text into words and marks; a mark in an unusual place carries joiners.

    A joiner alone on both sides of an unusually free mark would be ambiguous with the usual form, so the free form of a
    mark that usually leans is written with a joiner *inside*: `￭￭-` reads "this hyphen touches nothing".
    """
    pieces = [(m.group(), m.start(), m.end()) for m in _SPLIT.finditer(text)]
    out = []
    for i, (piece, start, end) in enumerate(pieces):
        if _PLAIN.fullmatch(piece):
            out.append(piece)
            continue
        left = i > 0 and pieces[i - 1][2] == start
        # Between two marks the left one's right side is said by the right one's left side.
        next_is_word = i + 1 < len(pieces) and bool(_PLAIN.fullmatch(pieces[i + 1][0]))
        right = next_is_word and pieces[i + 1][1] == end
        usual_left, usual_right = _usual(piece)
        # A side that has no neighbour word to touch stands as usual.
        if i == 0:
            left = usual_left
        if not next_is_word:
            right = usual_right
        out.append(piece if (left, right) == (usual_left, usual_right) else _marked(piece, left, right))
    return out


def _marked(mark: str, left: bool, right: bool) -> str:
    if not left and not right:
        return JOINER * 2 + mark
    return (JOINER if left else "") + mark + (JOINER if right else "")


def bare(word: str) -> str:
    """The word or mark without joiners: what a reader or a tagger sees."""
    return word.strip(JOINER) or word


def _touches(word: str) -> tuple[bool, bool]:
    if word.startswith(JOINER * 2):
        return False, False
    if JOINER in word:
        return word.startswith(JOINER), word.endswith(JOINER)
    return (False, False) if _PLAIN.fullmatch(word) else _usual(word)


def join_words(words: list[str]) -> str:
    """Put words and marks together again: the inverse of `split_words` (white space normalised)."""
    text = ""
    previous_right = True
    previous_is_word = True
    for word in words:
        left, right = _touches(word)
        is_word = bool(_PLAIN.fullmatch(word))
        # The right side of a mark counts only before a word (see split_words).
        glue = left or (previous_right and (is_word or previous_is_word))
        text += bare(word) if glue or not text else " " + bare(word)
        previous_right, previous_is_word = right, is_word
    return text
