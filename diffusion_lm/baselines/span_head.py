"""p(words first to last are a constituent with this label | a prefix and the next word), FUDGE's discriminator of spans."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.trees import Span

FAR = 64
"""Words from here on are told apart no more."""
MOVES = 4
"""How many words a corrupted span is off at most."""


class SpanHead(nn.Module):
    """A perceptron on a state, and on where a span begins and ends as seen from the word, and its label."""

    def __init__(self, width: int, chains: Sequence[str]) -> None:
        super().__init__()
        self.index = {chain: i for i, chain in enumerate(chains)}
        self.state = nn.Linear(width, width)
        self.first = nn.Embedding(2 * FAR + 1, width)
        self.last = nn.Embedding(2 * FAR + 1, width)
        self.label = nn.Embedding(len(chains), width)
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, states: Tensor, places: Tensor, spans: Tensor) -> Tensor:
        """Logits [..., Q] of Q spans, at states [..., H] of the words at places [...].

        Args:
            states: of a prefix and the next word.
            places: of that word, counted from 0.
            spans: first word, last word, number of the label, [..., Q, 3].
        """
        first, last = (
            table((spans[..., i] - places[..., None]).clamp(-FAR, FAR) + FAR)
            for i, table in enumerate((self.first, self.last))
        )
        x = F.gelu(self.state(states)[..., None, :] + first + last + self.label(spans[..., 2]))
        return self.out(F.gelu(self.inner(x))).squeeze(-1).float()

    def log_p(self, states: Tensor, place: int, spans: Sequence[Span]) -> Tensor:
        """Sum of the log-probabilities of spans, [...], at states [..., H] of words at one place."""
        numbers = torch.tensor(self.numbers(spans), device=states.device)
        places = torch.full(states.shape[:-1], place, device=states.device)
        return F.logsigmoid(self(states, places, numbers)).sum(-1)

    def numbers(self, spans: Sequence[Span]) -> list[list[int]]:
        """First word, last word and number of the label of each."""
        return [[span.start, span.stop - 1, self.index[span.label]] for span in spans]


def corrupted(span: Span, chains: Sequence[str], rng: random.Random) -> Span:
    """The span with another label, or with its first, its last, or both moved; it may end after the sentence."""
    start, stop, label = span
    what = rng.randrange(4)
    move = rng.choice((-1, 1)) * rng.randint(1, MOVES)
    if what == 0:
        return Span(start, stop, rng.choice(chains))
    start, stop = start + move * (what != 1), stop + move * (what != 2)
    return Span(max(0, start), max(stop, start + 1, 1), label)
