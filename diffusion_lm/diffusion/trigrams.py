"""Sentences drawn as wholes: p(w_i | z_t) of single words, tied by which words stand in a row.

A denoiser says p(w_i | z_t) of each position by itself. Far from t = 0 that speaks of many sentences at once, and words drawn
one by one mix them; it is why few steps give bad text. Drawn in order they fit each other:

    w_i ~ p(w | z_t) R(w_i-2, w_i-1, w)^k b_i(w),     R(a, b, w) = p(w | a, b) / p(w),
    b_i(a) = sum_w R(a, w)^k p(w_i+1 = w | z_t) b_i+1(w),     b_L = 1,     R(a, w) = p(w | a) / p(w).

R is how much likelier a word is behind others than anywhere, counted in a corpus; k = k(t). b_i(w) looks ahead: how well what the
denoiser says of all words behind goes with w, exactly but for R's memory, which is one word there. Without it the words before
run into what is to come. With R of one word everywhere this is an exact draw from a chain, a conditional random field. Liu et al.
2024 ("Discrete Copula Diffusion") tie words by an autoregressive network instead, one pass of it a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion_lm.common import ragged

BACK_OFF = 5.0
"""Pseudo-counts of a word behind one other, spread as words are anywhere."""
DISCOUNT = 0.7
"""What is taken from each count behind two others, and spread as words are behind the second (Ney et al. 1994)."""
NONE = -1
"""Where no word stands."""
FAINT = 1e-15
"""What is less than this part of the most is made it, so that at low temperatures products stay above 0 in float32."""


@dataclass(frozen=True, eq=False)
class Trigrams:
    """How often two and three words stand in a row in a corpus."""

    pairs: Tensor
    """A word, the word behind it, how often; one row for each pair that occurs, sorted, int32 [m, 3]."""
    triples: Tensor
    """A row of `pairs`, the word behind that pair, how often, sorted; those that are rare may be left out, int32 [n, 3]."""
    vocab_size: int

    def to(self, device: torch.device) -> Trigrams:
        """The same elsewhere."""
        return (
            self
            if self.pairs.device == device
            else Trigrams(self.pairs.to(device), self.triples.to(device), self.vocab_size)
        )

    @cached_property
    def _keys(self) -> Tensor:
        """Each pair as one number, [m]."""
        first, second, _ = self.pairs.T.long()
        return first * self.vocab_size + second

    @cached_property
    def _behind_one(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By word: p(b | a) / p(b) of every b that never stands behind it, [V]; where its pairs begin, and how many, [V].

        By pair: what p(b | a) / p(b) is above that, [m].
        """
        first, second, count = self.pairs.T.long()
        often = count.new_zeros(self.vocab_size).index_add(0, second, count).float()
        p = often / often.sum()
        total = count.new_zeros(self.vocab_size).index_add(0, first, count).float() + BACK_OFF
        sizes = torch.bincount(first, minlength=self.vocab_size)
        return BACK_OFF / total, sizes.cumsum(0) - sizes, sizes, count / p[second] / total[first]

    @cached_property
    def _behind_two(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By pair, the last of all that do not occur: p(b | a)'s share, where its triples begin, and how many, [m + 1].

        By triple: what p(w | a, b) / p(w) has of its own, [n].
        """
        row, word, count = self.triples.T.long()
        often = self.pairs[:, 2].new_zeros(self.vocab_size).index_add(0, self.pairs[:, 1], self.pairs[:, 2]).float()
        p, total = often / often.sum(), torch.cat([self.pairs[:, 2].float(), often.new_ones(1)])
        own = (count - DISCOUNT) / total[row]
        share = torch.ones_like(total).index_add(0, row, -own)
        sizes = torch.bincount(row, minlength=len(total))
        return share, sizes.cumsum(0) - sizes, sizes, own / p[word]

    def log_ratio(self, first: Tensor, second: Tensor) -> Tensor:
        """Log R of every word behind two words [B], the first of which may be `NONE`, [B, V]."""
        unseen, begin, size, more = self._behind_one
        share, begin_two, size_two, own = self._behind_two
        key = first * self.vocab_size + second
        found = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
        pair = torch.where((self._keys[found] == key) & (first != NONE), found, len(self._keys))
        place, row = ragged(begin[second], size[second])
        # Of each word there is p(b | a), the same for all that do not occur, and more for those that do.
        ratio = (share[pair] * unseen[second])[:, None].repeat(1, self.vocab_size)
        ratio[row, self.pairs[place, 1].long()] += share[pair][row] * more[place]
        place, row = ragged(begin_two[pair], size_two[pair])
        ratio[row, self.triples[place, 1].long()] += own[place]
        return ratio.log()

    def ahead(self, strength: float) -> Callable[[Tensor], Tensor]:
        """From x [B, V] to sum_w R(a, w)^strength x[w] of every a, [B, V], up to a factor."""
        unseen, begin, _, more = self._behind_one
        first, second, _ = self.pairs.T.long()
        seen = (more + unseen[first]).log()
        most = strength * float(seen.max())
        rest = (strength * unseen.log() - most).exp().clamp(min=FAINT)
        # A matrix whose columns are the same, and what those that occur have above it.
        above = ((strength * seen - most).exp() - rest[first]).clamp(min=0)
        starts = torch.cat([begin, begin.new_tensor([len(first)])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compressed tensors are in beta
            size = (self.vocab_size, self.vocab_size)
            matrix = torch.sparse_csr_tensor(starts, second, above, size, check_invariants=False)
        return lambda x: (matrix @ x.T.contiguous()).T + rest * x.sum(-1, keepdim=True)


def messages(p: Tensor, mask: Tensor, ahead: Callable[[Tensor], Tensor]) -> Tensor:
    """b_i(w) of every position and word, up to a factor of the position, [B, L, V].

    p [B, L, V] is p(w_i | z_t); the mask [B, L] is True at positions that exist.
    """
    message = torch.ones_like(p[:, 0])
    found = [message]
    for i in range(p.shape[1] - 1, 0, -1):
        here = ahead(p[:, i] * message)
        message = torch.where(mask[:, i, None], (here / here.amax(-1, keepdim=True)).clamp(min=FAINT), message)
        found.append(message)
    return torch.stack(found[::-1], 1)


class _Order:
    """Sentences in the order of their words: what each word's distribution is, once those before it are there."""

    def __init__(self, log_p: Tensor, mask: Tensor, trigrams: Trigrams, strength: float) -> None:
        self.mask, self.trigrams, self.strength = mask, trigrams, strength
        self.scores = log_p + messages(log_p.softmax(-1), mask, trigrams.ahead(strength)).log()

    def log_p(self, words: Sequence[Tensor]) -> Tensor:
        """Of the word behind these [B], the first of all if there are none, [B, V]."""
        i = len(words)
        if not i:
            return self.scores[:, 0].log_softmax(-1)
        first = words[-2] if i > 1 else torch.full_like(words[-1], NONE)
        ties = self.strength * self.trigrams.log_ratio(first, words[-1])
        return (self.scores[:, i] + torch.where(self.mask[:, i, None], ties, 0.0)).log_softmax(-1)


def draw(
    log_p: Tensor, mask: Tensor, trigrams: Trigrams, strength: float, generator: torch.Generator | None = None
) -> Tensor:
    """Words in their order, [B, L].

    `log_p` [B, L, V] is log p(w_i | z_t) up to a constant; the mask [B, L] is True at positions that exist.
    """
    # Drawn where the generator lives, so that every device draws the same.
    uniform = torch.rand(mask.shape, generator=generator, device=generator.device if generator else log_p.device)
    order, words = _Order(log_p, mask, trigrams, strength), list[Tensor]()
    for u in uniform.to(log_p).unbind(1):
        cumulative = order.log_p(words).exp().cumsum(-1)
        drawn = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)[:, 0]
        words.append(drawn.clamp(max=log_p.shape[-1] - 1))
    return torch.stack(words, 1)


def log_likelihood(log_p: Tensor, ids: Tensor, mask: Tensor, trigrams: Trigrams, strength: float) -> Tensor:
    """Log of the probability that `draw` has of sentences [B, L], [B]; the other arguments are as there."""
    order, words = _Order(log_p, mask, trigrams, strength), ids.unbind(1)
    each = [order.log_p(words[:i]).gather(-1, word[:, None])[:, 0] for i, word in enumerate(words)]
    return torch.where(mask, torch.stack(each, 1), 0.0).sum(1)
