"""The judge: a small causal language model of human text that measures fluency (paper, section 6).

It takes the place of the paper's fine-tuned GPT-2. It is independent of the diffusion model, has its own tokenizer, and
can sample as an autoregressive baseline.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.common import Settings, UserError, autocast, number
from diffusion_lm.model.transformer import Block
from diffusion_lm.store import Kind, bundled, load, save
from diffusion_lm.text.batches import padded, token_batches
from diffusion_lm.text.tokenizer import Tokenizer

NextWord = Callable[[Tensor], Tensor]
"""(ids of START words [B, L]) -> log-probabilities of the next word, up to a constant, [B, V]."""


@dataclass(frozen=True)
class Ends:
    """Where sentences begin and end, and what never stands in them."""

    start: int
    end: int
    limit: int
    """Most ids of a sentence, START and END included; END is forced there."""
    unknown: int | None = None
    """UNK, which is read and never written: a text with it is none; None: there is no such id."""

    def writable(self, logits: Tensor) -> Tensor:
        """Logits of next words [B, V], of UNK -inf."""
        if self.unknown is None:
            return logits
        return logits.index_fill(-1, torch.tensor([self.unknown], device=logits.device), -torch.inf)


@torch.no_grad()
def sample(
    next_word: NextWord,
    ends: Ends,
    n: int,
    generator: torch.Generator | None,
    device: torch.device | None = None,
    keep: Callable[[Tensor], None] | None = None,
) -> list[list[int]]:
    """Draw n sentences on a device, where the generator lives too; each is START words END.

    `keep` is told which of the sentences go on, True in [B], whenever some have ended.
    """
    done: list[list[int]] = [[] for _ in range(n)]
    rows, ids = torch.arange(n, device=device), torch.full((n, 1), ends.start, device=device)
    while len(rows):
        if ids.shape[1] == ends.limit - 1:
            drawn = torch.full((len(rows), 1), ends.end, device=device)
        else:
            drawn = torch.multinomial(ends.writable(next_word(ids)).softmax(-1), 1, generator=generator)
        ids = torch.cat([ids, drawn], dim=1)
        ended = ids[:, -1] == ends.end
        for row, sentence in zip(rows[ended].tolist(), ids[ended].tolist(), strict=True):
            done[row] = sentence
        rows, ids = rows[~ended], ids[~ended]
        if keep is not None and bool(ended.any()):
            keep(~ended)
    return done


@torch.no_grad()
def beam_search(next_word: NextWord, ends: Ends, beams: int) -> list[list[int]]:
    """The likeliest sentences found, at most `beams`, the best first; by log-probability a word, END counted."""
    ids, scores = torch.full((1, 1), ends.start), torch.zeros(1)
    found: list[tuple[float, list[int]]] = []
    while len(ids) and len(found) < beams:
        log_p = scores[:, None] + ends.writable(next_word(ids)).log_softmax(-1)
        if ids.shape[1] == ends.limit - 1:
            log_p = log_p[:, ends.end, None]
            found += [(float(p) / ids.shape[1], [*s, ends.end]) for p, s in zip(log_p, ids.tolist(), strict=True)]
            break
        best, place = log_p.flatten().topk(min(beams, log_p.numel()))
        row, word = place // log_p.shape[1], place % log_p.shape[1]
        ids, scores = torch.cat([ids[row], word[:, None]], dim=1), best
        ended = word == ends.end
        found += [(float(p) / (len(s) - 1), s) for p, s in zip(scores[ended], ids[ended].tolist(), strict=True)]
        ids, scores = ids[~ended], scores[~ended]
    return [sentence for _, sentence in sorted(found, reverse=True)[:beams]]


KIND = Kind("judge", "diffusion-lm train-judge", format=2)


@dataclass(frozen=True)
class JudgeConfig(Settings):
    """The shape of a judge; saved as its `config.json`."""

    vocab_size: int = number(least=4)
    """Number of words, the four special ones included."""
    width: int = number(256, least=1)
    """Width of the residual stream, H; a multiple of `heads`."""
    layers: int = number(4, least=1)
    """Number of transformer blocks."""
    heads: int = number(4, least=1)
    """Attention heads a block."""
    max_length: int = number(128, least=2)
    """Longest sequence that can be scored, START and END included."""
    dropout: float = number(0.1, least=0, below=1)
    """Probability that a feature of the embedding or of a residual branch is dropped while training."""

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built."""
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(f"The judge's width, {self.width}, is not a multiple of its heads, {self.heads}.")


class SequenceDropout(nn.Dropout):
    """Dropout whose mask is shared by all positions of a sequence (Gal and Ghahramani, 2016).

    It draws B H random numbers where ordinary dropout draws B L H, which on a CPU is most of dropout's cost.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop features of `x` [B, L, H] while training; the identity otherwise."""
        return x * super().forward(x.new_ones(x.shape[0], 1, x.shape[2])) if self.training else x


Past = list[Tensor]
"""For every block the keys and the values of the words read so far, [2, B, heads, L, depth]."""


class JudgeLM(nn.Module):
    """A GPT-shape language model over START words END: p(words, END | START).

    START and PAD have probability zero, so the probabilities of all sentences sum to one. Padding stands on the right
    only; causal attention then needs no padding mask.
    """

    def __init__(self, config: JudgeConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if tokenizer.vocab_size != config.vocab_size:
            raise UserError(f"The judge knows {config.vocab_size} words, but its tokenizer has {tokenizer.vocab_size}.")
        self.config, self.tokenizer = config, tokenizer
        self.human_nats: float | None = None
        """Nats a token of the development split, END counted, once it is trained: what texts are held against."""
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.max_length - 1, config.width)
        self.dropout = SequenceDropout(config.dropout)
        blocks = [Block(config.width, config.heads, self.dropout, causal=True) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)
        never = torch.zeros(config.vocab_size)
        never[[tokenizer.start_id, tokenizer.pad_id]] = -torch.inf
        self.never: Tensor
        self.register_buffer("never", never, persistent=False)
        # GPT-2's initial weights: residual projections are divided by sqrt(2 layers).
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("attention_out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, ids: Tensor) -> Tensor:
        """The last hidden states [B, L, H] of `ids` [B, L]; END is never read, so L < max_length."""
        if ids.shape[1] >= self.config.max_length:
            raise UserError(
                f"A sentence has {ids.shape[1] + 1} tokens, START and END included, "
                f"but the judge reads at most {self.config.max_length}."
            )
        return self.step(self.dropout(self.placed(self.embedding(ids))))[0]

    def placed(self, vectors: Tensor, first: int = 0) -> Tensor:
        """Vectors of words [B, L, H] with their positions, from `first` on."""
        return vectors + self.positions.weight[first : first + vectors.shape[1]]

    def step(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Read on: the last hidden states [B, L, H] of more words, given as `placed` vectors, and the past with them."""
        longer = []
        for i, block in enumerate(self.blocks):
            x, seen = block(x, past=past and past[i])
            longer.append(seen)
        return self.norm(x), longer

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-word logits [..., V] of hidden states [..., H]; the output layer is the embedding."""
        return F.linear(hidden, self.embedding.weight, self.never).float()

    def nll(self, ids: Tensor, mask: Tensor) -> Tensor:
        """-log p(ids[:, i + 1] | ids[:, : i + 1]) in nats, [B, L - 1]; 0 where the target is padding.

        The ids, [B, L], are START words END PAD ...; the mask is True on START words END.
        """
        targets, real = ids[:, 1:], mask[:, 1:]
        logits = self.logits(self.hidden(ids[:, :-1])[real])
        losses = F.cross_entropy(logits, targets[real], reduction="none")
        return torch.zeros(targets.shape, device=ids.device).masked_scatter(real, losses)

    @torch.no_grad()
    def score(self, sequences: Sequence[Sequence[int]], batch_tokens: int = 8192) -> tuple[Tensor, Tensor]:
        """The nats [n] (float64) and the predicted tokens [n] (words and END) of n sentences, each START words END."""
        nats = torch.zeros(len(sequences), dtype=torch.float64)
        lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.long)
        if len(sequences) and lengths.min() < 2:
            raise UserError("Every sequence to be scored must hold at least START and END.")
        self.eval()
        for batch in token_batches(lengths, batch_tokens, None):
            ids = padded([sequences[i] for i in batch.tolist()], -1).to(self.device)
            nats[batch] = self.nll(ids.clamp(min=0), ids >= 0).double().sum(1).cpu()
        return nats, lengths - 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def ends(self) -> Ends:
        """Where its sentences begin and end."""
        return Ends(self.tokenizer.start_id, self.tokenizer.end_id, self.config.max_length, self.tokenizer.unk_id)

    def next_word(self, ids: Tensor) -> Tensor:
        """Next-word logits, [B, V], after words [B, L], START the first."""
        return self.logits(self.hidden(ids)[:, -1])

    def sample(self, n: int, generator: torch.Generator | None = None) -> list[list[int]]:
        """Draw n sentences word by word, each START words END, with a generator on the judge's device."""
        past: Past | None = None

        def next_word(ids: Tensor) -> Tensor:
            nonlocal past
            with autocast(ids.device):
                hidden, past = self.step(self.placed(self.embedding(ids[:, -1:]), ids.shape[1] - 1), past)
                return self.logits(hidden[:, -1])

        def keep(rows: Tensor) -> None:
            nonlocal past
            past = past and [block[:, rows] for block in past]

        self.eval()
        return sample(next_word, self.ends, n, generator, self.device, keep)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `tokenizer.json` and `model.safetensors` into a folder, made if need be; bf16 halves it."""
        config = dataclasses.asdict(self.config) | {"human_nats": self.human_nats}
        weights = {name: weight.to(dtype) for name, weight in self.state_dict().items()}
        save(folder, KIND, config, weights, extra=self.tokenizer.save)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> JudgeLM:
        """A bundled judge ("e2e-judge") or one of a folder, in evaluation mode.

        Raises:
            UserError: the folder is missing, damaged or not a judge's.
        """
        folder = bundled(KIND).get(str(folder), Path(folder))

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> JudgeLM:
            human_nats = config.pop("human_nats", None)
            model = cls(JudgeConfig(**config), Tokenizer.load(folder))
            model.load_state_dict({name: weight.float() for name, weight in tensors.items()})
            model.human_nats = None if human_nats is None else float(human_nats)
            return model.eval()

        return load(folder, KIND, build)


def fluency(judge: JudgeLM, texts: Sequence[str]) -> float:
    """Nats a token of texts, words and END counted, by the judge's own tokenizer and in float32.

    Raises:
        UserError: there is no text, or one is longer than the judge can read.
    """
    if not texts:
        raise UserError("Fluency needs at least one text.")
    nats, counts = judge.score([judge.tokenizer.encode_sentence(text) for text in texts])
    return float(nats.sum() / counts.sum())
