"""How varied generated text is: distinct n-grams, self-BLEU, and the share copied from the training set."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ORDER = 4


@dataclass(frozen=True)
class Distinct:
    """The distinct n-grams of a set of sentences."""

    count: int
    """Number of different n-grams. It grows with the size of the set: compare sets of equal size."""
    ratio: float
    """`count` over the number of all n-grams, in [0, 1]; 0 where no sentence is n words long."""


def distinct(sentences: Sequence[Sequence[str]], n: int) -> Distinct:
    """Count the distinct n-grams (distinct-n of Li et al., 2016); none crosses two sentences."""
    if n < 1:
        raise UserError(f"n-grams have at least one word, not {n}.")
    grams = [gram for words in sentences for gram in _ngrams(words, n)]
    count = len(set(grams))
    return Distinct(count, count / max(1, len(grams)))


def self_bleu(sentences: Sequence[Sequence[str]], sample: int | None = 1000, seed: int = 0) -> float:
    """Mean BLEU-4 of sentences against all the other sentences as references (Zhu et al., 2018), 0 to 100.

    Exact over the set that is scored: counts are clipped against all the other sentences, and the brevity
    penalty takes the closest of their lengths, the shorter of two. The formula is sacrebleu's sentence BLEU
    (exponential smoothing, effective order) on the words as given. High means alike. The score grows with the
    size of the set: compare sets of equal size.

    Args:
        sentences: words of each sentence.
        sample: hypotheses and references are a random subset of this many sentences; None takes all of them.
        seed: seed of the subset.

    Raises:
        UserError: there are fewer than two sentences.
    """
    if len(sentences) < 2 or (sample is not None and sample < 2):
        raise UserError("Self-BLEU compares sentences with each other, so it needs at least two.")
    if sample is not None and len(sentences) > sample:
        sentences = random.Random(seed).sample(list(sentences), sample)
    grams = [_counts(words) for words in sentences]
    most = _two_largest(grams)
    lengths = Counter(len(words) for words in sentences)
    scores = [_bleu(own, most, len(words), lengths) for own, words in zip(grams, sentences, strict=True)]
    return sum(scores) / len(scores)


def verbatim_share(texts: Sequence[str], training_texts: Collection[str]) -> float:
    """Return the share of `texts` that stand in the training set, in [0, 1]; white space does not count."""
    if not texts:
        raise UserError("The share of copied texts needs at least one text.")
    known = {normalise_space(text) for text in training_texts}
    return sum(normalise_space(text) in known for text in texts) / len(texts)


def normalise_space(text: str) -> str:
    """Return `text` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _counts(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(gram for n in range(1, ORDER + 1) for gram in _ngrams(words, n))


def _two_largest(grams: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Map each n-gram to its two largest counts in one sentence.

    The largest count in the other sentences follows: the second where a sentence holds the first.
    """
    most: dict[tuple[str, ...], tuple[int, int]] = {}
    for counts in grams:
        for gram, count in counts.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (max(first, count), max(second, min(first, count)))
    return most


def _bleu(
    own: Counter[tuple[str, ...]],
    most: dict[tuple[str, ...], tuple[int, int]],
    length: int,
    lengths: Counter[int],
) -> float:
    """Return BLEU-4 of one sentence against all the others."""
    from sacrebleu.metrics.bleu import BLEU

    correct = [0] * ORDER
    for gram, count in own.items():
        first, second = most[gram]
        correct[len(gram) - 1] += min(count, second if count == first else first)
    total = [max(0, length - n) for n in range(ORDER)]
    others = [other for other, number in lengths.items() if number > (other == length)]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return float(BLEU.compute_bleu(correct, total, length, closest, "exp", effective_order=True).score)
