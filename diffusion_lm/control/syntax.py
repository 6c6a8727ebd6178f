"""The latent classifiers p(tag of word i | z_t, t) and p(constituent of words i to j | z_t, t), and who follows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.annotate.trees import Span, read_tree, spans_of
from diffusion_lm.common import UserError, autocast
from diffusion_lm.control.control import Control, Ways
from diffusion_lm.control.latent import LatentClassifier, LatentConfig, LatentTrainConfig, Outputs
from diffusion_lm.control.program import Asset, Energy, Host, Latents
from diffusion_lm.control.tables import labelled
from diffusion_lm.store import Kind
from diffusion_lm.text.encoded import EncodedCorpus

NO_CONSTITUENT, NO_LABEL = 0, -100
"""Class of a span that is none, chain i of the list of chains being class i + 1; and of what has no class."""

Labelled = tuple[Annotation, Sequence[Span]]
"""A sentence's labels, and the constituents of its tree."""


@dataclass(frozen=True)
class SyntaxTrainConfig(LatentTrainConfig):
    """How the latent classifiers of tags and constituents are trained."""

    labels: str = "runs/labels.jsonl"
    """The file of the training split's labels, as annotate writes it; made if it does not hold them."""
    dev_labels: str = "runs/labels-dev.jsonl"
    """The same of the dev split."""


@dataclass(frozen=True, kw_only=True)
class SyntaxConfig(LatentConfig):
    """What the classifiers know and how large they are."""

    tags: list[str]
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""


class _Classes(NamedTuple):
    """Of all words, sentence by sentence, and of all constituents: first word, last word, class, words counted from 1."""

    tags: Tensor
    """[N]."""
    words: Tensor
    """Of each sentence, [n]."""
    spans: Tensor
    """[S, 3]."""
    constituents: Tensor
    """Of each sentence, [n]."""

    def of(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Tags [B, L] and chart [B, L, L]; START, END and what is below the diagonal are `NO_LABEL`."""
        tags, charts = torch.full((len(rows), width), NO_LABEL), torch.full((len(rows), width, width), NO_LABEL)
        sentence, place, number = _members(self.words, rows)
        tags[sentence, place + 1] = self.tags[number]
        first, at = torch.arange(width)[:, None], torch.arange(width)
        charts[(first >= 1) & (first <= at) & (at <= self.words[rows, None, None])] = NO_CONSTITUENT
        sentence, _, number = _members(self.constituents, rows)
        first, last, label = self.spans[number].T
        charts[sentence, first, last] = label
        return tags, charts


def _members(counts: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of things that follow one another, so many a group [n], those of some groups [B].

    Each one's group among the `rows`, its place there, and its place among all.
    """
    own = counts[rows]
    group = torch.repeat_interleave(torch.arange(len(rows)), own)
    place = torch.arange(len(group)) - (own.cumsum(0) - own)[group]
    return group, place, (counts.cumsum(0) - counts)[rows][group] + place


class SyntaxModel(LatentClassifier, name="syntax"):
    """A small bidirectional transformer on noised word vectors, with a tagger and a span classifier on top.

    The paper has a BERT-base for each (appendix C); here both share one trunk of a hundredth of that size. A span (i, j) is
    classified from its first and its last word's states, as there; the perceptron's first layer is linear in each of
    them, so it is taken at the L positions and not at the L^2 spans.
    """

    about = "train the classifiers of tags and constituents behind --syntax_by classifier"
    kind = Kind("classifier of syntax", "diffusion-lm train-control syntax", format=2)
    Config = SyntaxTrainConfig
    Shape: ClassVar[type[LatentConfig]] = SyntaxConfig
    config: SyntaxConfig
    lengths: Tensor
    """How many sentences of n words, the last index, have a constituent of a chain that begins them or not and ends at a word."""

    def __init__(self, config: SyntaxConfig) -> None:
        super().__init__(config)
        self.tag = nn.Linear(config.width, len(config.tags))
        self.first = nn.Linear(config.width, config.width)
        self.last = nn.Linear(config.width, config.width, bias=False)
        self.label = nn.Linear(config.width, len(config.chains) + 1)
        self.register_buffer("lengths", torch.zeros(len(config.chains), 2, config.max_length, config.max_length))

    def forward(self, z: Tensor, t: Tensor, mask: Tensor) -> Outputs:
        """Hidden states, [B, L, H], of z [B, L, D], t [B], mask [B, L], which `tags` and `cells` read; position 0 is START."""
        return [self.norm(self.transformer(z, t, mask))]

    def tags(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of tags, [B, L, T]."""
        return self.tag(hidden).float().log_softmax(-1)

    def cells(self, hidden: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Log-probabilities of the chains of n spans, from position `first` to `last` [n], inclusive: [B, n, C + 1]."""
        pairs = torch.relu(self.first(hidden)[:, first] + self.last(hidden)[:, last])
        return self.label(pairs).float().log_softmax(-1)

    def _everything(self, outputs: Outputs) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Tags; all cells in which the last word is not before the first, [B, n, C + 1]; and these words, [n] each."""
        (hidden,) = outputs
        first, last = torch.triu_indices(hidden.shape[1], hidden.shape[1], device=hidden.device)
        with autocast(hidden.device):
            return self.tags(hidden), self.cells(hidden, first, last), (first, last)

    @classmethod
    def labels(  # noqa: D102
        cls, config: SyntaxTrainConfig, host: Host, split: str, encoded: EncodedCorpus
    ) -> list[Labelled]:
        file = config.labels if split == "train" else config.dev_labels
        found = [label for _, label in labelled(host, config.corpus, file, split=split)]
        return [(found[row], spans_of(read_tree(found[row].tree))) for row in encoded.rows.tolist()]

    @classmethod
    def known(cls, labels: Sequence[Labelled], config: SyntaxTrainConfig) -> dict[str, Any]:  # noqa: D102
        often = Counter(span.label for _, spans in labels for span in spans)
        chains = [label for label, count in often.most_common() if count >= config.min_count]
        return {"tags": list(UPOS), "chains": chains}

    def classes(self, labels: Sequence[Labelled]) -> _Classes:  # noqa: D102
        tag = {name: i for i, name in enumerate(self.config.tags)}
        chain = {name: i + 1 for i, name in enumerate(self.config.chains)}
        spans = [[(s.start + 1, s.stop, chain[s.label]) for s in spans if s.label in chain] for _, spans in labels]
        return _Classes(
            torch.tensor([tag[name] for label, _ in labels for name in label.pos]),
            torch.tensor([len(label.pos) for label, _ in labels]),
            torch.tensor([span for own in spans for span in own]).reshape(-1, 3),
            torch.tensor([len(own) for own in spans]),
        )

    def count(self, labels: Sequence[Labelled]) -> None:
        """How long the sentences with each constituent are."""
        chain = {name: i for i, name in enumerate(self.config.chains)}
        for label, spans in labels:
            for span in spans:
                if span.label in chain:
                    self.lengths[chain[span.label], int(span.start == 0), span.stop, len(label.words)] += 1

    def lengths_with(self, spans: Sequence[Span]) -> Tensor:
        """p(words | spans) of a sentence of each number of words, [max_length]: as if each span spoke by itself.

        Where few sentences have a constituent just there, it leans on those with any that ends there.
        """
        p = torch.ones(self.config.max_length)
        for span, chain in zip(spans, _index([s.label for s in spans], self.config.chains, "constituent"), strict=True):
            any_there = self.lengths[:, :, span.stop].sum((0, 1)).cpu() + 1e-3
            any_there[: span.stop] = 0
            own = self.lengths[chain, int(span.start == 0), span.stop].cpu()
            p = p * (own + any_there / any_there.sum())
        return p / p.sum()

    def loss(self, classes: _Classes, rows: Tensor, outputs: Outputs) -> Tensor:
        """Cross-entropy of the tags and of the chart's cells, in nats a word.

        A mean over cells, nearly all of which are no constituent, would leave the trunk to the tags.
        """
        of_tags, of_cells, (first, last) = self._everything(outputs)
        tags, chart = (wanted.to(of_tags.device) for wanted in classes.of(rows, of_tags.shape[1]))
        pairs = ((of_tags, tags), (of_cells, chart[:, first, last]))
        nats = [
            F.nll_loss(p.flatten(0, 1), right.flatten(), ignore_index=NO_LABEL, reduction="sum") for p, right in pairs
        ]
        return sum(nats) / (tags != NO_LABEL).sum()

    def hits(self, classes: _Classes, rows: Tensor, outputs: Outputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Words with the right tag; labelled F1 of constituents, each span's likeliest label taken by itself."""
        tags, cells, (first, last) = self._everything(outputs)
        truth, chart = (wanted.to(tags.device) for wanted in classes.of(rows, tags.shape[1]))
        spans = chart[:, first, last]
        guess = cells.argmax(-1).masked_fill(spans == NO_LABEL, NO_CONSTITUENT)
        right = (guess == spans) & (guess != NO_CONSTITUENT)
        named = (guess != NO_CONSTITUENT).sum(1) + (spans > NO_CONSTITUENT).sum(1)
        return {
            "tags": ((tags.argmax(-1) == truth).sum(1), (truth != NO_LABEL).sum(1)),
            "constituents (F1)": (2 * right.sum(1), named),
        }


def _index(labels: Sequence[str], known: Sequence[str], what: str) -> list[int]:
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise UserError(f"The classifier knows no {what} {', '.join(unknown)}; it knows {', '.join(known)}.")
    return [known.index(label) for label in labels]


def tag_energy(model: SyntaxModel, tags: Sequence[str]) -> Energy:
    """-log p(tags of words 1 to n | z_t, t), the mean over the words and not the sum, as the original's cross-entropy is.

    A long target then does not drown the sampler's own step. A `UserError` if a tag is unknown.
    """
    classes = torch.tensor(_index(tags, model.config.tags, "tag")).to(model.device)

    def energy(latents: Latents) -> Tensor:
        words = model.tags(latents.read(model)[0][:, 1 : len(classes) + 1])
        return -words.gather(-1, classes.expand(len(words), -1)[..., None]).mean((1, 2))

    return Energy(energy, terms=len(classes))


def chart_energy(model: SyntaxModel, spans: Sequence[Span], whole: int | None = None) -> Energy:
    """-log p(labels of cells | z_t, t), the mean over the cells of the wanted spans; a `UserError` if a label is unknown.

    Over all cells of a chart if `whole` is its number of words: all other spans of them are then wanted to be none.
    """
    label = torch.tensor(_index([span.label for span in spans], model.config.chains, "constituent")) + 1
    first, last = torch.tensor([(span.start, span.stop - 1) for span in spans]).T
    if whole is not None:
        chart = torch.full((whole, whole), NO_CONSTITUENT).index_put((first, last), label)
        first, last = torch.triu_indices(whole, whole)
        label = chart[first, last]
    first, last, label = (index.to(model.device) for index in (first + 1, last + 1, label))

    def energy(latents: Latents) -> Tensor:
        (hidden,) = latents.read(model)
        wanted = model.cells(hidden, first, last).gather(-1, label.expand(len(hidden), -1)[..., None])
        return -wanted.mean((1, 2))

    return Energy(energy, terms=len(label))


class Syntactic(Control):
    """Base: followed by what was counted, or by the gradient of a latent classifier as the paper does."""

    counted: ClassVar[list[type[Asset]]]
    """The tables that it is followed by."""
    by_classifier: bool

    @classmethod
    def of_text(cls, text: str, ways: Ways) -> Control:  # noqa: D102
        return cls(text, by_classifier=ways.syntax_by == "classifier")  # type: ignore[call-arg]

    @classmethod
    def assets(cls, ways: Ways) -> list[type[Asset]]:  # noqa: D102
        return [SyntaxModel] if ways.syntax_by == "classifier" else cls.counted

    def merged(self, other: Control) -> Control | None:
        """None; a `UserError` if the other one asks for another syntax of the same words."""
        if type(other) is type(self) and str(other) != str(self):
            raise UserError(f"{self} and {other} contradict each other; give one.")
        return None
