"""Text to token ids and back: reversible words, or byte-level BPE, both on the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from diffusion_lm.common import UserError
from diffusion_lm.store import write_whole
from diffusion_lm.text.spacing import bare, join_words, normal, split_words

START, END, UNK, PAD = SPECIALS = ("START", "END", "UNK", "PAD")
FILE_NAME = "tokenizer.json"


class Tokenizer(ABC):
    """Ids 0 to 3 are START, END, UNK and PAD; `encode` gives none of them but UNK, whatever the text says."""

    start_id, end_id, unk_id, pad_id = range(4)

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without START and END."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids: stops at END, leaves START and PAD out."""

    def encode_sentence(self, text: str) -> list[int]:
        """START, the text's tokens, END."""
        return [self.start_id, *self.encode(text), self.end_id]

    def content(self, ids: Iterable[int]) -> list[int]:
        """The ids between START and END, without PAD."""
        inside = takewhile(lambda i: i != self.end_id, map(int, ids))
        return [i for i in inside if i not in (self.start_id, self.pad_id)]

    def decode_unfinished(self, ids: Iterable[int]) -> str:
        """The text of ids that still change, in which an END that is not yet at its place cuts nothing short."""
        marks = (self.start_id, self.end_id, self.pad_id)
        return self.decode(i for i in ids if i not in marks)

    def words(self, ids: Iterable[int]) -> list[str]:
        """The tokens between START and END as a reader sees them."""
        return [bare(self.token(i)) for i in self.content(ids)]

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the vocabulary lacks."""
        return []

    @cached_property
    def vocab_size(self) -> int:
        """V: the number of tokens, special ones included."""
        return self.backend.get_vocab_size()

    def token(self, id: int) -> str:
        """The token with this id.

        Raises:
            IndexError: if there is none.
        """
        token = self.backend.id_to_token(int(id))
        if token is None:
            raise IndexError(f"token {id} of {self.vocab_size}")
        return token

    def id(self, token: str) -> int | None:
        """The id of this token, if there is one."""
        return self.backend.token_to_id(token)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that two tokenizers share only if they are the same."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into a folder, whole or not at all."""
        write_whole(Path(folder, FILE_NAME), self.backend.to_str(pretty=True))

    @staticmethod
    def load(folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json` of a folder.

        Raises:
            UserError: if the file is missing, damaged or not a tokenizer of this package.
        """
        path = Path(folder, FILE_NAME)
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf8"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing: a checkpoint folder holds {FILE_NAME}.") from None
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise UserError(f"{path} cannot be read as a tokenizer ({error}).") from None
        kinds: dict[type, type[Tokenizer]] = {models.WordLevel: WordTokenizer, models.BPE: BytePairTokenizer}
        kind = kinds.get(type(backend.model))
        tokens = [backend.id_to_token(i) for i in range(backend.get_vocab_size())]
        if kind is None or tokens[:4] != list(SPECIALS) or None in tokens:
            ids = f"its ids be 0 to {len(tokens) - 1}, the first of them {', '.join(SPECIALS)}"
            raise UserError(f"{path} is damaged or foreign: it must be a tokenizer of words or byte pairs, and {ids}.")
        return kind(backend)


class WordTokenizer(Tokenizer):
    """One id a word or mark, with the reversible spacing of `diffusion_lm.text.spacing`."""

    def _id(self, word: str) -> int:
        # A known mark in a spacing that the corpus never shows falls back to its usual spacing.
        ids = (self.id(form) for form in (word, bare(word)) if form not in SPECIALS)
        return next((i for i in ids if i is not None), self.unk_id)

    def encode(self, text: str) -> list[int]:  # noqa: D102
        return [self._id(word) for word in split_words(text)]

    def decode(self, ids: Iterable[int]) -> str:  # noqa: D102
        return join_words([self.token(i) for i in self.content(ids)])

    def unknown_words(self, text: str) -> list[str]:  # noqa: D102
        return [bare(w) for w in split_words(text) if self._id(w) == self.unk_id]


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE: no unknown words, for any corpus."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.encode_special_tokens = True  # "END" in a text is three letters
        super().__init__(backend)

    def encode(self, text: str) -> list[int]:  # noqa: D102
        return self.backend.encode(normal(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:  # noqa: D102
        return self.backend.decode(self.content(ids)).strip()

    def words(self, ids: Iterable[int]) -> list[str]:  # noqa: D102
        pieces = [self.backend.decode([i]) for i in self.content(ids)]
        return [piece.strip() or piece for piece in pieces]


def build_word_tokenizer(
    texts: Iterable[str], min_count: int = 11, known: WordTokenizer | None = None
) -> WordTokenizer:
    """A tokenizer of the words seen at least `min_count` times, most frequent first (paper: more than 10).

    Those of a `known` one come first, each with the id that it has there.

    Raises:
        UserError: if no word is seen so often.
    """
    counts = Counter(word for text in texts for word in split_words(text))
    first = list(SPECIALS) if known is None else [known.token(i) for i in range(known.vocab_size)]
    named = set(first)
    kept = [w for w, n in counts.items() if n >= min_count and w not in named]
    kept.sort(key=lambda w: (-counts[w], w))
    if not kept and known is None:
        raise UserError(f"No word of the corpus is seen {min_count} times; lower the minimum count.")
    vocabulary = {word: i for i, word in enumerate([*first, *kept])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return WordTokenizer(backend)


def build_bpe_tokenizer(texts: Iterable[str], vocab_size: int = 8192) -> BytePairTokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens.

    Raises:
        UserError: if the 256 bytes and the special tokens do not fit in.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(SPECIALS)
    if vocab_size < least:
        raise UserError(f"A byte-level vocabulary needs at least {least} tokens, not {vocab_size}.")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    # No merge may spell a special token: "EN" + "D" would give a text END's id.
    settings = json.loads(backend.to_str())
    settings["model"]["merges"] = [pair for pair in settings["model"]["merges"] if "".join(pair) not in SPECIALS]
    return BytePairTokenizer(tokenizers.Tokenizer.from_str(json.dumps(settings)))
