"""Promises kept: a sentence that breaks one is written anew, held to what it left out, until none is broken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_

import torch

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton, combine
from diffusion_lm.control.program import Program, Promise
from diffusion_lm.generation.layout import Asked, Model

logger = logging.getLogger(__name__)

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
    write: Callable[[Asked], tuple[list[list[int]], int]],
) -> int:
    """Put another in the place of each sentence that breaks a promise, until none does; the passes that this took.

    A sentence is held to all that was broken in its place, by one automaton, and so breaks only others the next time. An
    automaton of all that is promised would have thousands of states, and most sentences keep most of it anyway.

    Raises:
        UserError: a sentence still breaks one after `TRIES`; unless no automaton keeps that one, which is logged.
    """

    def breaks() -> dict[int, list[tuple[Promise, str]]]:
        found = [broken(lm, program, own) for program, own in zip(asked.programs, ids, strict=True)]
        return {row: own for row, own in enumerate(found) if own}

    held: list[Held] = [{} for _ in ids]
    passes = 0
    for _ in range(TRIES):
        if not (found := breaks()):
            break
        programs = []
        for row, own in found.items():
            ways = {(promise, name): promise.way(name, generator) for promise, name in own}
            newly = {key: way for key, way in ways.items() if way is not None}
            try:
                programs.append(_held_to(asked.programs[row], held[row] | newly))
                held[row] |= newly
            except UserError:  # too much at once for an automaton, or for a sentence: what is newly broken alone
                held[row] = newly
                programs.append(_held_to(asked.programs[row], newly))
        # Each is held to its own, so none takes another's place.
        again, more = write(Asked(programs, list(range(len(programs)))))
        passes += more
        for row, sentence in zip(found, again, strict=True):
            ids[row] = sentence
    if left := breaks():
        if any(promise.way(name, generator) is not None for own in left.values() for promise, name in own):
            raise UserError(f"After {TRIES} tries a text does not say all that it has to; ask for less.")
        logger.warning("After %d tries %d texts still say more than they have to.", TRIES, len(left))
    return passes


def _held_to(program: Program, held: Held) -> Program:
    """The program with an automaton of all that a sentence is held to."""
    if not held:
        return program
    what, own = "All that has to be said", [] if program.automaton is None else [program.automaton]
    joint = reduce(lambda a, b: combine(a, b, and_, what), [*own, *held.values()])
    canvas = program.canvas.with_allowed(joint.lengths(program.canvas.max_words), what)
    return replace(program, canvas=canvas, automaton=joint)
