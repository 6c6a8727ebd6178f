"""Parts of speech, trees and spans by the gradient of a latent classifier, as the paper steers (section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from diffusion_lm.annotate.trees import ANY_WORD, is_tag, leaves_of, read_tree, spans_of_leaves, split_chain, word_of
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Latents
from diffusion_lm.control.language import vocabulary
from diffusion_lm.control.pos import Pos
from diffusion_lm.control.span import Span
from diffusion_lm.control.tree import Tree, banned_beside, longer, named_words, reweight_words
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.model.transformer import Transformer
from diffusion_lm.store import Kind, load, save

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


KIND = Kind("classifier of syntax", "diffusion-lm train-control syntax")
NO_CONSTITUENT = 0
"""Class of a span that is none; chain i of the list of chains is class i + 1."""


@dataclass(frozen=True)
class SyntaxConfig:
    """What the classifiers know and how large they are."""

    tags: list[str]
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""
    embedding_dim: int
    max_length: int
    schedule: str
    lm: str
    width: int = 128
    layers: int = 3
    heads: int = 4


class SyntaxModel(nn.Module):
    """A small bidirectional transformer on noised word vectors, with a tagger and a span classifier on top.

    The paper has a BERT-base for each (appendix C); here both share one trunk of a hundredth of that size. A span (i, j) is
    classified from its first and its last word's states, as there; the perceptron's first layer is linear in each of
    them, so it is taken at the L positions and not at the L^2 spans.
    """

    def __init__(self, config: SyntaxConfig) -> None:
        super().__init__()
        self.config = config
        shape = ModelConfig(width=config.width, layers=config.layers, heads=config.heads, max_length=config.max_length)
        self.transformer = Transformer(shape, config.embedding_dim)
        self.norm = nn.LayerNorm(config.width)
        self.tag = nn.Linear(config.width, len(config.tags))
        self.first = nn.Linear(config.width, config.width)
        self.last = nn.Linear(config.width, config.width, bias=False)
        self.label = nn.Linear(config.width, len(config.chains) + 1)

    def forward(self, z: Tensor, t: Tensor, mask: Tensor) -> list[Tensor]:
        """Log-probabilities: z [B, L, D], t [B], mask [B, L] to tags [B, L, T] and chains [B, L, L, C + 1].

        Position 0 is START. Span (i, j) is from position i to position j, both inclusive; i > j means nothing.
        """
        hidden = self.norm(self.transformer(z, t, mask))
        pairs = torch.relu(self.first(hidden)[:, :, None] + self.last(hidden)[:, None])
        return [self.tag(hidden).float().log_softmax(-1), self.label(pairs).float().log_softmax(-1)]

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors."""
        save(folder, KIND, asdict(self.config), {k: v.to(dtype) for k, v in self.state_dict().items()})

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> SyntaxModel:
        """Load the classifiers of a language model.

        Args:
            folder: where they are.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or they were trained on another language model.
        """

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> SyntaxModel:
            model = SyntaxModel(SyntaxConfig(**config))
            model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
            return model.eval().requires_grad_(False)

        return load(folder, KIND, build, lm)


@dataclass(frozen=True)
class _ByClassifier(Control):
    """Base: the classifiers of a model, and a mean negative log-likelihood as the energy.

    The energy is the mean over what is labelled and not the sum, as the original's cross-entropy is, so that a long
    target does not drown the sampler's own step.
    """

    model: SyntaxModel | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Control:
        """Load the model's classifiers and see that they know all labels.

        Raises:
            UserError: if the model has none, or a label is unknown to them.
        """
        bound = replace(self, model=lm.syntax_model())
        bound.classes()
        return bound

    def classes(self) -> Tensor:
        """The classes that are wanted."""
        raise NotImplementedError

    def _model(self) -> SyntaxModel:
        if self.model is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        return self.model


def _index(labels: Sequence[str], known: Sequence[str], what: str) -> list[int]:
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise UserError(f"The classifier knows no {what} {', '.join(unknown)}; it knows {', '.join(known)}.")
    return [known.index(label) for label in labels]


@final
@dataclass(frozen=True)
class PosByClassifier(_ByClassifier):
    """`Pos` by the gradient of -log p(tags | z_t, t); success is measured in the same way."""

    of: Pos = field(kw_only=True)

    def classes(self) -> Tensor:  # noqa: D102
        return torch.tensor(_index(self.of.sequence, self._model().config.tags, "tag"))

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return self.of.canvas(canvas)

    def energy(self, latents: Latents) -> Tensor:  # noqa: D102
        classes = self.classes().to(latents.z.device)
        words = latents.read(self._model())[0][:, 1 : len(classes) + 1]
        return -words.gather(-1, classes.expand(len(words), -1)[..., None]).mean((1, 2))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.of.success(texts)

    def __str__(self) -> str:
        return str(self.of)


class _Chart(_ByClassifier):
    """Base: certain cells of the chart have certain labels; `classes` are their first and last words and labels, [cells, 3]."""

    def energy(self, latents: Latents) -> Tensor:
        """Mean of -log p(label) over the cells, [B]."""
        first, last, label = (self.classes().to(latents.z.device)).T
        return -latents.read(self._model())[1][:, first + 1, last + 1, label].mean(1)


@final
@dataclass(frozen=True)
class TreeByClassifier(_Chart):
    """`Tree` by the gradient of -log p(chart | z_t, t) over all spans, those that are no constituent too.

    The chart has constituents and no Penn Treebank tags: those of the tree are not followed. Words that it names are kept.
    """

    of: Tree = field(kw_only=True)
    named: tuple[tuple[int, frozenset[int]], ...] = field(default=(), repr=False, compare=False)
    """The words that the tree names: place and token ids."""

    def bind(self, lm: DiffusionLM) -> Control:
        """Load the model's classifiers, and look the tree's words up.

        Raises:
            UserError: if the model has none, or does not know a label or a word.
        """
        bound, tree = replace(self, model=lm.syntax_model()), self.of.tree
        bound.classes()
        given = [word_of(leaf) for leaf in read_tree(tree).leaves()]
        if all(word == ANY_WORD for word in given):
            return bound
        words = vocabulary(lm, f"The tree {tree!r}")
        return replace(bound, named=named_words(given, words, f"the tree {tree!r}"))

    def _tags(self) -> frozenset[str]:
        """The labels above one word that are no constituent's."""
        labels = {label for chain in self._model().config.chains for label in split_chain(chain)}
        return frozenset(part.label() for part in read_tree(self.of.tree).subtrees(is_tag)) - labels

    def _words(self) -> int:
        return len(read_tree(self.of.tree).leaves())

    def classes(self) -> Tensor:  # noqa: D102
        chains = self._model().config.chains
        spans = spans_of_leaves(leaves_of(read_tree(self.of.tree), self._tags()))
        classes = _index([span.label for span in spans], chains, "constituent")
        n = self._words()
        chart = torch.full((n, n), NO_CONSTITUENT)
        for (start, stop, _), label in zip(spans, classes, strict=True):
            chart[start, stop - 1] = label + 1
        first, last = torch.triu_indices(n, n)
        return torch.stack([first, last, chart[first, last]], dim=1)

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_words(self._words()).with_named(self.named)

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        if not self.named:
            return logits
        return reweight_words(logits, banned_beside(self.named, self._words(), logits.shape[-1]))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return replace(self.of, tags=self._tags()).success(texts)

    def __str__(self) -> str:
        return str(self.of)


@final
@dataclass(frozen=True)
class SpanByClassifier(_Chart):
    """`Span` by the gradient of -log p(label of the span | z_t, t)."""

    of: Span = field(kw_only=True)

    def classes(self) -> Tensor:  # noqa: D102
        spans = self.of.wanted()
        classes = _index([span.label for span in spans], self._model().config.chains, "constituent")
        return torch.tensor(
            [[span.start, span.stop - 1, label + 1] for span, label in zip(spans, classes, strict=True)]
        )

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        least = max(span.stop for span in self.of.wanted())
        return canvas.with_allowed(longer(least, canvas), str(self))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.of.success(texts)

    def __str__(self) -> str:
        return str(self.of)
