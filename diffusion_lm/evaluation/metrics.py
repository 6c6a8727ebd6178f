"""Measures of sets of texts: how varied they are, how close to references, and a bound on their likelihood."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import torch
from nltk.util import everygrams, ngrams
from torch import Tensor

from diffusion_lm.common import UserError, same_noise
from diffusion_lm.diffusion.losses import VariationalBound, counted, spread_times
from diffusion_lm.diffusion.process import Given
from diffusion_lm.generation.layout import length_nats
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.gaps import ends_known
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.text.spacing import words_of

ORDER = 4
"""Words of the longest n-grams of BLEU and CIDEr."""
Gram = tuple[str, ...]
Words = Sequence[str]


@dataclass(frozen=True)
class Distinct:
    """The distinct n-grams of a set of sentences."""

    count: int
    """Number of different n-grams. It grows with the size of the set: compare sets of equal size."""
    ratio: float
    """`count` over the number of all n-grams, in [0, 1]; 0 where no sentence is n words long."""


def distinct(sentences: Sequence[Words], n: int) -> Distinct:
    """Count the distinct n-grams (distinct-n of Li et al., 2016); none crosses two sentences."""
    if n < 1:
        raise UserError(f"n-grams have at least one word, not {n}.")
    grams = [gram for words in sentences for gram in ngrams(words, n)]
    count = len(set(grams))
    return Distinct(count, count / max(1, len(grams)))


def self_bleu(sentences: Sequence[Words]) -> float:
    """Mean BLEU-4 of sentences against all the other sentences as references (Zhu et al., 2018), 0 to 100.

    Exact over the set: counts are clipped against all the other sentences, and the brevity penalty takes the closest of their
    lengths, the shorter of two. The formula is sacrebleu's sentence BLEU (exponential smoothing, effective order) on the words
    as given. High means alike. The score grows with the size of the set: compare sets of equal size.

    Raises:
        UserError: there are fewer than two sentences.
    """
    if len(sentences) < 2:
        raise UserError("Self-BLEU compares sentences with each other, so it needs at least two.")
    grams = [gram_counts(words) for words in sentences]
    # The largest count of an n-gram in the other sentences follows from its two largest in one.
    most: dict[Gram, tuple[int, int]] = {}
    for counts in grams:
        for gram, count in counts.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (max(first, count), max(second, min(first, count)))
    lengths = Counter(map(len, sentences))
    scores = [_bleu(own, most, len(words), lengths) for own, words in zip(grams, sentences, strict=True)]
    return sum(scores) / len(scores)


def gram_counts(words: Words, order: int = ORDER) -> Counter[Gram]:
    """How often a text has each n-gram of up to `order` words."""
    return Counter(everygrams(words, max_len=order))


def _bleu(own: Counter[Gram], most: dict[Gram, tuple[int, int]], length: int, lengths: Counter[int]) -> float:
    """BLEU-4 of one sentence against all the others."""
    from sacrebleu.metrics.bleu import BLEU

    correct = [0] * ORDER
    for gram, count in own.items():
        first, second = most[gram]
        correct[len(gram) - 1] += min(count, second if count == first else first)
    total = [max(0, length - n) for n in range(ORDER)]
    others = [other for other, number in lengths.items() if number > (other == length)]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return float(BLEU.compute_bleu(correct, total, length, closest, "exp", effective_order=True).score)


# -- the text of least risk --------------------------------------------------------------------------------------------


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Sentence BLEU-4 with one added to the counts of word pairs and longer, 0 to 100: the paper's utility."""
    return float(_mbr_bleu().sentence_score(hypothesis, [reference]).score)


@cache
def _mbr_bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # Smoothed, an order that a short text lacks counts 1 of 1, effective or not; sacrebleu would warn at every call.
    return BLEU(lowercase=True, smooth_method="add-k", smooth_value=1, effective_order=True)


def choose(candidates: Sequence[str], utility: Callable[[str, str], float] = sentence_bleu) -> int:
    """The number of the candidate with the highest mean utility against all the others, the first of equals.

    A candidate that stands there twice counts twice; `utility` is of (hypothesis, reference), more is better.
    """
    known = cache(utility)  # samples repeat each other, short ones often
    total = [sum(known(one, two) for j, two in enumerate(candidates) if j != i) for i, one in enumerate(candidates)]
    return total.index(max(total))


# -- against references ------------------------------------------------------------------------------------------------

TokenVectors = Callable[[Sequence[str]], list[Tensor]]
"""Texts -> unit vectors of the tokens of each, N times [L, D]."""
References = Sequence[Sequence[str]]
"""One or more references of each hypothesis."""
DRAWS = 5
"""Texts of each target whose figures are averaged; they are alike but for chance."""


Against = Callable[[Sequence[str], References, Sequence[str]], dict[str, float]]
"""(a text of each target, the references of each, their values) to figures, `n` among them."""


def scores_by_way(
    texts: Sequence[Sequence[str]],
    chosen: Mapping[str, Sequence[str]],
    references: References,
    values: Sequence[str],
    score: Against,
) -> dict[str, dict[str, float]]:
    """Figures of what was written where people have written something too: texts, references and values by target.

    Returns:
        each way of choosing: of the text of each target that it chose, such as mbr, of least risk by sentence BLEU.
        sample: the mean over the first `DRAWS` texts of each target.
        human: the first reference against the others, of the targets that have several; absent where none has.
    """
    draws = [score(each, references, values) for each in list(zip(*texts, strict=True))[:DRAWS]]
    scores = {
        **{way: score(each, references, values) for way, each in chosen.items()},
        "sample": {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]} | {"n": len(texts)},
    }
    if several := [(each, value) for each, value in zip(references, values, strict=True) if len(each) > 1]:
        first, others = [each[0] for each, _ in several], [each[1:] for each, _ in several]
        scores["human"] = score(first, others, [value for _, value in several])
    return scores


def scores_of_gaps(token_vectors: TokenVectors) -> Against:
    """`reference_scores` of what was written into gaps."""
    vectors = remembered(token_vectors)
    return lambda texts, references, values: reference_scores(texts, references, vectors)


def reference_scores(
    hypotheses: Sequence[str], references: References, token_vectors: TokenVectors
) -> dict[str, float]:
    """How close hypotheses are to their references, each measure 0 to 100 but CIDEr, 0 to 1,000; and their number `n`.

    Raises:
        UserError: there is no hypothesis, or one has no reference.
    """
    check_references(hypotheses, references)
    found = [plain(text).split() for text in hypotheses]
    wanted = [[plain(text).split() for text in each] for each in references]
    return {
        "bleu_4": bleu_4(hypotheses, references),
        "rouge_l": 100 * sum(map(rouge_l, found, wanted)) / len(found),
        "cider": 100 * cider(found, wanted),
        "bert_score": bert_score(hypotheses, references, token_vectors),
        "n": len(hypotheses),
    }


def check_references(hypotheses: Sequence[str], references: References) -> None:
    """A `UserError` if there is no hypothesis, or one has no reference."""
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise UserError("Every text that is held against references needs at least one.")


def bleu_4(hypotheses: Sequence[str], references: References) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002) in lower case, 0 to 100; the number of references may vary."""
    from sacrebleu.metrics.bleu import BLEU

    # sacrebleu takes None for a reference that is not there, though its types do not say so.
    streams: Any = list(zip_longest(*references))
    return float(BLEU(lowercase=True).corpus_score(hypotheses, streams).score)


def plain(text: str) -> str:
    """The words in lower case with a space between two, punctuation left out: what ROUGE-L and CIDEr read."""
    return " ".join(word for word in map(str.lower, words_of(text)) if any(map(str.isalnum, word)))


BETA = 1.2
"""Weight of recall in COCO's ROUGE-L; the library rouge-score has 1, and takes one reference."""


def rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """F of the longest common subsequence (Lin 2004), in [0, 1]: the best precision and the best recall, as COCO takes them."""
    common = [_longest_common(hypothesis, reference) for reference in references]
    precision = max(common) / max(1, len(hypothesis))
    recall = max(each / max(1, len(reference)) for each, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0


def _longest_common(a: Words, b: Words) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        above, row = row, [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(row[j], above[j + 1]))
    return row[-1]


LENGTH_SIGMA = 6.0
"""Standard deviation of the length penalty of CIDEr-D, in word pairs."""


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Mean CIDEr-D (Vedantam et al. 2015), 0 to 10; 0 for a single text, since it weighs n-grams by their rarity."""
    often = Counter(gram for texts in references for gram in set().union(*map(gram_counts, texts)))

    def weighed(words: Words) -> dict[Gram, float]:
        rarity = math.log(len(hypotheses))
        return {gram: n * (rarity - math.log(max(1, often[gram]))) for gram, n in gram_counts(words).items()}

    total = 0.0
    for words, texts in zip(hypotheses, references, strict=True):
        vector, pairs = weighed(words), max(0, len(words) - 1)
        for text in texts:
            gap = pairs - max(0, len(text) - 1)
            total += math.exp(-(gap**2) / (2 * LENGTH_SIGMA**2)) * _clipped_cosine(vector, weighed(text)) / len(texts)
    return 10 * total / len(hypotheses)


def _clipped_cosine(a: dict[Gram, float], b: dict[Gram, float]) -> float:
    """Mean over the orders of the cosine, in whose product no n-gram of `a` counts more than it does in `b`."""
    product, of_a, of_b = ([0.0] * ORDER for _ in range(3))
    for gram, weight in a.items():
        product[len(gram) - 1] += min(weight, b.get(gram, 0.0)) * b.get(gram, 0.0)
        of_a[len(gram) - 1] += weight**2
    for gram, weight in b.items():
        of_b[len(gram) - 1] += weight**2
    return sum(p / math.sqrt(x * y) if x and y else p for p, x, y in zip(product, of_a, of_b, strict=True)) / ORDER


def remembered(token_vectors: TokenVectors) -> TokenVectors:
    """The same, each text encoded once: references come back with every set of hypotheses."""
    known: dict[str, Tensor] = {}

    def vectors(texts: Sequence[str]) -> list[Tensor]:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, token_vectors(new), strict=True))
        return [known[text] for text in texts]

    return vectors


def bert_score(hypotheses: Sequence[str], references: References, token_vectors: TokenVectors) -> float:
    """Mean over the texts of the highest `matching` F1 with a reference, times 100."""
    vectors = remembered(token_vectors)
    vectors([*hypotheses, *chain.from_iterable(references)])  # together, so in few batches
    pairs = zip(hypotheses, references, strict=True)
    best = [max(matching(*vectors([text, reference])) for reference in each) for text, each in pairs]
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


# -- likelihood --------------------------------------------------------------------------------------------------------


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
    bound, canvas, lengths = VariationalBound(steps=None), lm.config.canvas, corpus.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // n))[:n]
    sizes = torch.full_like(lengths, canvas) if canvas else lengths
    nats, of_length, seen = 0.0, 0.0, 0
    with same_noise(lm.device, seed):
        for rows in token_batches(sizes[chosen], 4096, None):
            ids, mask = (part.to(lm.device) for part in gather(corpus, chosen[rows], lm.tokenizer.pad_id, canvas))
            given = Given(ends_known(ids, mask)) if lm.denoiser.knows_given else None
            for _ in range(draws):
                u = spread_times(seen, len(ids), lm.device)
                each = bound.estimate(lm.denoiser, ids, mask, u, given)
                nats += float((each * counted(mask, given).sum(-1)).sum()) / draws
                seen += len(ids)
            of_length += float(length_nats(lm, mask, given).sum())
    tokens = int((lengths[chosen] - 1).sum())
    return Likelihood((nats + of_length) / tokens, of_length / tokens, len(chosen))
