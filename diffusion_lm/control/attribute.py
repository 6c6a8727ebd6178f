"""Semantic content: a field of the meaning has a value (paper section 6.1), by a latent classifier or by its own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Target, Ways, words_of_record
from diffusion_lm.control.language import Avoid, Language, phrase_language
from diffusion_lm.control.latent import LatentClassifier, LatentConfig, LatentTrainConfig, Outputs
from diffusion_lm.control.program import Asset, Energy, Host, Program
from diffusion_lm.store import Kind
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.text.fields import FIELDS, Document, canonical_field, canonical_value, says
from diffusion_lm.text.spacing import join_words, words_of

UNSAID = 0
"""Class of a field that the text does not say; value i of the list is class i + 1."""


@dataclass(frozen=True, kw_only=True)
class AttributeConfig(LatentConfig):
    """What the classifier knows and how large it is."""

    fields: dict[str, list[str]]


def said_fields(document: Document) -> dict[str, str]:
    """The fields whose value the text says, by whole words in any case, and does not only imply ("mid-priced")."""
    return {name: value for name, value in document.fields.items() if says(document.text, value)}


def known_values(documents: Sequence[dict[str, str]], min_count: int) -> dict[str, list[str]]:
    """Values of each field that at least `min_count` texts say, most frequent first; the fields in canonical order."""
    counts = Counter(pair for fields in documents for pair in fields.items())
    often = [pair for pair, n in counts.most_common() if n >= min_count]
    names = {name for name, _ in often}
    order = [*(name for name in FIELDS if name in names), *sorted(names - set(FIELDS))]
    return {name: [value for field, value in often if field == name] for name in order}


class AttributeModel(LatentClassifier, name="attribute"):
    """p(field = value | z_t, t): a small bidirectional transformer with one softmax a field.

    The paper's classifier is a GPT-2-small that spells the value out (appendix C); the values of a field are few, so a
    softmax over them and "unsaid" says the same in one pass.
    """

    about = "train the classifier behind --attribute"
    kind = Kind("attribute classifier", "diffusion-lm train-control attribute")
    Config = LatentTrainConfig
    Shape: ClassVar[type[LatentConfig]] = AttributeConfig
    config: AttributeConfig

    def __init__(self, config: AttributeConfig) -> None:
        super().__init__(config)
        self.pool = nn.Linear(config.width, len(config.fields))
        self.out = nn.ModuleList(nn.Linear(config.width, len(v) + 1) for v in config.fields.values())

    def forward(self, z: Tensor, t: Tensor, mask: Tensor) -> Outputs:
        """Log-probabilities of the classes of each field: z [B, L, D], t [B], mask [B, L] to [B, values + 1] each."""
        hidden = self.norm(self.transformer(z, t, mask)).float()
        # Each field looks where it is said: attention pooling with one learned query a field.
        with torch.autocast(z.device.type, enabled=False):
            weights = self.pool(hidden).masked_fill(~mask[..., None], -torch.inf).softmax(1)
            pooled = torch.einsum("blf,blh->fbh", weights, hidden)
            return [out(pooled[i]).log_softmax(-1) for i, out in enumerate(self.out)]

    @classmethod
    def labels(  # noqa: D102
        cls, config: LatentTrainConfig, host: Host, split: str, encoded: EncodedCorpus
    ) -> list[dict[str, str]]:
        documents, kept = open_corpus(config.corpus).documents(split), set(encoded.rows.tolist())
        return [said_fields(document) for row, document in enumerate(documents) if row in kept]

    @classmethod
    def known(cls, labels: Sequence[dict[str, str]], config: LatentTrainConfig) -> dict[str, Any]:  # noqa: D102
        fields = known_values(labels, config.min_count)
        if not fields:
            raise UserError(f"{config.corpus.source} names no field whose value {config.min_count} of its texts say.")
        return {"fields": fields}

    def classes(self, labels: Sequence[dict[str, str]]) -> Tensor:
        """The class of each field of each text, [n, F]."""
        fields = {name: {value: i + 1 for i, value in enumerate(v)} for name, v in self.config.fields.items()}
        rows = [[known.get(said.get(name, ""), UNSAID) for name, known in fields.items()] for said in labels]
        return torch.tensor(rows)

    def loss(self, classes: Tensor, rows: Tensor, outputs: Outputs) -> Tensor:
        """Sum over the fields of the cross-entropy, in nats."""
        wanted = classes[rows].to(outputs[0].device)
        return torch.stack([F.nll_loss(p, wanted[:, i]) for i, p in enumerate(outputs)]).sum()

    def hits(self, classes: Tensor, rows: Tensor, outputs: Outputs) -> dict[str, tuple[Tensor, Tensor]]:  # noqa: D102
        truth = classes[rows].to(outputs[0].device)
        right, said = torch.stack([p.argmax(-1) for p in outputs], 1) == truth, truth != UNSAID
        return {
            "fields that the text says": ((right & said).sum(1), said.sum(1)),
            "all fields": (right.sum(1), torch.full_like(right.sum(1), truth.shape[1])),
        }


def canonical(field: str, value: str, host: Host) -> tuple[str, str]:
    """A field and its value as the model's classifier writes them; a `UserError` if it knows none such."""
    fields = host.asset(AttributeModel).config.fields
    name = canonical_field(field, fields)
    return name, canonical_value(name, value, fields[name])


@dataclass(frozen=True)
class _Named(Control):
    """Base: a field and its value, read from FIELD=VALUE."""

    field: str
    value: str

    def success(self, texts: Sequence[str]) -> Tensor:
        """1 where the text says the value, as the paper counts it, [B]."""
        return torch.tensor([float(says(text, self.value)) for text in texts])

    def __str__(self) -> str:
        return f"{self.field}={self.value}"


@final
@dataclass(frozen=True)
class Attribute(_Named, name="attribute"):
    """The text says that `field` is `value`; energy -log p(field = value | z_t, t) of the latent classifier."""

    help = "What each sentence says, FIELD=VALUE like food=Japanese; may be repeated. info lists what there is."
    repeats = True
    example = '["food", ":", "Fast", "food"]'

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        model = host.asset(AttributeModel)
        (field, value), known = canonical(self.field, self.value, host), model.config.fields
        output, i = list(known).index(field), known[field].index(value) + 1
        energies = (Energy(lambda latents: -latents.read(model)[output][:, i]),)
        return [Program(canvas, energies=energies) for canvas in canvases]

    @classmethod
    def of_text(cls, text: str, ways: Ways) -> Control:  # noqa: D102
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and value):
            raise UserError(f"An attribute is FIELD=VALUE, such as food=Japanese, not {text!r}.")
        return Said(name, value) if ways.attribute_by == "words" else cls(name, value)

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        return "\n".join(f"{name}: {', '.join(v)}" for name, v in host.asset(AttributeModel).config.fields.items())

    @classmethod
    def assets(cls, ways: Ways) -> list[type[Asset]]:  # noqa: D102
        return [AttributeModel]

    @classmethod
    def targets(cls, host: Host) -> list[Target]:  # noqa: D102
        fields = host.asset(AttributeModel).config.fields.items()
        return [Target(f"{name}={value}") for name, values in fields for value in values]

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """From a list of the field's words, ":" and the value's, alone or under the key `attr`, or FIELD=VALUE as text."""
        if isinstance(record, dict) and "attribute" in record:
            return replace(super().target(record, line), line=None)
        tokens = record.get("attr") if isinstance(record, dict) else record
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"it is no list of strings such as {cls.example}")
        colon = tokens.index(":") if ":" in tokens else -1
        if not 0 < colon < len(tokens) - 1:
            raise ValueError(f'it is no field, ":" and value, such as {cls.example}')
        value = f"{' '.join(tokens[:colon])}={join_words(tokens[colon + 1 :])}"
        return Target(value, words=words_of_record(record))

    @classmethod
    def prepared(cls, target: Target, host: Host) -> Target:
        """As the classifier writes field and value."""
        field, _, value = target.value.partition("=")
        return replace(target, value="=".join(canonical(field, value, host)))

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float]:
        """1 where the value is a substring of the joined words, in their case, be it within a longer word."""
        value = " ".join(words_of(target.value.split("=", 1)[1]))
        return [float(value in " ".join(words_of(text))) for text in texts]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [f"{name}={value}" for name, value in said_fields(document).items()]

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:  # noqa: D102
        return [(value, 0)]


@final
@dataclass(frozen=True)
class Said(_Named, Language):
    """The text says the value itself, as the paper counts success: exact, without a classifier.

    `Attribute` knows that a value has many surface forms; this one has one, and never misses it.
    """

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        name, value = canonical(self.field, self.value, host)
        return phrase_language(host, value, f"{name}={value}")

    def __invert__(self) -> Control:
        """The texts that do not say it, be it in a way that this automaton never writes."""
        return Avoid(self.value)
