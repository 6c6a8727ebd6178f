"""Generated texts against what people wrote for the same purpose: BLEU, ROUGE-L, CIDEr, and a BERTScore (paper, Table 5).

The first three follow the paper's script, e2e-metrics: BLEU in lower case, and COCO's ROUGE-L and CIDEr on lower-case
words without punctuation. The fourth has the form of BERTScore on a small encoder: it is not comparable with the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.optional import REFERENCES, require
from diffusion_lm.text.spacing import bare, split_words

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


def reference_scores(
    hypotheses: Sequence[str], references: References, token_vectors: TokenVectors
) -> ReferenceScores:
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
