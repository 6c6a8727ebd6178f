"""The denoising network: word embedding, heads, and the shape of both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.diffusion.losses import CrossEntropy, Objective, Simple, VariationalBound
from diffusion_lm.diffusion.process import UNKNOWN, Given, Prediction, Source, average, per_sentence, x0_from_eps
from diffusion_lm.diffusion.schedule import SCHEDULES
from diffusion_lm.model.transformer import LayerNorm, Transformer

Size = Literal["tiny", "small", "base"]

SIZES: dict[str, tuple[int, int, int]] = {"tiny": (128, 4, 2), "small": (256, 6, 4), "base": (768, 12, 12)}
"""Width H, layers and heads of each size; base is the paper's (BERT-base)."""


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What the model is; everything that generating needs to know."""

    size: Size = "small"
    """Width, layers and heads of the denoiser: tiny (128, 4, 2), small (256, 6, 4), base (768, 12, 12; the paper's)."""
    width: int | None = number(None, least=1, most=65_536)
    """H: width of the denoiser, instead of the size's."""
    layers: int | None = number(None, least=1, most=1000)
    """Layers of the denoiser, instead of the size's."""
    heads: int | None = number(None, least=1)
    """Attention heads, instead of the size's."""
    embedding_dim: int = number(16, least=1, most=65_536)
    """D: width of the word embeddings, and so of the latents (paper: 16 on E2E, 128 on ROCStories)."""
    max_length: int = number(64, least=3, most=8192)
    """Longest sentence in tokens, START and END included (paper: 64)."""
    layout: Literal["exact", "padded"] = "exact"
    """exact: a sentence is as long as its words; padded: every sentence fills max_length, PAD is a word (paper)."""
    objective: Literal["cross_entropy", "simple", "vlb"] = "cross_entropy"
    """cross_entropy on x0_hat = softmax(logits) E; simple: the paper's L_simple (Eq. 2-3); vlb: the paper's L_vlb."""
    prediction: Literal["x0", "eps"] = "x0"
    """What the network of the simple and vlb objectives predicts (paper: x0; eps is its ablation)."""
    sigma_0: float | None = number(None, least=0, most=10)
    """Noise of the simple objective's q(x0 | w) = N(Emb(w), sigma_0^2) (paper: .1); null: the schedule's at t = 0."""
    leave_out: Literal["x0", "embedding", "rounding", "prior"] | None = None
    """A term of the simple objective that is not learned from, to see what it is for."""
    embeddings: Literal["learned", "random"] = "learned"
    """learned with the model (paper), or random and fixed (its ablation)."""
    normalize_embeddings: bool = True
    """Scale every word vector to length sqrt(D); the paper's objective leaves them free."""
    self_conditioning: bool = True
    """Show the denoiser its own last x0_hat (Chen et al. 2022)."""
    schedule: Literal["sqrt", "cosine", "linear", "tan"] = "sqrt"
    """Noise schedule (paper: sqrt)."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch, or after the sum (paper, BERT)."""
    dropout: float | None = number(None, least=0, below=1)
    """Dropout (paper: 0.1); null, as of the next three: that of the model that a training goes on from, of a new one 0."""
    given: float | None = number(None, least=0, most=1)
    """Share of the training sentences some of whose words are given, so that the model fills gaps (docs/given.md); 0: of none,
    nor does it know START and END as given, or say how long a text is."""
    max_source: int | None = number(None, least=0, most=8192)
    """Longest source in tokens, with a `given` above 0: what a text is written from, such as E2E's meanings; 0: it has none."""
    source_dropout: float | None = number(None, least=0, most=1)
    """Share of the training batches whose sources are left out, so that the model also writes without one; null: .35 of a
    new model."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and what does not fit together."""
        super().__post_init__()
        if self.shape[0] % self.shape[2]:
            raise UserError(f"The width {self.shape[0]} is not a multiple of the number of heads, {self.shape[2]}.")
        if self.objective == "cross_entropy" and self.prediction == "eps":
            raise UserError("The cross_entropy objective predicts words, not eps; take --model.objective simple.")
        if self.objective != "simple" and (self.sigma_0, self.leave_out) != (None, None):
            raise UserError("sigma_0 and leave_out belong to --model.objective simple.")

    def filled(self, known: ModelConfig | None = None) -> ModelConfig:
        """The same with what may be left open as in a known one, by which a training starts, else as in a new model.

        Raises:
            UserError: given words do not go with the padded layout, or a source not without them.
        """
        new: dict[str, Any] = {"dropout": 0.0, "given": 0.0, "max_source": 0, "source_dropout": 0.35}
        found = {name: value if known is None else getattr(known, name) for name, value in new.items()}
        whole = replace(self, **{name: value for name, value in found.items() if getattr(self, name) is None})
        if whole.given and whole.layout == "padded":
            raise UserError("A model of the padded layout cannot have given words; take --model.layout exact.")
        if whole.max_source and not whole.given:
            raise UserError("A source is given words; take a --model.given above 0 with --model.max_source.")
        return whole

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width H, layers, heads."""
        width, layers, heads = SIZES[self.size]  # the numbers that are given are at least 1
        return self.width or width, self.layers or layers, self.heads or heads

    @property
    def canvas(self) -> int | None:
        """Positions that every sentence is padded to with PAD as a word, or None in the exact layout."""
        return self.max_length if self.layout == "padded" else None


class WordEmbedding(nn.Module):
    """The V x D table that the diffusion runs on, free or on a sphere of radius sqrt(D).

    On the sphere every coordinate has variance about 1, so that z_t has too at every t, and the objective cannot be
    lowered by shrinking or blowing up the vectors.
    """

    def __init__(self, vocab_size: int, dim: int, *, normalize: bool, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, dim), requires_grad=learned)
        self.normalize = normalize

    def vectors(self) -> Tensor:
        """The table as the diffusion sees it, [V, D]."""
        if not self.normalize:
            return self.weight
        return F.normalize(self.weight.float(), dim=-1) * math.sqrt(self.weight.shape[1])

    def forward(self, ids: Tensor) -> Tensor:
        """Emb(w): ids [B, L] to vectors [B, L, D]."""
        return F.embedding(ids, self.vectors())


class Head(nn.Module, ABC):
    """(hidden [B, L, H], z_t [B, L, D], alpha_bar [B, 1, 1], vectors [V, D]) to a Prediction."""

    @abstractmethod
    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:
        """The prediction of x0, in float32."""

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        """Logits of p(w | x0), [B, L, V]: the learned rounding step (paper section 4.1), tied to the embedding."""
        return x0 @ vectors.T


@final
class LogitHead(Head):
    """x0_hat = softmax(logits) E: a distribution over words at each position (Gulrajani and Hashimoto 2023)."""

    def __init__(self, width: int, vocab_size: int, clean_snr: float) -> None:
        super().__init__()
        self.clean_snr = clean_snr
        self.norm = LayerNorm(width)
        self.out = nn.Linear(width, vocab_size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:  # noqa: D102
        logits = self.out(self.norm(hidden)).float()
        return Prediction(average(vectors), logits, hidden)

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        """Bayes' rule for a word in the noise of t = 0, with SNR = alpha_bar(0) / (1 - alpha_bar(0)): nothing is learned."""
        with torch.autocast(x0.device.type, enabled=False):
            return self.clean_snr * (x0 @ vectors.T - vectors.square().sum(-1) / 2)


class _RoundingHead(Head):
    """A head whose network output is D wide; words come from the rounding step, whose bias is learned."""

    def __init__(self, width: int, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @abstractmethod
    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor: ...

    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:
        x0 = self._x0(self.out(hidden).float(), z, alpha_bar)
        return Prediction(x0, self.rounding_logits(x0, vectors))

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        with torch.autocast(x0.device.type, enabled=False):
            return super().rounding_logits(x0, vectors) + self.bias


@final
class X0Head(_RoundingHead):
    """The network predicts x0 (paper section 4.2)."""

    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor:
        return output


@final
class EpsHead(_RoundingHead):
    """The network predicts eps (the paper's ablation, figure 4); x0 follows from z_t."""

    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor:
        return x0_from_eps(z, output, alpha_bar)


SELF_CONDITIONING_SHARE = 0.5


class Denoiser(nn.Module):
    """All that is trained: word embedding, transformer, head (paper section 4)."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config = config.filled()
        self.vocab_size = vocab_size
        assert config.given is not None and config.max_source is not None and config.dropout is not None
        self.schedule = SCHEDULES[config.schedule]()
        dim, width, learned = config.embedding_dim, config.shape[0], config.embeddings == "learned"
        self.embedding = WordEmbedding(vocab_size, dim, normalize=config.normalize_embeddings, learned=learned)
        seen, pre_norm = 2 * dim if config.self_conditioning else dim, config.norm == "pre"
        self.transformer = Transformer(seen, config.shape, config.max_length, pre_norm=pre_norm, dropout=config.dropout)
        self.head: Head
        if config.objective == "cross_entropy":
            clean_snr = float(self.schedule.log_snr(torch.tensor(0.0, device="cpu")).exp())
            self.head = LogitHead(width, vocab_size, clean_snr)
        else:
            self.head = (X0Head if config.prediction == "x0" else EpsHead)(width, dim, vocab_size)
        if config.given:
            self.marks = nn.Parameter(torch.zeros(2, width))
            # Of a gap's words there are 0 (never) to all that fit; equally many at first.
            out = nn.Linear(width, config.max_length - 1)
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
            self.gap_words = nn.Sequential(nn.LayerNorm(width), out)
        if config.max_source:
            self.source_position = nn.Embedding(config.max_source, width)
            nn.init.normal_(self.source_position.weight, std=0.5)

    @torch.no_grad()
    def take_over(self, other: Denoiser) -> None:
        """Take the weights of a network of the same shape with fewer words or a shorter source; what it lacks stays as it is."""
        own = self.state_dict()
        for name, weight in other.state_dict().items():
            if name in own:
                own[name][: len(weight)] = weight[: len(own[name])]

    @property
    def knows_given(self) -> bool:
        """Whether it was trained with words that are given, and says how long gaps are."""
        return bool(self.config.given)

    def objective(self) -> Objective:
        """The training loss that the config names."""
        if self.config.objective == "cross_entropy":
            return CrossEntropy()
        if self.config.objective == "simple":
            config, eps = self.config, self.config.prediction == "eps"
            return Simple(predicts_eps=eps, sigma_0=config.sigma_0, leave_out=config.leave_out)
        return VariationalBound()

    @property
    def predicts_words(self) -> bool:
        """Whether x0_hat is the average of word vectors under p(w | z_t)."""
        return self.config.objective == "cross_entropy"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """Emb(w): ids [B, L] to x0 [B, L, D]."""
        return self.embedding(ids)

    def rounding_logits(self, x0: Tensor) -> Tensor:
        """Logits of p(w | x0): x0 [B, L, D] to [B, L, V]."""
        return self.head.rounding_logits(x0, self.embedding.vectors())

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        mask: Tensor | None,
        previous: Tensor | None = None,
        given: Given | None = None,
    ) -> Prediction:
        """One pass of the network on z_t [B, L, D] at t [B].

        The mask is True at positions that exist, [B, L]; None where all do. `previous` is the last x0_hat of a
        self-conditioned model, [B, L, D]; None (zeros) at first. Where words are given, Emb(w) takes the place of both.
        """
        vectors, marks = self.embedding.vectors(), None
        previous = torch.zeros_like(z) if previous is None else previous.to(z.dtype)
        if given is not None:
            is_given, clean = self._clean(given.known, vectors, z.dtype)
            z, previous = torch.where(is_given, clean, z), torch.where(is_given, clean, previous)
            marks = is_given * self.marks[0]
        hidden = self.transformer(self._seen(z, previous), t, mask, marks, given and given.source)
        return self.head(hidden, z, per_sentence(self.schedule.alpha_bar(t)), vectors)

    def _clean(self, known: Tensor, vectors: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Which positions are given, [B, L, 1], and the vectors of their words, [B, L, D]."""
        return (known != UNKNOWN)[..., None], F.embedding(known.clamp(min=0), vectors).to(dtype)

    def _seen(self, z: Tensor, previous: Tensor) -> Tensor:
        return torch.cat([z, previous], dim=-1) if self.config.self_conditioning else z

    def read(self, source: Tensor) -> Source:
        """Read sources, once for all noise levels: ids [B, S], `UNKNOWN` behind their end."""
        is_word, clean = self._clean(source, self.embedding.vectors(), torch.float32)
        position = self.source_position(torch.arange(source.shape[1], device=source.device))
        past = self.transformer.read(self._seen(clean, clean), is_word[..., 0], position + self.marks[0])
        return Source(source, past)

    def read_given(self, known: Tensor, source: Tensor | None) -> Given:
        """Words that are given, ids [B, L] as `Given` has them, and sources [B, S], which are read; None: there are none."""
        return Given(known, None if source is None else self.read(source))

    def gap_logits(self, known: Tensor, mask: Tensor, source: Source | None) -> Tensor:
        """Logits of how many words each gap has, 0 to max_length - 2, [B, K, max_length - 1]; no gap has none.

        A gap of `known` [B, K] is a single position, `UNKNOWN`; the mask is True at positions that exist. It is what the
        network says at t = 1, where nothing is seen of the words (p(length | given)).
        """
        is_given, clean = self._clean(known, self.embedding.vectors(), torch.float32)
        seen = torch.where(is_given, clean, 0.0)
        marks = torch.where(is_given, self.marks[0], self.marks[1])
        hidden = self.transformer(self._seen(seen, seen), seen.new_ones(len(seen)), mask, marks, source)
        logits = self.gap_words(hidden).float()
        never = torch.arange(logits.shape[-1], device=logits.device) == 0
        return logits.masked_fill(never, -torch.inf)

    def predict(self, z: Tensor, t: Tensor, mask: Tensor, given: Given | None = None) -> Prediction:
        """The denoiser as training sees it: half of the sentences are shown a first x0_hat (without gradient)."""
        previous = None
        if self.config.self_conditioning:
            previous = torch.zeros_like(z)
            rows = torch.randperm(len(z), device=z.device)[: int(len(z) * SELF_CONDITIONING_SHARE)]
            if len(rows):
                with torch.no_grad():
                    first = self(z[rows], t[rows], mask[rows], given=given and given.rows(rows))
                    previous[rows] = first.x0.to(z.dtype)
        return self(z, t, mask, previous, given)
