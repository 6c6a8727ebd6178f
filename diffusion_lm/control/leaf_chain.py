"""A Markov chain of leaves that emits universal tags: which syntax a sequence of parts of speech may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACK_OFF = 1.0
"""Pseudo-counts of a leaf behind a certain leaf, spread as leaves are anywhere."""
OTHER_TAG = 0.02
"""Pseudo-count of each tag for each leaf."""


@dataclass(frozen=True)
class LeafChain:
    """p(leaf | leaf before) and p(tag | leaf), as probabilities.

    Attributes:
        follows: row and column K stand for the sentence's edge, [K + 1, K + 1].
        tags: [K, T].
    """

    follows: Tensor
    tags: Tensor

    @staticmethod
    def of_counts(follows: Tensor, tags: Tensor, kinds: int, number: int) -> LeafChain:
        """From rows (leaf, next leaf, count), the edge being leaf `kinds`, and rows (leaf, tag, count), int [n, 3]."""

        def dense(rows: Tensor, *shape: int) -> Tensor:
            rows = rows.long()
            return torch.zeros(shape).index_put((rows[:, 0], rows[:, 1]), rows[:, 2].float())

        pairs, emitted = dense(follows, kinds + 1, kinds + 1), dense(tags, kinds, number) + OTHER_TAG
        pairs = pairs + BACK_OFF * pairs.sum(0) / pairs.sum()
        return LeafChain(pairs / pairs.sum(1, keepdim=True), emitted / emitted.sum(1, keepdim=True))

    def sample(self, tags: Tensor, n: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw sequences of leaves given their tags: backward messages, then forward sampling.

        Args:
            tags: the tag of each position, [L].
            n: number of sequences.
            temperature: of every draw; 1 is the exact posterior, below 1 prefers the usual.
            generator: source of the draws.

        Returns:
            Leaves, [n, L].
        """
        edge = len(self.tags)
        emitted = self.tags[:, tags].T
        # later[i]: p(tags behind i, the end | leaf i), up to a factor.
        later = [self.follows[:edge, edge]]
        for emission in emitted.flip(0)[:-1]:
            message = self.follows[:edge, :edge] @ (emission * later[0])
            later.insert(0, message / message.max())
        before, drawn = torch.full((n,), edge), []
        for emission, message in zip(emitted, later, strict=True):
            log_p = (self.follows[before, :edge] * emission * message).clamp(min=1e-30).log()
            before = torch.multinomial((log_p / temperature).softmax(-1), 1, generator=generator)[:, 0]
            drawn.append(before)
        return torch.stack(drawn, dim=1)
