"""Parts of speech: a tag for every word (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.tagger import Tagger, tagger
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Target, words_of_record
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.program import Asset, Evidence, Host, Program
from diffusion_lm.control.syntax import Syntactic, SyntaxModel, tag_energy
from diffusion_lm.control.tables import TagTable
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import words_of


@final
@dataclass(frozen=True)
class Pos(Syntactic, name="pos"):
    """The words have these universal part-of-speech tags, one each, punctuation marks included.

    No classifier and no gradient: with p(w_i | z_t) factorised over positions, Bayes' rule gives
    p(w_i | z_t, tags) ~ p(w_i | z_t) p(tag_i | w_i, tag_i-1, tag_i+1) exactly for tags that depend on their
    word and on the tags beside it, which are known here; `TagTable` has counted them.

    Tags alone leave the syntax open, and a word that is an adjective by itself is none where it heads a phrase. With a
    table of trees beside it each sentence therefore draws leaves of a tree that have these tags (`LeafChain`), and
    leans towards them.

    Bayes' rule by words makes each position right and not the sentence: in some, the tags force words on a model that
    wants others. While sentences are open, those of which the same tags are wanted are resampled by p(tags | z_t), the
    twisted particles of Wu et al. 2023 ("Practical and Asymptotically Exact Conditional Sampling in Diffusion Models").
    """

    help = 'A universal part of speech for every word, punctuation marks included: "PROPN AUX DET ADJ NOUN PUNCT".'
    example = '{"pos": ["DET", "NOUN", "VERB", "PUNCT"]}'
    counted: ClassVar[list[type[Asset]]] = [TagTable, LeafTable]
    tags: str
    """The tags in order, "PROPN AUX DET NOUN PUNCT"."""
    weight: float = 0.7
    """Power of the tags' likelihood; 1 is Bayes' rule as it stands."""
    lean: float = 0.1
    """Power of the drawn leaves' likelihood; 0 draws none."""
    temperature: float = 0.1
    """Of the draw: below 1, the usual syntax of such tags."""
    evidence: float = 0.6
    """Power of p(tags | z_t) by which sentences are resampled while they are open; 0 resamples none."""
    by_classifier: bool = False
    """Whether the tags are followed by the gradient of a latent tagger, as the paper does, and not by what is counted."""
    tagger: Callable[[], Tagger] = field(default=tagger, repr=False, compare=False)
    """Makes the outside judge of success."""

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        wanted = self.tags.split()
        if self.by_classifier:
            energies = (tag_energy(host.asset(SyntaxModel), wanted),)
            return [Program(canvas.with_words(len(wanted)), energies=energies) for canvas in canvases]
        table = host.asset(TagTable)
        unknown = [tag for tag in wanted if tag not in table.config.tags]
        if unknown or not wanted:
            wrong = f"There is no tag {', '.join(dict.fromkeys(unknown))}" if unknown else "No tag is given"
            raise UserError(f"{wrong}; the tags are {', '.join(table.config.tags)}.")
        fixed = [canvas.with_words(len(wanted)) for canvas in canvases]
        columns = self.weight * table.columns(wanted)
        held = [columns] * len(fixed)
        if self.lean and host.has(LeafTable):
            trees = host.asset(LeafTable)
            tags = torch.tensor([trees.config.universal.index(tag) for tag in wanted])
            leaves, kinds = trees.config.leaves, trees.chain.sample(tags, len(fixed), self.temperature, generator)
            held = [columns + self.lean * trees.columns([leaves[kind] for kind in row]) for row in kinds.tolist()]
        return [
            Program(canvas, (own,), (Evidence(self.evidence, own),) if self.evidence else ())
            for canvas, own in zip(fixed, held, strict=True)
        ]

    def success(self, texts: Sequence[str]) -> Tensor:
        """Share of words with the right tag, [B]; a word too many or too few counts as a wrong one."""
        wanted, found = self.tags.split(), self.tagger().tag([words_of(text) for text in texts])
        return torch.tensor([_right(wanted, tags) / max(len(wanted), len(tags), 1) for tags in found])

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        if host.has(SyntaxModel) and not host.has(TagTable):
            return f"with --syntax_by classifier: {', '.join(host.asset(SyntaxModel).config.tags)}"
        return ", ".join(host.asset(TagTable).config.tags)

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """Tags; those of START, END and a line break are dropped."""
        tags = record.get("pos") if isinstance(record, dict) else None
        tags = tags.split() if isinstance(tags, str) else tags
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError("it has no list of strings under the key pos")
        words = record.get("words_", tags)
        if not isinstance(words, list) or len(words) != len(tags):
            raise ValueError("it has not as many words as tags")
        kept = [tag for word, tag in zip(words, tags, strict=True) if tag not in ("START", "END") and word != "\n"]
        if not kept:
            raise ValueError("it has no tag")
        return Target(" ".join(kept), line, words_of_record(record))

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float]:
        """Share of the wanted tags that stand in their place; tags beyond the wanted number are cut off."""
        wanted, found = target.value.split(), tagger().tag([words_of(text) for text in texts])
        return [_right(wanted, tags) / max(len(wanted), 1) for tags in found]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [" ".join(labels.pos)]

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any]:  # noqa: D102
        return {"pos": labels.pos}

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """The tags, each at the place of its word."""
        return [(tag, place) for place, tag in enumerate(value.split())]


def _right(wanted: Sequence[str], found: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(wanted, found, strict=False))
