"""Sentences drawn as wholes: p(w_i | z_t) of single words, tied by which words stand side by side.

A denoiser says p(w_i | z_t) of each position by itself. Far from t = 0 that speaks of many sentences at once, and words drawn
one by one mix them; it is why few steps give bad text. The chain

    p(w | z_t) = 1/Z  prod_i p(w_i | z_t)  prod_i R(w_i-1, w_i)^k(t),    R(a, b) = p(b | a) / p(b),

knows what neighbours say of each other, and is drawn from exactly: messages go back, words are drawn forth. The sampler of
Liu et al. 2024 ("Discrete Copula Diffusion") ties words by an autoregressive model instead, one pass a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion_lm.common import pick, ragged

BACK_OFF = 5.0
"""Pseudo-counts of a word behind a certain word, spread as words are anywhere."""
FAINT = 1e-15
"""What is less than this part of the most is made it, so that at low temperatures products stay above 0 in float32."""


FEW_WORDS = 2000
"""Words of which all pairs are written out where they are looked up: a few megabytes."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """How often words stand side by side in a corpus."""

    counts: Tensor
    """A word, the word behind it, how often; one row for each pair that occurs, sorted, int32 [n, 3]."""
    vocab_size: int

    @cached_property
    def _of_first(self) -> Tensor:
        """How often each word has one behind it, [V]."""
        return torch.zeros(self.vocab_size).index_add(0, self.counts[:, 0].long(), self.counts[:, 2].float())

    @cached_property
    def unseen(self) -> Tensor:
        """Log R(a, b) of a pair that does not occur, which is the same for every b, [V]."""
        return (BACK_OFF / (self._of_first + BACK_OFF)).log()

    @cached_property
    def seen(self) -> Tensor:
        """Log R(a, b) of those that do, [n]: p(b | a) with `BACK_OFF` pseudo-counts, over p(b)."""
        first, second, count = self.counts.T.long()
        often = torch.zeros(self.vocab_size).index_add(0, second, count.float())
        p = often / often.sum()
        return ((count / p[second] + BACK_OFF) / (self._of_first[first] + BACK_OFF)).log()

    def ties(self, strength: float, device: torch.device | None = None) -> Ties:
        """R^strength over its largest entry."""
        first, second, starts = self._places
        most = strength * float(self.seen.max())
        unseen = (strength * self.unseen - most).exp().clamp(min=FAINT)
        # A matrix whose columns are the same, and what those that occur have above it.
        more = ((strength * self.seen - most).exp() - unseen[first]).clamp(min=0)
        return Ties(*(part.to(device) for part in (unseen, starts, second, more)))

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """The words of the pairs that occur, [n] each, and where those of each first word begin, [V + 1]."""
        first, second, _ = self.counts.T.long()
        starts = torch.zeros(self.vocab_size + 1, dtype=torch.long)
        starts[1:] = torch.bincount(first, minlength=self.vocab_size).cumsum(0)
        return first, second, starts


class Ties:
    """A matrix of how much pairs of words belong together, M [V, V], most of whose rows are alike."""

    def __init__(self, unseen: Tensor, starts: Tensor, seconds: Tensor, more: Tensor) -> None:
        self.unseen, self.starts, self.seconds, self.more = unseen, starts, seconds, more
        size = (len(unseen), len(unseen))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compressed tensors are in beta
            self._matrix = torch.sparse_csr_tensor(starts, seconds, more, size, check_invariants=False)

    def before(self, x: Tensor) -> Tensor:
        """sum_b M[a, b] x[b] of every word a: [B, V] to [B, V]."""
        return (self._matrix @ x.T.contiguous()).T + self.unseen * x.sum(-1, keepdim=True)

    @cached_property
    def _whole(self) -> Tensor:
        """M itself, [V, V]."""
        rows = torch.arange(len(self.unseen), device=self.unseen.device)
        whole = self.unseen[:, None].repeat(1, len(rows))
        whole[rows.repeat_interleave(self.starts.diff()), self.seconds] += self.more
        return whole

    def behind(self, words: Tensor) -> Tensor:
        """M[a, b] of every word b behind certain words a: [B] to [B, V]."""
        if len(self.unseen) <= FEW_WORDS:
            return self._whole[words]
        rows = self.unseen[words, None].expand(-1, len(self.unseen)).clone()
        place, row = ragged(self.starts[words], self.starts[words + 1] - self.starts[words])
        rows[row, self.seconds[place]] += self.more[place]
        return rows

    def between(self, first: Tensor, second: Tensor) -> Tensor:
        """M[a, b] of pairs, any shape."""
        size = len(self.unseen)
        row = torch.repeat_interleave(torch.arange(size, device=first.device), self.starts.diff())
        keys, wanted = row * size + self.seconds, (first * size + second).contiguous()
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return self.unseen[first] + torch.where(keys[place] == wanted, self.more[place], 0.0)


def messages(p: Tensor, mask: Tensor, ties: Ties) -> tuple[Tensor, Tensor]:
    """What all words behind a position say of its word, up to a factor, [B, L, V], and log Z of these p and ties, [B].

    p [B, L, V] is what the denoiser says of each word, up to a factor; the mask [B, L] is True at positions that exist.
    """
    message = torch.ones_like(p[:, 0])
    found, scales = [message], [torch.ones_like(p[:, 0, :1])]
    for i in range(p.shape[1] - 1, 0, -1):
        here = ties.before(p[:, i] * message)
        scales.append(here.amax(-1, keepdim=True))
        message = torch.where(mask[:, i, None], (here / scales[-1]).clamp_(min=FAINT), message)
        found.append(message)
    scale = torch.where(mask, torch.cat(scales[::-1], 1).roll(1, 1).log(), 0.0).sum(1)
    return torch.stack(found[::-1], 1), scale + (p[:, 0] * message).sum(-1).log()


Opinion = Callable[[int, Tensor], Tensor]
"""(position i, the words before it [B]) -> what else there is to say of its word, in nats up to a constant, [B, V].

It is asked of each position behind the first in turn."""


def draw(
    p: Tensor, mask: Tensor, ties: Ties, generator: torch.Generator | None = None, opinion: Opinion | None = None
) -> Tensor:
    """Words of the chain, [B, L], each sentence an exact draw; p and the mask are as for `messages`.

    With an opinion each word's chances are multiplied by what that says. What the chain excludes stays excluded.
    """
    ahead, _ = messages(p, mask, ties)
    # Drawn where the generator lives, so that every device draws the same.
    uniform = torch.rand(mask.shape, generator=generator, device=generator.device if generator else p.device).to(p)
    likely = p * ahead
    words: list[Tensor] = []
    for i in range(p.shape[1]):
        weights = likely[:, i]
        if words:
            weights = weights * torch.where(mask[:, i, None], ties.behind(words[-1]), 1.0)
            if opinion is not None:  # in logs, since both may be sharp
                weights = (weights.log() + opinion(i, words[-1])).softmax(-1)
        words.append(pick(weights, uniform[:, i]))
    return torch.stack(words, 1)


def log_likelihood(p: Tensor, ids: Tensor, mask: Tensor, ties: Ties) -> Tensor:
    """Log p(w | z_t) of sentences under the chain, [B]; p is as for `messages`."""
    own = p.gather(-1, ids[..., None])[..., 0].log()
    pairs = ties.between(ids[:, :-1], ids[:, 1:]).log()
    _, log_z = messages(p, mask, ties)
    return (own * mask).sum(1) + (pairs * mask[:, 1:]).sum(1) - log_z
