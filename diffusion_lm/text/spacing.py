"""Words and their spacing: a reversible split of text into words and punctuation marks.

Every mark has a usual spacing: a comma touches the word before it, a pound sign the number after it, a hyphen
both, a quotation mark neither. A mark that stands otherwise carries the joiner (U+FFED) on each side on which
it touches its neighbour, and two joiners in front if it touches nothing though it usually does. Words carry
none: "friendly" is one word wherever it stands. With ~ for the joiner:

    'The Eagle', £20 - 25     '~ The Eagle ~' , £ 20 ~~- 25
    it's family-friendly.     it 's family - friendly .
    food ,near                food ,~ near

Texts are read in one normal form (`normal`), whether they come from a corpus, a target or a flag.

Only two words that touch, as in "5star", are not put together again: they become "5 star".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import groupby, pairwise
from operator import itemgetter

JOINER = "￭"
"""Written on a side on which a mark touches its neighbour; a U+FFED in a text is read as U+25A0."""

_CLITIC = r"n't|'(?:s|re|ve|ll|d|m|S)"
_WORD = r"\d+(?:[.,]\d+)*|[^\W\d_]+"
# A model may write clitics in a row, "that'sn't"; each is still a word of its own. The bound keeps time linear.
_CLITICS = r"(?:n't){1,8}\b"
_SPLIT = re.compile(rf"[^\W\d_]+(?={_CLITICS})|(?:{_CLITIC})(?=\b|{_CLITICS})|{_WORD}|[^\w\s]|_")
_PLAIN = re.compile(_WORD)
_LEANS_LEFT = re.compile(rf"[.,;:!?%)\]]|{_CLITIC}")
_LEANS_RIGHT = frozenset("£$€([")
_LEANS_BOTH = frozenset("-/")
_TYPOGRAPHIC = str.maketrans({**dict.fromkeys("‘’ʼ", "'"), **dict.fromkeys("“”„", '"'), "\u200b": " ", "\ufeff": None})


def normal(text: str) -> str:
    """The one form in which texts are read: composed letters (NFC), ASCII quotes and apostrophes, plain single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_TYPOGRAPHIC))
    return " ".join(text.split())


def _is_word(piece: str) -> bool:
    return bool(_PLAIN.fullmatch(piece))


def _usual(mark: str) -> tuple[bool, bool]:
    """Whether a mark touches the word before it and the word after it when it stands as usual."""
    both = mark in _LEANS_BOTH
    return both or bool(_LEANS_LEFT.fullmatch(mark)), both or mark in _LEANS_RIGHT


def split_words(text: str) -> list[str]:
    """Split text into words and marks; a mark in an unusual place carries joiners."""
    pieces = [(m.group(), m.start(), m.end()) for m in _SPLIT.finditer(normal(text).replace(JOINER, "■"))]
    out = []
    for i, (piece, start, end) in enumerate(pieces):
        if _is_word(piece):
            out.append(piece)
            continue
        # A side without a neighbour stands as usual; so does the right side before another mark, whose left
        # side says whether the two touch.
        left, right = usual = _usual(piece)
        if i > 0:
            left = pieces[i - 1][2] == start
        if i + 1 < len(pieces) and _is_word(pieces[i + 1][0]):
            right = pieces[i + 1][1] == end
        if (left, right) == usual:
            out.append(piece)
        elif not left and not right:
            out.append(JOINER * 2 + piece)
        else:
            out.append(JOINER * left + piece + JOINER * right)
    return out


def bare(word: str) -> str:
    """The word or mark without joiners: what a reader or a tagger sees."""
    return word.strip(JOINER)


def _touches(word: str) -> tuple[bool, bool]:
    if word.startswith(JOINER * 2):
        return False, False
    if JOINER in word:
        return word.startswith(JOINER), word.endswith(JOINER)
    return (False, False) if _is_word(word) else _usual(word)


def join_words(words: list[str]) -> str:
    """Put words and marks together again: the inverse of `split_words`, with white space normalised."""
    text, leans_right = "", True
    for word in words:
        left, right = _touches(word)
        glue = left or not text or (leans_right and _is_word(word))
        text += bare(word) if glue else " " + bare(word)
        leans_right = right
    return text


def words_of(text: str) -> list[str]:
    """The words and marks of a text, whatever the model's tokens are."""
    return [bare(word) for word in split_words(text)]


def settled(text: str, last: str) -> Iterator[tuple[bool, str]]:
    """A text in runs: what has the word of its `last` form at its place, and what does not; marks go with what they touch."""
    final = words_of(last)
    same = iter([i < len(final) and word == final[i] for i, word in enumerate(words_of(text))])
    chunks = [(chunk, all([next(same, True) for _ in words_of(chunk)])) for chunk in normal(text).split()]
    for done, run in groupby(chunks, key=itemgetter(1)):
        yield done, " ".join(chunk for chunk, _ in run)


SENTENCE_END = re.compile(r"[.!?…][\"')\]]* ")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, as their marks divide it."""
    cuts = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    return [sentence for a, b in pairwise(cuts) if (sentence := text[a:b].strip())]


def threes(text: str) -> Iterator[tuple[str, str, str]]:
    """Each sentence of a text that stands between two others: with these, and with the first and the last."""
    sentences = sentences_of(text)
    for i in range(1, len(sentences) - 1):
        around = dict.fromkeys([(sentences[i - 1], sentences[i + 1]), (sentences[0], sentences[-1])])
        yield from ((left, sentences[i], right) for left, right in around)


def near_words(word: str, known: Iterable[str]) -> list[str]:
    """Up to three known words that may have been meant: first the same letters in another case, then similar ones."""
    known = list(dict.fromkeys(known))
    same = [each for each in known if each != word and each.casefold() == word.casefold()]
    similar = [each for each in get_close_matches(word, known, n=3) if each not in same and each != word]
    return [*same, *similar][:3]
