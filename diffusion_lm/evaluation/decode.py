"""Decoding word by word from anything that scores the next word: sampling and beam search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NextWord = Callable[[Tensor], Tensor]
"""(ids of START words [B, L]) -> log-probabilities of the next word, up to a constant, [B, V]."""


@dataclass(frozen=True)
class Ends:
    """Where sentences begin and end."""

    start: int
    end: int
    limit: int
    """Most ids of a sentence, START and END included; END is forced there."""


@torch.no_grad()
def sample(
    next_word: NextWord,
    ends: Ends,
    n: int,
    generator: torch.Generator | None,
    temperature: float = 1.0,
    device: torch.device | None = None,
) -> list[list[int]]:
    """Draw n sentences on a device, where the generator lives too; each is START words END."""
    done: list[list[int]] = [[] for _ in range(n)]
    rows, ids = torch.arange(n, device=device), torch.full((n, 1), ends.start, device=device)
    while len(rows):
        if ids.shape[1] == ends.limit - 1:
            drawn = torch.full((len(rows), 1), ends.end, device=device)
        else:
            drawn = torch.multinomial((next_word(ids) / temperature).softmax(-1), 1, generator=generator)
        ids = torch.cat([ids, drawn], dim=1)
        ended = ids[:, -1] == ends.end
        for row, sentence in zip(rows[ended].tolist(), ids[ended].tolist(), strict=True):
            done[row] = sentence
        rows, ids = rows[~ended], ids[~ended]
    return done


@torch.no_grad()
def beam_search(next_word: NextWord, ends: Ends, beams: int) -> list[list[int]]:
    """The likeliest sentences found, at most `beams`, the best first; by log-probability a word, END counted."""
    ids, scores = torch.full((1, 1), ends.start), torch.zeros(1)
    found: list[tuple[float, list[int]]] = []
    while len(ids) and len(found) < beams:
        log_p = scores[:, None] + next_word(ids).log_softmax(-1)
        if ids.shape[1] == ends.limit - 1:
            log_p = log_p[:, ends.end, None]
            found += [
                (float(p) / ids.shape[1], [*s, ends.end]) for p, s in zip(log_p, ids.tolist(), strict=True)
            ]
            break
        best, place = log_p.flatten().topk(min(beams, log_p.numel()))
        row, word = place // log_p.shape[1], place % log_p.shape[1]
        ids, scores = torch.cat([ids[row], word[:, None]], dim=1), best
        ended = word == ends.end
        found += [
            (float(p) / (len(s) - 1), s) for p, s in zip(scores[ended], ids[ended].tolist(), strict=True)
        ]
        ids, scores = ids[~ended], scores[~ended]
    return [sentence for _, sentence in sorted(found, reverse=True)[:beams]]
