"""What is asked of each sentence, and where its words go: controls to programs, and their canvases laid out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas, Layout
from diffusion_lm.control.control import Control
from diffusion_lm.control.program import Host, Program
from diffusion_lm.diffusion.process import UNKNOWN, Given, Source
from diffusion_lm.model.gaps import gap_nats
from diffusion_lm.text.batches import padded

T = TypeVar("T")

FREE = -1
"""Group of sentences of which nothing is asked."""
TOGETHER = 256
"""Canvases whose gaps are looked at in one pass."""
UNSEEN = 1e-9
"""Probability of a length that no training sentence had, so that one such sentence does not make a bound infinite."""


class Model(Host, Protocol):
    """What generates, `DiffusionLM`: a host of controls that can be sampled."""

    @property
    def lengths(self) -> Tensor:
        """How often each total length is in the corpus, [max_length + 1]."""

    def autocast(self) -> torch.autocast:
        """In what precision products are taken."""


@dataclass(frozen=True)
class Asked:
    """A program for each sentence, and the number of its control: sentences of one may take each other's place."""

    programs: list[Program]
    groups: list[int]


def compiled(
    lm: Model,
    n: int,
    control: Control | Sequence[Control | None] | None,
    generator: torch.Generator,
    candidates: int = 1,
) -> Asked:
    """The programs of n sentences, each so many times; a control that stands for many of them is compiled once."""
    controls: list[Any] = list(control) if isinstance(control, list | tuple) else [control] * n
    for each in controls:
        if not isinstance(each, Control | None):
            raise UserError(f"{each!r} is no control; give one such as Length(9), a list of them, or None.")
    if len(controls) != n:
        raise UserError(f"{len(controls)} controls are given for {n} sentences; give one for each, or None.")
    controls = [each for each in controls for _ in range(candidates)]
    canvas = Canvas(lm.max_words)
    programs, groups = [Program(canvas)] * len(controls), [FREE] * len(controls)
    for number, (wanted, rows) in enumerate(sharers([[] if c is None else [c] for c in controls])):
        for row, program in zip(rows, wanted.compile(lm, [canvas] * len(rows), generator), strict=True):
            programs[row], groups[row] = program, number
    return Asked(programs, groups)


def sharers(parts: Sequence[Iterable[T]]) -> list[tuple[T, list[int]]]:
    """Each object, told apart by identity, and the sentences that have it."""
    found: dict[int, tuple[T, list[int]]] = {}
    for row, own in enumerate(parts):
        for part in own:
            found.setdefault(id(part), (part, []))[1].append(row)
    return list(found.values())


def lay_out(lm: Model, canvases: Sequence[Canvas], generator: torch.Generator, temperature: float = 1.0) -> Layout:
    """Where words are wanted: by the canvases and how long the model, else the corpus, has such sentences and their gaps.

    Lengths are drawn at a temperature. In the padded layout words are wanted everywhere, PAD being one.
    """
    longest, parts = lm.max_words + 2, []
    rows_of: dict[Canvas, list[int]] = {}
    for row, canvas in enumerate(canvases):
        rows_of.setdefault(canvas, []).append(row)
    gaps = _gaps_of(lm, rows_of, temperature)
    counts = (lm.lengths.double() / lm.lengths.max()) ** (1 / temperature)
    for canvas, own in rows_of.items():
        rows = torch.tensor(own)
        if lm.padded and canvas == Canvas(lm.max_words):
            known = torch.full((len(rows), longest), UNKNOWN)
            parts.append((rows, Layout(known, known == UNKNOWN)))
        else:
            if canvas in gaps:
                sizes = canvas.sizes_by_model(len(rows), gaps[canvas], generator)
            else:
                sizes = canvas.sizes_by_corpus(len(rows), counts, generator)
            parts.append((rows, canvas.lay_out(sizes, lm.tokenizer)))
    # In the padded layout PAD behind a sentence whose end is known is known too, and such a model reads it as words.
    size = len(canvases), longest if lm.padded else max(part.known.shape[1] for _, part in parts)
    known, mask = torch.full(size, lm.tokenizer.pad_id), torch.full(size, lm.padded)
    for rows, part in parts:
        known[rows, : part.known.shape[1]] = part.known
        mask[rows, : part.mask.shape[1]] |= part.mask
    return Layout(known, mask)


def likeliest_layouts(
    lm: Model, canvases: Sequence[Canvas], k: int, generator: torch.Generator, temperature: float
) -> list[list[tuple[float, list[int]]]]:
    """Of each canvas the k likeliest ways to lay a sentence out, log p and the ids of each, at a temperature.

    Raises:
        UserError: there is a gap of any number of words, and the model does not say how long gaps are.
    """
    gaps, out = _gaps_of(lm, canvases, temperature), []
    for canvas in canvases:
        if not canvas.is_open():
            ways = [(0.0, canvas.sizes_by_corpus(1, lm.lengths, generator)[0])]
        elif canvas in gaps:
            ways = canvas.likeliest_sizes(gaps[canvas], k)
        elif canvas.template is None:
            of_words = lm.lengths[None, 2:].double()
            ways = canvas.likeliest_sizes((of_words.log() / temperature).log_softmax(-1), k)
        else:
            raise UserError("This model does not say how long gaps are; write ___{3} for one of three words.")
        out.append([(nats, canvas.row(sizes, lm.tokenizer)) for nats, sizes in ways])
    return out


def _gaps_of(lm: Model, canvases: Iterable[Canvas], temperature: float) -> dict[Canvas, Tensor]:
    """What the model says of the gaps of each canvas whose sizes are open; nothing where it cannot."""
    if not lm.denoiser.knows_given:
        return {}
    found = list(dict.fromkeys(canvas for canvas in canvases if canvas.is_open()))
    return dict(zip(found, _gap_log_p(lm, found, temperature), strict=True))


def _gap_log_p(lm: Model, canvases: Sequence[Canvas], temperature: float) -> Iterator[Tensor]:
    """For each canvas how likely each number of words is for each of its gaps, in nats, [gaps, max_length - 1]."""
    for first in range(0, len(canvases), TOGETHER):
        some = canvases[first : first + TOGETHER]
        layout = Layout.of([canvas.outline(lm.tokenizer) for canvas in some], lm.tokenizer.pad_id)
        known, mask = (part.to(lm.denoiser.device) for part in (layout.known, layout.mask))
        with lm.autocast():
            logits = lm.denoiser.gap_logits(known, mask, read_sources(lm, [canvas.source for canvas in some]))
        for own, row in zip((logits / temperature).log_softmax(-1), known == UNKNOWN, strict=True):
            yield own[row]


def read_sources(lm: Model, sources: Sequence[Sequence[int] | None]) -> Source | None:
    """What sentences are written from, as the network reads it; None where none is."""
    if not any(sources):
        return None
    with lm.autocast():
        return lm.denoiser.read(padded([each or () for each in sources], UNKNOWN).to(lm.denoiser.device))


def length_nats(lm: Model, mask: Tensor, given: Given | None) -> Tensor:
    """-log p(how many words the text, or each of its gaps, has | what is given), in nats, [B]; 0 in the padded layout."""
    if given is not None:
        return gap_nats(lm.denoiser, given.known, mask, given.source).cpu()
    if lm.padded:
        return torch.zeros(len(mask))
    p = lm.lengths.double() / lm.lengths.sum()
    return -p[mask.sum(1).cpu()].clamp(min=UNSEEN).log().float()
