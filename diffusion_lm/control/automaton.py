"""A finite automaton over words, and exact draws of p(words | z_t, the automaton accepts)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError, pick
from diffusion_lm.model.gaps import between

BANNED = -1e4
"""Logit of a word that cannot stand at a position; finite, so that no softmax meets a row of -inf."""
NEVER = -1
"""Class of tokens that are no words: START, END, UNK and PAD."""
MOST_STATES = 6000
"""Automata beyond this are refused: sampling walks through all states at every position of every step."""
MOST_STEPS = 400_000
"""States times classes: what a sentence needs of memory while it is drawn."""
FEW = 16
"""A class of so many words is summed apart."""
_FLOOR = 1e-300
"""A word this unlikely is one that another control has banned; a path through it is possible only on paper."""

State = TypeVar("State", bound=Hashable)


@final
@dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton that starts in state 0 and reads one word a step.

    Words that every state treats alike share a class, so that the cost is that of classes, not of words.
    """

    classes: Tensor
    """The class of every token, `NEVER` for one that is no word, [V]."""
    next: Tensor
    """The state that follows a state and a class, [S, C]."""
    accept: Tensor
    """True at states in which a sentence may end, [S]."""

    def accepts(self, ids: Iterable[int]) -> bool:
        """Whether it accepts these words (START and END not among them)."""
        state = 0
        for i in ids:
            if self.classes[i] == NEVER:
                return False
            state = int(self.next[state, self.classes[i]])
        return bool(self.accept[state])

    def lengths(self, most: int) -> frozenset[int]:
        """The numbers of words, 1 to `most`, that an accepted sentence can have."""
        used = self.next[:, self.classes[self.classes != NEVER].unique()]
        reached, found = torch.tensor([0]), set()
        for words in range(1, most + 1):
            reached = used[reached].unique()
            if bool(self.accept[reached].any()):
                found.add(words)
        return frozenset(found)

    @cached_property
    def _member(self) -> Tensor:
        """Which tokens are of which class, as 0 and 1, [V, C]."""
        return (self.classes[:, None] == torch.arange(self.next.shape[1], device=self.classes.device)).float()

    @cached_property
    def _small(self) -> list[tuple[int, Tensor]]:
        """The classes of few words, and the tokens of each."""
        tokens = ((c, (self.classes == c).nonzero().flatten()) for c in range(self.next.shape[1]))
        return [(c, own) for c, own in tokens if 0 < len(own) <= FEW]

    def class_log_p(self, logits: Tensor) -> Tensor:
        """Log-probability of each class at each position: [B, L, V] to [B, L, C], -inf for a class without words."""
        member = self._member.to(logits)
        sizes = member.sum(0)
        top = logits.amax(-1, keepdim=True)
        log_p = ((logits - top).exp() @ member).double().log()
        # A required word may be e^-200 as likely as the others, which float32 takes for nothing: its class is summed in logs.
        for c, tokens in self._small:
            log_p[..., c] = (logits[..., tokens].double() - top.double()).logsumexp(-1)
        lost = ((log_p < math.log(torch.finfo(logits.dtype).tiny)) & (sizes > FEW)).any(-1)
        if bool(lost.any()):
            rare = logits[lost].double()
            log_p[lost] = ((rare - rare.amax(-1, keepdim=True)).exp() @ member.double()).log()
        log_p = log_p.clamp(min=math.log(_FLOOR)).masked_fill(sizes == 0, -torch.inf)
        return log_p - log_p.logsumexp(-1, keepdim=True)

    def messages(self, log_p: Tensor, words: Tensor) -> Tensor:
        """The backward algorithm: log p(accept | state before position i) for i of 0 to L, [L + 1, B, S].

        Of log_p of the classes, [B, L, C]; the automaton reads the positions where `words` [B, L] is True.
        """
        follow = self.next.to(log_p.device)
        message = log_p.new_zeros(len(log_p), len(follow)).masked_fill(~self.accept.to(log_p.device), -torch.inf)
        out = [message]
        for i in reversed(range(log_p.shape[1])):
            before = (log_p[:, i, None] + message[:, follow]).logsumexp(-1)
            message = torch.where(words[:, i, None], before, message)
            out.append(message)
        return torch.stack(out[::-1])

    def constrain(self, logits: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits under which words that are drawn one by one make an accepted sentence.

        Backward filtering, forward sampling: one state path is drawn from p(path | z_t, accept); given the path the
        words are independent again, so all words but those that follow it are banned. A word drawn at each position
        from the result is therefore an exact draw from p(w_1 .. w_n | z_t, accept), and any choice is accepted.

        Args:
            logits: of p(w | z_t), [B, L, V].
            mask: True at positions that exist, START first and END last, [B, L].
            generator: source of the path, on the CPU; None for torch's own.

        Raises:
            UserError: if no sentence that the logits allow is accepted.
        """
        words = between(mask)
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            keep = self._path(self.class_log_p(logits), words, generator).to(logits)
            banned = keep @ self._member.to(logits).T < 0.5 * words[..., None]
        return logits.masked_fill(banned, BANNED)

    def _path(self, log_p: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        """The classes that follow one drawn path, [B, L, C]."""
        follow = self.next.to(log_p.device)
        messages = self.messages(log_p, words)
        # Drawn on the CPU, so that every device draws the same.
        uniform = torch.rand(words.shape, generator=generator, device="cpu").to(log_p)
        states, drawn = [torch.zeros(len(log_p), dtype=torch.long, device=log_p.device)], []
        for i in range(log_p.shape[1]):
            options = follow[states[-1]]
            chances = (log_p[:, i] + messages[i + 1].gather(1, options)).softmax(-1)
            drawn.append(pick(chances, uniform[:, i]))
            after = options.gather(1, drawn[-1][:, None])[:, 0]
            states.append(torch.where(words[:, i], after, states[-1]))
        chosen = torch.stack(drawn, 1)[..., None]
        real = log_p.gather(-1, chosen)[..., 0] > math.log(2 * _FLOOR)
        if not bool((real | ~words).all() & torch.isfinite(messages[0][:, 0]).all()):
            raise UserError("No sentence of this length does all that is wanted; drop one of the controls.")
        options = follow[torch.stack(states[:-1], 1)]
        return options == options.gather(-1, chosen)


def explore(start: State, step: Callable[[State, int], State], classes: int, what: str) -> tuple[list[State], Tensor]:
    """All states that can be reached from `start`, which is the first, and which of them follows state and class, [S, C].

    Raises:
        UserError: if there are more than `MOST_STATES`, or fewer where classes are many; it names `what`.
    """
    most = min(MOST_STATES, MOST_STEPS // max(classes, 1))
    number, states, rows = {start: 0}, [start], []
    for state in states:  # grows while it is walked
        followers = [step(state, c) for c in range(classes)]
        for follower in followers:
            if follower not in number:
                number[follower] = len(states)
                states.append(follower)
        if len(states) > most:
            raise UserError(f"{what} needs more than {most} states; ask for something simpler.")
        rows.append([number[f] for f in followers])
    return states, torch.tensor(rows, device="cpu")


def combine(a: Automaton, b: Automaton, how: Callable[[bool, bool], bool], what: str) -> Automaton:
    """The automaton that runs both; `how` says from their two verdicts whether it accepts. It may be refused, as by `explore`."""
    pairs, classes = torch.stack([a.classes, b.classes]).unique(dim=1, return_inverse=True)
    real = (pairs != NEVER).all(0)
    renumbered = torch.where(real, real.cumsum(0) - 1, NEVER)
    of_a, of_b = pairs[:, real]
    next_a, next_b, width = a.next[:, of_a], b.next[:, of_b], len(b.next)
    # Where one verdict is final and decides, the other automaton need not run on: else a union of many has countless states.
    decides_a, decides_b = _deciding(a, how), _deciding(b, lambda v, w: how(w, v))
    most = min(MOST_STATES, MOST_STEPS // max(len(of_a), 1))
    # A state is a number for two, i * width + j; those that are found are numbered in the order in which they are found.
    number = torch.full((len(a.next) * width,), NEVER)
    number[0], states, rows = 0, torch.tensor([0]), []
    new = states
    while len(new):
        i, j = next_a[new // width], next_b[new % width]
        by_a, by_b = decides_a[i], decides_b[j]
        rows.append(torch.where(by_b & ~by_a, 0, i) * width + torch.where(by_a, 0, j))
        new = rows[-1].unique()
        new = new[number[new] == NEVER]
        number[new] = len(states) + torch.arange(len(new))
        states = torch.cat([states, new])
        if len(states) > most:
            raise UserError(f"{what} needs more than {most} states; ask for something simpler.")
    verdicts = zip(a.accept[states // width].tolist(), b.accept[states % width].tolist(), strict=True)
    accept = torch.tensor([how(one, other) for one, other in verdicts])
    return Automaton(renumbered[classes], number[torch.cat(rows)], accept)


def _deciding(a: Automaton, how: Callable[[bool, bool], bool]) -> Tensor:
    """The states that are never left and whose verdict decides whatever the other automaton says, [S]."""
    stays = (a.next == torch.arange(len(a.next))[:, None]).all(1)
    return stays & torch.tensor([how(v, True) == how(v, False) for v in a.accept.tolist()])


def complement(a: Automaton) -> Automaton:
    """The automaton that accepts what `a` does not."""
    return Automaton(a.classes, a.next, ~a.accept)
