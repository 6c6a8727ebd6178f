"""Measures of sets of texts."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.losses import VariationalBound
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.text.spacing import words_of

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


ORDER = 4
Gram = tuple[str, ...]


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


def verbatim_share(texts: Sequence[str], training_texts: Iterable[str]) -> float:
    """The share of texts that stand in the training set, in [0, 1]; white space does not count."""
    if not texts:
        raise UserError("The share of copied texts needs at least one text.")
    known = set(map(normalise_space, training_texts))
    return sum(normalise_space(text) in known for text in texts) / len(texts)


def normalise_space(text: str) -> str:
    """Return `text` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())


def _ngrams(words: Sequence[str], n: int) -> list[Gram]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _counts(words: Sequence[str]) -> Counter[Gram]:
    return Counter(gram for n in range(1, ORDER + 1) for gram in _ngrams(words, n))


def _two_largest(grams: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """Map each n-gram to its two largest counts in one sentence.

    The largest count in the other sentences follows: the second where a sentence holds the first.
    """
    most: dict[Gram, tuple[int, int]] = {}
    for counts in grams:
        for gram, count in counts.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (max(first, count), max(second, min(first, count)))
    return most


def _bleu(
    own: Counter[Gram],
    most: dict[Gram, tuple[int, int]],
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
DRAWS = 5
"""Texts of each target whose figures are averaged; they are alike but for chance."""


def remembered(token_vectors: TokenVectors) -> TokenVectors:
    """The same, each text encoded once: references come back with every set of hypotheses."""
    known: dict[str, Tensor] = {}

    def vectors(texts: Sequence[str]) -> list[Tensor]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, token_vectors(new), strict=True))
        return [known[text] for text in texts]

    return vectors


def scores_of_gaps(
    texts: Sequence[Sequence[str]], references: References, token_vectors: TokenVectors
) -> dict[str, dict[str, float]]:
    """Figures of what was written where people have written something too.

    Args:
        texts: of each target, as many of each.
        references: of each target.
        token_vectors: of the BERTScore.

    Returns:
        mbr: of each target the text of least risk by sentence BLEU, as in the paper.
        sample: the mean over the first `DRAWS` texts of each target.
        human: the first reference against the others, of the targets that have several; absent where none has.
    """
    token_vectors = remembered(token_vectors)
    chosen = [each[choose(each)] for each in texts]
    draws = [reference_scores(each, references, token_vectors) for each in list(zip(*texts, strict=True))[:DRAWS]]
    mean = {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]}
    scores = {"mbr": reference_scores(chosen, references, token_vectors), "sample": mean | {"n": draws[0]["n"]}}
    if several := [each for each in references if len(each) > 1]:
        first, others = [each[0] for each in several], [each[1:] for each in several]
        scores["human"] = reference_scores(first, others, token_vectors)
    return scores


def reference_scores(
    hypotheses: Sequence[str], references: References, token_vectors: TokenVectors
) -> dict[str, float]:
    """How close hypotheses are to their references, each measure 0 to 100 but CIDEr, 0 to 1,000; and their number `n`.

    Raises:
        UserError: there is no hypothesis, or one has no reference.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise UserError("Every text that is held against references needs at least one.")
    found = [plain(text).split() for text in hypotheses]
    wanted = [[plain(text).split() for text in each] for each in references]
    return {
        "bleu_4": bleu_4(hypotheses, references),
        "rouge_l": 100 * sum(map(rouge_l, found, wanted)) / len(found),
        "cider": 100 * cider(found, wanted),
        "bert_score": bert_score(hypotheses, references, token_vectors),
        "n": len(hypotheses),
    }


def bleu_4(hypotheses: Sequence[str], references: References) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002) in lower case, 0 to 100; the number of references may vary."""
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, references))
    # sacrebleu takes None for a reference that is not there, though its types do not say so.
    streams: Any = [[refs[i] if i < len(refs) else None for refs in references] for i in range(most)]
    return float(BLEU(lowercase=True).corpus_score(hypotheses, streams).score)


def plain(text: str) -> str:
    """The words in lower case with a space between two, punctuation left out: what ROUGE-L and CIDEr read."""
    return " ".join(word for word in map(str.lower, words_of(text)) if any(map(str.isalnum, word)))


BETA = 1.2
"""Weight of recall in COCO's ROUGE-L."""


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F of the longest common subsequence (Lin 2004), in [0, 1]: the best precision and the best recall, as COCO takes them."""
    common = [_longest_common(hypothesis, reference) for reference in references]
    precision = max(common) / max(1, len(hypothesis))
    recall = max(each / max(1, len(reference)) for each, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        above = row
        row = [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(row[j], above[j + 1]))
    return row[-1]


LENGTH_SIGMA = 6.0
"""Standard deviation of the length penalty of CIDEr-D, in word pairs."""


def cider(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Mean CIDEr-D (Vedantam et al. 2015), 0 to 10; 0 for a single text, since it weighs n-grams by their rarity."""
    counted = [[_counts(words) for words in each] for each in references]
    often = Counter(gram for each in counted for gram in set().union(*each))

    def weighed(counts: Counter[Gram]) -> Counter[Gram]:
        rarity = {gram: math.log(len(hypotheses)) - math.log(max(1, often[gram])) for gram in counts}
        return Counter({gram: count * rarity[gram] for gram, count in counts.items()})

    def likeness(a: Counter[Gram], b: Counter[Gram]) -> float:
        """Mean over the orders of the clipped cosine, less for another length."""
        products, of_a, of_b = ([0.0] * ORDER for _ in range(3))
        for gram, weight in a.items():
            products[len(gram) - 1] += min(weight, b[gram]) * b[gram]
        for total, each in ((of_a, a), (of_b, b)):
            for gram, weight in each.items():
                total[len(gram) - 1] += weight**2
        cosines = (p / math.sqrt(x * y) if x and y else p for p, x, y in zip(products, of_a, of_b, strict=True))
        return sum(cosines) / ORDER

    total = 0.0
    for words, own, texts in zip(hypotheses, counted, references, strict=True):
        vector, pairs = weighed(_counts(words)), max(0, len(words) - 1)
        for counts, reference in zip(own, texts, strict=True):
            penalty = math.exp(-((pairs - max(0, len(reference) - 1)) ** 2) / (2 * LENGTH_SIGMA**2))
            total += penalty * likeness(vector, weighed(counts)) / len(own)
    return 10 * total / len(hypotheses)


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
            ids, mask = (part.to(lm.device) for part in gather(corpus, chosen[rows], lm.tokenizer.pad_id, canvas))
            for _ in range(draws):
                each = bound.estimate(lm.denoiser, ids, mask, seen)
                nats += float((each * mask.sum(-1)).sum()) / draws
                seen += len(ids)
    tokens = int((lengths[chosen] - 1).sum())
    of_length = 0.0
    if canvas is None:
        p = lm.lengths.double() / lm.lengths.sum()
        of_length = float(-p[lengths[chosen]].clamp(min=UNSEEN).log().sum())
    return Likelihood((nats + of_length) / tokens, of_length / tokens, len(chosen))
