"""The network that scores every span of a sentence for every label.

After Stern, Andreas and Klein, "A Minimal Span-Based Neural Constituency Parser" (2017), with spaCy's features for words.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_lm.annotate.features import UNKNOWN, VECTOR, FeatureVocabulary
from diffusion_lm.errors import UserError

FORMAT = 1
"""Of the folder; a parser of another format is refused."""

NULL = 0
"""Class of a span that is no constituent; label i of the list is class i + 1."""

_WIDTHS = (64, 64, 32, 32, 16, 16, 8)
"""Widths of the embeddings, in the order of the features' classes."""


@dataclass(frozen=True)
class SpanParserConfig:
    """What the parser knows and how large it is."""

    labels: list[str]
    vocabulary: FeatureVocabulary
    width: int = 192
    dropout: float = 0.3
    word_dropout: float = 0.1


@cache
def _differences(length: int) -> Tensor:
    """The matrix that turns fenceposts into spans, [S, L + 1], S = L (L + 1) / 2 spans in the order of `span_index`."""
    starts, stops = span_index(length)
    rows = torch.arange(len(starts))
    matrix = torch.zeros(len(starts), length + 1)
    matrix[rows, starts], matrix[rows, stops] = -1.0, 1.0
    return matrix


def span_index(length: int) -> tuple[Tensor, Tensor]:
    """Starts and stops of all spans of a sentence, [S] each, by start and then by stop."""
    starts, last = torch.triu_indices(length, length)
    return starts, last + 1


class SpanParser(nn.Module):
    """Embeddings and spaCy's vector, a 2-layer BiLSTM, and a perceptron on the difference of a span's fenceposts."""

    def __init__(self, config: SpanParserConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.vocabulary.sizes
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width) for size, width in zip(sizes, _WIDTHS, strict=True)
        )
        self.lstm = nn.LSTM(
            sum(_WIDTHS) + VECTOR,
            config.width,
            2,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.forward_post = nn.Linear(config.width, config.width, bias=False)
        self.backward_post = nn.Linear(config.width, config.width, bias=False)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, len(config.labels) + 1)

    def forward(self, classes: Tensor, vectors: Tensor) -> Tensor:
        """Logits of the labels, "no constituent" first: classes [B, L, 7], vectors [B, L, 96] to [B, S, V + 1].

        All sentences are of one length. S = L (L + 1) / 2 spans stand in the order of `span_index`.
        """
        classes, vectors = classes.long(), vectors.float()
        if self.training:
            # Tag and dependencies go together or the vector goes alone, so that neither is all that counts.
            keep = torch.rand(2, *classes.shape[:2], device=classes.device) >= self.config.word_dropout
            classes = classes.masked_fill(~keep[0, ..., None] & _nameable(classes), UNKNOWN)
            vectors = vectors * keep[1, ..., None]
        parts = [embedding(classes[..., i]) for i, embedding in enumerate(self.embeddings)]
        hidden, _ = self.lstm(self.dropout(torch.cat([*parts, vectors], -1)))
        ahead, back = self.dropout(hidden).chunk(2, -1)
        # The perceptron's first layer on (f_j - f_i, b_i - b_j) is linear, so it is taken at the L + 1 fenceposts,
        # f_0 = b_L = 0, instead of at the S spans.
        posts = nn.functional.pad(self.forward_post(ahead), (0, 0, 1, 0)) - nn.functional.pad(
            self.backward_post(back), (0, 0, 0, 1)
        )
        spans = _differences(classes.shape[1]).to(posts) @ posts
        logits: Tensor = self.out(self.norm(spans).relu())
        return logits

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), whole or not at all."""
        folder = Path(folder)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "config.json").write_text(
            json.dumps({"format": FORMAT, **asdict(self.config)}, indent=2, ensure_ascii=False),
            encoding="utf8",
        )
        state = {k: v.detach().half().contiguous() for k, v in self.state_dict().items()}
        save_file(state, partial / "model.safetensors")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)

    @staticmethod
    def from_pretrained(folder: str | Path) -> SpanParser:
        """Load a parser, ready to use.

        Raises:
            UserError: if the folder holds none, or one that is damaged or of another format.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no parser; give a folder that training a parser has written.")
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf8"))
            found = values.pop("format")
            if found != FORMAT:
                raise ValueError(f"format {found} instead of {FORMAT}")
            values["vocabulary"] = FeatureVocabulary(**values["vocabulary"])
            model = SpanParser(SpanParserConfig(**values))
            model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except Exception as error:
            raise UserError(f"The parser in {folder} is truncated or foreign ({error}).") from None
        return model.eval().requires_grad_(False)


def _nameable(classes: Tensor) -> Tensor:
    """The features that have an unknown class: tag, dependency, head's tag; [7]."""
    named = torch.zeros(classes.shape[-1], dtype=torch.bool, device=classes.device)
    named[[0, 1, 3]] = True
    return named
