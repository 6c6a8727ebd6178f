"""Measures of sets of texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.losses import VariationalBound
from diffusion_lm.evaluation.pretrained import REFERENCES, require
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.text.spacing import bare, split_words

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sacrebleu.metrics.bleu import BLEU


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


Utility = Callable[[str, str], float]
"""(hypothesis, reference) -> how well the one stands for the other; more is better."""


@cache
def _mbr_bleu() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    # Smoothed, an order that a short text lacks counts 1 of 1, effective or not; sacrebleu would warn at every call.
    return BLEU(lowercase=True, smooth_method="add-k", smooth_value=1, effective_order=True)


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Sentence BLEU-4 with one added to the counts of word pairs and longer, 0 to 100: the paper's utility."""
    return float(_mbr_bleu().sentence_score(hypothesis, [reference]).score)


def mean_utilities(candidates: Sequence[str], utility: Utility = sentence_bleu) -> list[float]:
    """The mean utility of each candidate against all the others; one that stands there twice counts twice.

    Raises:
        UserError: there are fewer than two candidates.
    """
    if len(candidates) < 2:
        raise UserError("A choice of least risk compares texts with each other, so it needs at least two.")
    known = cache(utility)  # samples repeat each other, short ones often
    return [
        sum(known(hypothesis, other) for j, other in enumerate(candidates) if j != i) / (len(candidates) - 1)
        for i, hypothesis in enumerate(candidates)
    ]


def choose(candidates: Sequence[str], utility: Utility = sentence_bleu) -> int:
    """The number of the candidate with the highest mean utility, the first of equals; a single one is chosen."""
    if len(candidates) == 1:
        return 0
    means = mean_utilities(candidates, utility)
    return means.index(max(means))


TokenVectors = Callable[[Sequence[str]], list[Tensor]]
"""Texts -> unit vectors of the tokens of each, N times [L, D]."""
References = Sequence[Sequence[str]]
"""One or more references of each hypothesis."""


def remembered(token_vectors: TokenVectors) -> TokenVectors:
    """The same, each text encoded once: references come back with every set of hypotheses."""
    known: dict[str, Tensor] = {}

    def vectors(texts: Sequence[str]) -> list[Tensor]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, token_vectors(new), strict=True))
        return [known[text] for text in texts]

    return vectors


@dataclass(frozen=True)
class ReferenceScores:
    """How close a set of texts is to its references."""

    bleu_4: float
    """Corpus BLEU-4 (Papineni et al. 2002), 0 to 100."""
    rouge_l: float
    """Mean F of the longest common subsequence (Lin 2004; COCO's, beta 1.2), 0 to 100."""
    cider: float
    """Mean CIDEr-D (Vedantam et al. 2015) times 100, 0 to 1,000; 0 for a single text, since it weighs words by their rarity."""
    bert_score: float
    """Mean F1 of greedily matched token vectors (Zhang et al. 2020), of the best reference; at most 100."""
    n: int
    """Number of texts."""


def reference_scores(hypotheses: Sequence[str], references: References, token_vectors: TokenVectors) -> ReferenceScores:
    """Score each hypothesis against its references.

    Raises:
        UserError: there is no hypothesis, one has no reference, or a package is missing.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise UserError("Every text that is held against references needs at least one.")
    rouge_l, cider = _coco(hypotheses, references)
    return ReferenceScores(
        bleu_4(hypotheses, references),
        100 * rouge_l,
        100 * cider,
        bert_score(hypotheses, references, token_vectors),
        len(hypotheses),
    )


def bleu_4(hypotheses: Sequence[str], references: References) -> float:
    """Corpus BLEU-4 in lower case, 0 to 100; the number of references may vary."""
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, references))
    # sacrebleu takes None for a reference that is not there, though its types do not say so.
    streams: Any = [[refs[i] if i < len(refs) else None for refs in references] for i in range(most)]
    return float(BLEU(lowercase=True).corpus_score(hypotheses, streams).score)


def plain(text: str) -> str:
    """The words in lower case with a space between two, punctuation left out: what COCO's measures read."""
    words = (bare(word).lower() for word in split_words(text))
    return " ".join(word for word in words if any(map(str.isalnum, word)))


def _coco(hypotheses: Sequence[str], references: References) -> tuple[float, float]:
    """COCO's ROUGE-L in [0, 1] and CIDEr-D in [0, 10]."""
    require(*REFERENCES)
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    wanted = {i: [plain(reference) for reference in refs] for i, refs in enumerate(references)}
    found = {i: [plain(hypothesis)] for i, hypothesis in enumerate(hypotheses)}
    rouge_l, cider = (measure().compute_score(wanted, found)[0] for measure in (Rouge, Cider))
    return float(rouge_l), float(cider)


def bert_score(hypotheses: Sequence[str], references: References, token_vectors: TokenVectors) -> float:
    """Mean over the texts of the highest `matching` F1 with a reference, times 100."""
    vectors = remembered(token_vectors)
    vectors([*hypotheses, *(text for refs in references for text in refs)])  # together, so in few batches
    best = [
        max(matching(*vectors([hypothesis, reference])) for reference in refs)
        for hypothesis, refs in zip(hypotheses, references, strict=True)
    ]
    return 100 * sum(best) / len(best)


def matching(hypothesis: Tensor, reference: Tensor) -> float:
    """F1 of greedy matching of unit token vectors [L, D] and [M, D] (Zhang et al. 2020, section 3), at most 1.

    Precision is the mean over the hypothesis's tokens of the cosine with the nearest token of the reference, recall the
    mean over the reference's. No weights, no rescaling; 0 where a text has no token.
    """
    if not len(hypothesis) or not len(reference):
        return 0.0
    cosines = hypothesis @ reference.T
    precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


UNSEEN = 1e-9
"""Probability of a length that no training sentence had, so that one such sentence does not make the bound infinite."""


class Likelihood(NamedTuple):
    """An upper bound on -log p(text), in nats a token; words and END count as tokens, as they do for the judge."""

    nats_per_token: float
    """The whole: the words given their number, and their number."""
    length_nats_per_token: float
    """The share of it that the number of words takes; 0 in the padded layout, where PAD is a word."""
    n: int
    """Sentences."""


@torch.no_grad()
def likelihood(lm: DiffusionLM, corpus: EncodedCorpus, n: int, draws: int = 4, seed: int = 0) -> Likelihood:
    """Bound the likelihood of `n` sentences at even distances, the mean over `draws` draws of time and noise."""
    bound, canvas = VariationalBound(steps=None), lm.config.canvas
    lengths = corpus.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // n))[:n]
    sizes = torch.full_like(lengths, canvas) if canvas else lengths
    nats, seen = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for rows in token_batches(sizes[chosen], 4096, None):
            ids, mask = gather(corpus, chosen[rows], lm.tokenizer.pad_id, canvas)
            for _ in range(draws):
                each = bound.estimate(lm, ids, mask, seen)
                nats += float((each * mask.sum(-1)).sum()) / draws
                seen += len(ids)
    tokens = int((lengths[chosen] - 1).sum())
    of_length = 0.0
    if canvas is None:
        p = lm.length_counts.cpu().double() / lm.length_counts.sum()
        of_length = float(-p[lengths[chosen]].clamp(min=UNSEEN).log().sum())
    return Likelihood((nats + of_length) / tokens, of_length / tokens, len(chosen))
