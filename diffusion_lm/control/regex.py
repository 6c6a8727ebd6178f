"""A regular expression over words that the whole text matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.automaton import NEVER, Automaton, explore
from diffusion_lm.control.language import Language, check_known, vocabulary
from diffusion_lm.control.word_regex import word_graph
from diffusion_lm.text.spacing import bare, split_words

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


@final
@dataclass(frozen=True)
class Regex(Language):
    r"""The whole text matches a regular expression over words, such as "The .* is (cheap|moderate) \.".

    See `word_regex` for its syntax. Words match letter by letter, capitals included.
    """

    pattern: str
    automaton: Automaton | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:  # noqa: D102
        what = f"The regex {self.pattern!r}"
        tokens = [bare(token) for token in vocabulary(lm, what)]
        graph = word_graph(self.pattern)
        named = sorted(graph.words())
        check_known(named, tokens, f"the regex {self.pattern!r}")
        # Class 0 is every word that the pattern does not name.
        number = {word: i + 1 for i, word in enumerate(named)}
        spelled = ["\0", *named]
        start = graph.closed([graph.start])
        states, follow = explore(start, lambda s, c: graph.after(s, spelled[c]), len(spelled), what)
        accept = torch.tensor([graph.stop in state for state in states], device="cpu")
        classes = [number.get(token, 0) if token else NEVER for token in tokens]
        return replace(self, automaton=Automaton(torch.tensor(classes, device="cpu"), follow, accept))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        graph = word_graph(self.pattern)
        return torch.tensor([float(graph.matches(map(bare, split_words(text)))) for text in texts])

    def __str__(self) -> str:
        return f"regex={self.pattern}"
