"""Beam search: the likeliest texts that a causal head finds, in 16 passes of the denoiser whatever their length.

At t = 1, z_1 is noise that tells nothing of the text. What a causal head (`control.head`) says is then an autoregressive model
that has read all that is given, also what stands behind a gap:

    p(w, sizes | given) = p(sizes | given)  prod_i p_head(w_i | w_1 .. w_i-1, given),

the head reading the mean of what the denoiser says of z_1 over draws of it, as near as it comes to knowing that it knows nothing.

Its likeliest texts are searched for as those of any such model, for each of the likeliest sizes. What a control knows of single
words is a factor more, p(c | w_i); with an automaton every beam has a state, and is held against the others by how likely that
still is to be accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import BANNED, NEVER, Automaton
from diffusion_lm.control.canvas import Layout
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.diffusion.samplers import gaussian_noise
from diffusion_lm.generation.batch import Batch
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import FREE, Asked, Model, likeliest_layouts
from diffusion_lm.generation.promises import broken
from diffusion_lm.model.gaps import between

DRAWS = 16
"""Draws of z_1 over which what the denoiser says is averaged; human text is likelier than by one of them (docs/log.md)."""
SIZES, SIZES_FROM_SOURCE = 3, 8
"""The likeliest sizes that are searched where nothing says how many; more from a source, since not all have room for it."""

OnBatch = Callable[[Sequence[int], Tensor], None]
"""(which of the n sentences [B], the likeliest words of each [B, L]) of each batch."""


def beam_search(
    lm: Model,
    asked: Asked,
    *,
    decoding: Decoding,
    sizes: int | None,
    generator: torch.Generator,
    batch_size: int,
    on_batch: OnBatch | None = None,
    there: Iterable[Sequence[int]] | None = None,
) -> tuple[list[list[int]], int]:
    """The likeliest texts, and the passes of a batch.

    Sentences of which the same is asked are the best of one search; of what is promised, those that break least come first, and
    of these any that is not one of those that are `there` already.

    Raises:
        UserError: the model has no causal head, a control is followed by a gradient or a reward, or there are fewer texts than
            are asked for.
    """
    assert decoding.beams is not None and decoding.length_temperature is not None
    if not lm.has(CausalHead):
        raise UserError(
            "This model has no causal head; train one (diffusion-lm train-control head), or leave --beams out."
        )
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(asked.groups):
        rows_of.setdefault(group, []).append(row)
    if sizes is None:
        sizes = SIZES_FROM_SOURCE if any(program.canvas.source for program in asked.programs) else SIZES
    if (most := max(map(len, rows_of.values()))) > decoding.beams * sizes:
        raise UserError(
            f"{decoding.beams} beams find at most {decoding.beams * sizes} texts of which the same is asked, not {most}; "
            "take more --beams, or ask for fewer."
        )
    if any(program.energies or program.rewards for program in asked.programs):
        raise UserError(
            "Beams take no steps that a classifier's gradient or a reward could steer; leave --beams out, or follow attributes "
            "and syntax by words (--attribute_by words, --syntax_by words)."
        )
    # Where chance has a part in what holds a sentence, those of one control are searched for in all the ways that it took.
    ways = {(group, _held_by(program)): program for group, program in zip(asked.groups, asked.programs, strict=True)}
    groups, programs = [group for group, _ in ways], list(ways.values())
    canvases = [program.canvas for program in programs]
    layouts = likeliest_layouts(lm, canvases, sizes, generator, decoding.length_temperature)
    places = [(which, *each) for which, own in enumerate(layouts) for each in own]
    places.sort(key=lambda place: len(place[2]))  # so that little of a batch is padding
    found: dict[int, dict[tuple[int, ...], float]] = {group: {} for group in rows_of}
    passes = 0
    for some in (places[first : first + batch_size] for first in range(0, len(places), batch_size)):
        whose = [which for which, _, _ in some]
        layout = Layout.of([row for _, _, row in some], lm.tokenizer.pad_id)
        words, log_p, passes = _searched(lm, [programs[which] for which in whose], layout, decoding, generator)
        if on_batch is not None:
            on_batch([rows_of[groups[which]][0] for which in whose], words[:, 0])
        for row, (which, of_sizes, _) in enumerate(some):
            texts = found[groups[which]]
            for own, ids in zip(log_p[row].tolist(), words[row][:, layout.mask[row]].tolist(), strict=True):
                if own > -math.inf:
                    texts[tuple(ids)] = max(of_sizes + own, texts.get(tuple(ids), -math.inf))
    out: list[list[int]] = [[] for _ in asked.programs]
    taken = set(map(tuple, there or ()))
    for group, rows in rows_of.items():
        texts, program = found[group], asked.programs[rows[0]]
        if len(texts) < len(rows):
            raise UserError(
                f"Only {len(texts)} texts that do what is asked were found, not {len(rows)}; ask for fewer, or take more --beams."
            )
        worth = {ids: (-len(broken(lm, program, ids)), ids not in taken, log_p) for ids, log_p in texts.items()}
        for row, ids in zip(rows, sorted(texts, key=worth.__getitem__, reverse=True), strict=False):
            out[row] = list(ids)
            taken |= {ids} if there is not None else set()
    return out, passes


def _held_by(program: Program) -> tuple[Hashable, ...]:
    """What tells a program from others that hold a sentence in other ways."""
    return program.canvas, tuple(map(id, program.columns)), id(program.automaton)


def _searched(
    lm: Model, programs: Sequence[Program], layout: Layout, decoding: Decoding, generator: torch.Generator
) -> tuple[Tensor, Tensor, int]:
    """The words of the beams of n layouts, the best first, [n, K, L], and log p of each, [n, K], -inf where there is none."""
    assert decoding.beams is not None
    batch = Batch(lm, Asked([*programs], [FREE] * len(programs)), layout, decoding, generator)
    n, length, k, device = *layout.known.shape, decoding.beams, batch.vectors.device
    head, said = lm.asset(CausalHead), _said(batch, generator)
    assert said.logits is not None
    read, logits = head.reader(said), said.logits.masked_fill(batch.banned, -torch.inf)
    columns = None if batch.columns is None else batch.columns.masked_fill(batch.banned, 0.0)
    held = [_Held(automaton, rows, logits, columns, batch.mask, k) for automaton, rows in batch.automata]
    # One beam at first, from START; -inf is where none is.
    score = torch.full((k, n), -torch.inf, device=device)
    score[0] = 0.0
    words, memory = batch.known[:, :1].expand(k, n, 1), logits.new_zeros(k * n, head.config.width)
    here = torch.arange(n, device=device)
    for i in range(1, length):
        memory = read(i, words[..., -1].flatten(), memory)
        log_p = (logits[:, i] + F.linear(memory, head.out.weight, head.out.bias).view(k, n, -1)).log_softmax(-1)
        if columns is not None:
            log_p = log_p + columns[:, i]
        total = score[..., None] + log_p
        rank = total.clone()
        for each in held:
            each.look(i, rank)
        best = rank.movedim(0, 1).flatten(1).topk(k).indices.T
        beam, word = best // rank.shape[-1], best % rank.shape[-1]
        score = total[beam, here, word].masked_fill(rank[beam, here, word] == -torch.inf, -torch.inf)
        words = torch.cat([words[beam, here], word[..., None]], -1)
        memory = memory.view(k, n, -1)[beam, here].flatten(0, 1)
        for each in held:
            each.go_on(i, beam, word)
    return words.movedim(0, 1).cpu(), score.T.cpu(), batch.passes


def _said(batch: Batch, generator: torch.Generator) -> Prediction:
    """The mean of what the denoiser says of z_1, over draws of it."""
    shape, logits, hidden = (*batch.mask.shape, batch.vectors.shape[-1]), *torch.zeros(2, device=batch.vectors.device)
    with batch.lm.autocast():
        for _ in range(DRAWS):
            z = gaussian_noise(batch.vectors.new_empty(shape), generator)
            said = batch.predicted(z, z.new_ones(len(z)))
            assert said.logits is not None and said.hidden is not None
            logits, hidden = logits + said.logits.float() / DRAWS, hidden + said.hidden.float() / DRAWS
    return Prediction(said.x0, logits, hidden)


class _Held:
    """The states of beams in an automaton that holds some of n layouts."""

    def __init__(
        self, automaton: Automaton, rows: Tensor, logits: Tensor, columns: Tensor | None, mask: Tensor, beams: int
    ) -> None:
        self.rows, self.here = rows, torch.arange(len(rows), device=rows.device)
        self.classes, self.follow = automaton.classes.to(rows.device), automaton.next.to(rows.device)
        self.words = between(mask[rows])
        alone = logits[rows] if columns is None else logits[rows].log_softmax(-1) + columns[rows]
        log_p = automaton.class_log_p(alone.clamp(min=BANNED))
        self.ahead = automaton.messages(log_p, self.words)
        self.states = torch.zeros(beams, len(rows), dtype=torch.long, device=rows.device)

    def look(self, i: int, rank: Tensor) -> None:
        """Add to log p of the words at position i behind each beam, [K, n, V], that of being accepted in the end."""
        ahead = self.ahead[i + 1]
        stays = ahead[self.here, self.states][..., None]
        of_class = ahead[self.here[:, None], self.follow[self.states]]
        goes = of_class[..., self.classes.clamp(min=0)].masked_fill(self.classes == NEVER, -torch.inf)
        rank[:, self.rows] += torch.where(self.words[:, i, None], goes, stays).to(rank)

    def go_on(self, i: int, beam: Tensor, word: Tensor) -> None:
        """The states of the beams that remain, by which beams [K, n] they come from and their words [K, n]."""
        beam, word = beam[:, self.rows], word[:, self.rows]
        before = self.states.gather(0, beam)
        self.states = torch.where(self.words[:, i], self.follow[before, self.classes[word].clamp(min=0)], before)
