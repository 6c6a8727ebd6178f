"""A sentence of so many words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Target, words_of_record
from diffusion_lm.control.program import Energy, Host, Latents, Program
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import WordTokenizer

PAPER_LENGTHS = range(10, 41)
"""The paper's targets (section 6.1)."""
TOLERANCE = 2
"""Words by which a length may be missed (paper section 6.1; the original's code asks for the exact one)."""


@final
@dataclass(frozen=True)
class Length(Control, name="length"):
    """Exactly so many words, marks included.

    A fact of the canvas in the exact layout. In the padded one the paper's control (appendix C): the gradient through the
    denoiser of |x0_hat - Emb|^2 at START, position 0, and at END, position words + 1; PAD behind END is free.
    """

    help = "Words of each sentence, punctuation marks included; drawn as in the corpus if not given."
    example = '{"length": 12}'
    words: int

    def __post_init__(self) -> None:
        if not isinstance(self.words, int):
            raise UserError(f"A length is a whole number of words, not {self.words!r}.")

    @classmethod
    def of_text(cls, text: str, ways: object) -> Control:  # noqa: D102
        try:
            return cls(int(float(text) if float(text).is_integer() else text))
        except (ValueError, OverflowError):
            raise UserError(f"A length is a whole number of words, not {text[:40]!r}.") from None

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        if not isinstance(host.tokenizer, WordTokenizer):
            raise UserError("A length counts words, and this model writes parts of words; leave the length out.")
        fixed = [canvas.with_words(self.words) for canvas in canvases]
        if not host.padded:
            return [Program(canvas) for canvas in fixed]
        start, end = host.tokenizer.start_id, host.tokenizer.end_id

        def energy(latents: Latents) -> Tensor:
            at_start = latents.x0_hat[:, 0] - latents.vectors[start]
            at_end = latents.x0_hat[:, self.words + 1] - latents.vectors[end]
            return at_start.square().sum(-1) + at_end.square().sum(-1)

        energies = (Energy(energy, reads_prediction=True),)
        return [Program(canvas, energies=energies) for canvas in canvases]

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.tensor([float(len(words_of(text)) == self.words) for text in texts])

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        return "by its gradient" if host.padded else f"exact, 1 to {host.max_words}"

    @classmethod
    def targets(cls, host: Host) -> list[Target]:  # noqa: D102
        return [Target(str(words)) for words in PAPER_LENGTHS]

    @classmethod
    def target(cls, record: Any, line: int) -> Target:  # noqa: D102
        words = record.get("length") if isinstance(record, dict) else None
        if type(words) is not int:
            raise ValueError("it has no whole number under the key length")
        return Target(str(words), line, words_of_record(record))

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float]:
        """1 where the text has the wanted number of words, or up to two more or fewer."""
        return [float(abs(len(words_of(text)) - int(target.value)) <= TOLERANCE) for text in texts]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [str(len(labels.words))]

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any]:  # noqa: D102
        return {"length": len(labels.words)}

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:  # noqa: D102
        return [("end", int(value))]
