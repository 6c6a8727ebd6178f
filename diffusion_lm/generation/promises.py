"""Promises kept: a sentence that breaks one is written anew, held to what it left out, until none is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton, combine
from diffusion_lm.control.program import Program, Promise
from diffusion_lm.generation.layout import Asked, Model

TRIES = 20
"""How often a sentence is written anew that breaks a promise."""


def broken(lm: Model, program: Program, ids: Sequence[int]) -> list[tuple[Promise, str]]:
    """What a sentence, START words END, does not do of what is promised: the promises, and what of each."""
    if not program.promises:
        return []
    text = lm.tokenizer.decode(ids)
    return [(promise, name) for promise in program.promises for name in promise.broken(text)]


Held = dict[tuple[Promise, str], Automaton]
"""What a sentence is held to."""


def keep_promises(
    lm: Model,
    asked: Asked,
    ids: list[list[int]],
    generator: torch.Generator,
    draw: Callable[[Asked], tuple[list[list[int]], Tensor, int]],
) -> int:
    """Put another in the place of each sentence that breaks a promise, until none does; the passes that this took.

    A sentence is held to all that was broken in its place, by one automaton, and so breaks only others the next time. An
    automaton of all that is promised would have thousands of states, and most sentences keep most of it anyway.

    Raises:
        UserError: a sentence still breaks one after `TRIES`.
    """
    held: list[Held] = [{} for _ in ids]
    passes = 0
    for _ in range(TRIES):
        found = [broken(lm, program, own) for program, own in zip(asked.programs, ids, strict=True)]
        rows = [row for row, missing in enumerate(found) if missing]
        if not rows:
            return passes
        programs = []
        for row in rows:
            held[row] |= {(promise, name): promise.way(name, generator) for promise, name in found[row]}
            try:
                programs.append(_held_to(asked.programs[row], held[row]))
            except UserError:  # too much at once for an automaton, or for a sentence: what is newly broken alone
                held[row] = {key: held[row][key] for key in found[row]}
                programs.append(_held_to(asked.programs[row], held[row]))
        # Each is held to its own, so none takes another's place.
        again, _, more = draw(Asked(programs, list(range(len(rows)))))
        passes += more
        for row, sentence in zip(rows, again, strict=True):
            ids[row] = sentence
    raise UserError(f"After {TRIES} tries a text does not say all that it has to; ask for less.")


def _held_to(program: Program, held: Held) -> Program:
    """The program with an automaton of all that a sentence is held to."""
    what, own = "All that has to be said", [] if program.automaton is None else [program.automaton]
    joint = reduce(lambda a, b: combine(a, b, and_, what), [*own, *held.values()])
    canvas = program.canvas.with_allowed(joint.lengths(program.canvas.max_words), what)
    return replace(program, canvas=canvas, automaton=joint)
