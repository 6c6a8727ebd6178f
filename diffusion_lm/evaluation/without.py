"""A corpus with some of its sentences left out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence

from diffusion_lm.evaluation.rows import words_of
from diffusion_lm.text.document import Document
from diffusion_lm.text.reader import Corpus, Unreadable


class Without(Corpus):
    """Another corpus, less the documents of one split that have just these words.

    A judge of fluency must not have read the sentences that it will hold others against.

    Args:
        corpus: the whole.
        sentences: the words of each sentence to leave out; spacing does not matter.
        split: where it is left out.
    """

    def __init__(self, corpus: Corpus, sentences: Collection[Sequence[str]], split: str = "train") -> None:
        super().__init__(corpus.name, corpus.splits)
        self._corpus, self._split = corpus, split
        self._sentences = {tuple(words) for words in sentences}

    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        for number, row in self._corpus._rows(split):
            if (
                split != self._split
                or isinstance(row, Unreadable)
                or tuple(words_of(row.text)) not in self._sentences
            ):
                yield number, row

    def _fingerprint(self, split: str) -> str:
        whole = self._corpus.fingerprint(split)
        if split != self._split:
            return whole
        words = "\n".join(sorted(" ".join(each) for each in self._sentences))
        return f"{whole} {hashlib.blake2b(words.encode(), digest_size=16).hexdigest()}"
