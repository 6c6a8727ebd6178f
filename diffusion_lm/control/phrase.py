"""A phrase as an automaton: sentences that say it as whole words, or sentences that do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lm.control.automaton import NEVER, Automaton, explore
from diffusion_lm.control.language import check_known
from diffusion_lm.errors import UserError
from diffusion_lm.text.fields import says
from diffusion_lm.text.spacing import bare, join_words, split_words


def phrase_automaton(phrase: str, tokens: Sequence[str], what: str, *, said: bool = True) -> Automaton:
    """The sentences whose text says a phrase in any case of letters, by `diffusion_lm.text.fields.says`.

    Every token that spells a word of the phrase in other letters or with other joiners counts, as far as the text
    then still says the phrase: "kid-friendly" is not said by "kid -friendly".

    Args:
        phrase: a word or more, punctuation marks included.
        tokens: the vocabulary with joiners, special tokens empty.
        what: names the control in an error.
        said: False for the sentences that do not say it.

    Raises:
        UserError: if there is no word in the phrase, or one that the vocabulary lacks.
    """
    pieces = split_words(phrase)
    if not pieces:
        raise UserError(f"{what} is empty; give a word or a phrase.")
    folded = [bare(token).casefold() for token in tokens]
    check_known([bare(piece).casefold() for piece in pieces], folded, what)
    match = torch.tensor(
        [[word == bare(piece).casefold() for word in folded] for piece in pieces], device="cpu"
    )
    breaks = torch.zeros(len(tokens), dtype=torch.bool, device="cpu")
    if said:
        for i in range(len(pieces)):
            for v in match[i].nonzero().flatten().tolist():
                match[i, v] = says(join_words(["x", *pieces[:i], tokens[v], *pieces[i + 1 :], "x"]), phrase)
        # "does" is no whole word in "doesn't".
        broken = [bool(token) and not says(join_words([*pieces, token]), phrase) for token in tokens]
        breaks = torch.tensor(broken, device="cpu")
        if not bool(match.any(1).all()):
            raise UserError(f"{what} cannot stand in a text as words of its own; use other words.")
    else:
        # "20.00" says 20, though it is one word; of a phrase, the first and the last word may be such.
        for i in {0, len(pieces) - 1}:
            around = [bare(piece) for piece in pieces]
            match[i] |= torch.tensor(
                [
                    bool(token) and says(join_words([*around[:i], bare(token), *around[i + 1 :]]), phrase)
                    for token in tokens
                ]
            )
    automaton = _build(match, breaks, what)
    if said:
        return automaton
    return Automaton(automaton.classes, automaton.next, ~automaton.accept)


def _build(match: Tensor, breaks: Tensor, what: str) -> Automaton:
    """The automaton of match [m, V] (which tokens are word i of the phrase) and breaks [V] (which undo its end).

    A state is the set of prefixes that the last words end with, as the Knuth-Morris-Pratt automaton has it where no two
    words of the phrase share a token; the whole phrase is final once a word that does not break it has followed.
    """
    length, columns = len(match), torch.cat([match, breaks[None]])
    kinds, classes = columns.unique(dim=1, return_inverse=True)
    of = kinds.T.tolist()
    final = frozenset([length + 1])

    def step(state: frozenset[int], c: int) -> frozenset[int]:
        if state == final or (length in state and not of[c][length]):
            return final
        return frozenset([0, *(i + 1 for i in state if i < length and of[c][i])])

    states, follow = explore(frozenset([0]), step, len(of), what)
    accept = torch.tensor([max(state) >= length for state in states], device="cpu")
    return Automaton(classes, follow, accept)


def without_specials(automaton: Automaton, tokens: Sequence[str]) -> Automaton:
    """The automaton with the special tokens, which are empty in `tokens`, banned."""
    words = torch.tensor([bool(token) for token in tokens], device="cpu")
    return Automaton(torch.where(words, automaton.classes, NEVER), automaton.next, automaton.accept)
