"""What the baselines share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError, autocast, check_seed
from diffusion_lm.evaluation.targets import AttributeTarget, SentenceTarget
from diffusion_lm.evaluation.tasks import Composed
from diffusion_lm.fit import Limits, OptimizerConfig, Progress
from diffusion_lm.fit import fit as fit_model
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.store import write_whole
from diffusion_lm.text.batches import token_batches
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.fields import Document
from diffusion_lm.text.tokenizer import Tokenizer
from diffusion_lm.training.tables import labelled_documents

_SPAN = re.compile(r"\d+:\d+:\S")


def asked_of(target: Any) -> dict[str, Any]:
    """The target of each single control that a target of `evaluation.tasks` is made of, by the name of its task.

    Args:
        target: an attribute, a number of words, or a sentence's tags, tree or spans, each written as its flag takes it;
            or one of these together with an attribute; "" asks for nothing.
    """
    if isinstance(target, Composed):
        return asked_of(target.sentence) | asked_of(target.attribute)
    if isinstance(target, AttributeTarget):
        return {"attribute": target}
    if isinstance(target, int):
        return {"length": target}
    if isinstance(target, SentenceTarget):
        if target.value.startswith("("):
            return {"tree": target}
        return {"span" if _SPAN.match(target.value) else "pos": target}
    return {}


class Sentence(NamedTuple):
    """A sentence, what is known of it, and how a language model reads it."""

    document: Document
    labels: Annotation
    ids: list[int]
    """START words END."""


def sentences(config: LabelledTrainConfig, judge: JudgeLM) -> Iterator[Sentence]:
    """Those of the training split that are not too long for the language model.

    Raises:
        UserError: the corpus or its labels cannot be used.
    """
    for document, labels in labelled_documents(config.corpus, config.labels):
        ids = judge.tokenizer.encode_sentence(document.text)
        if len(ids) <= judge.config.max_length:
            yield Sentence(document, labels, ids)


Wanted = Sequence[tuple[int, int]]
"""The number of a softmax and a class of it, for each fact that is wanted."""


class Softmaxes(nn.Module):
    """S softmaxes, of `sizes` classes, each linear in the state."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(sizes))
        self.ends = [0, *accumulate(sizes)]

    def nll(self, states: Tensor, classes: Tensor) -> Tensor:
        """Mean -log p of the classes [N, S] at states [N, H], over both, in nats, []."""
        parts = self.linear(states).float().split([b - a for a, b in self._bounds()], -1)
        losses = [F.cross_entropy(part, right) for part, right in zip(parts, classes.long().T, strict=True)]
        return torch.stack(losses).mean()

    def log_p(self, states: Tensor, wanted: Wanted) -> Tensor:
        """Sum of the log-probabilities of the wanted classes, [...], at states [..., H]."""
        bounds = self._bounds()
        total = torch.zeros(states.shape[:-1], device=states.device)
        for number, right in wanted:
            a, b = bounds[number]
            logits = F.linear(states, self.linear.weight[a:b], self.linear.bias[a:b])
            total = total + logits.float().log_softmax(-1)[..., right]
        return total

    def _bounds(self) -> list[tuple[int, int]]:
        return list(zip(self.ends, self.ends[1:], strict=False))


@dataclass(frozen=True)
class BaselineTrainConfig:
    """How a baseline is made of a small autoregressive language model."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    judge: str = "runs/judge"
    """Folder of the language model to start from, as train-judge writes it."""
    epochs: float = 4.0
    """Passes over the training sentences."""
    minutes: float | None = None
    """Time limit; where it comes before the last epoch, the learning rate reaches zero with it."""
    batch_tokens: int = 4096
    """Positions a step, padding included."""
    lr: float = 6e-4
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    warmup: int = 100
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    seed: int = 0
    """Seed of new weights, dropout and batches."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
        for name in ("epochs", "minutes", "batch_tokens", "lr"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, not {value}.")


@dataclass(frozen=True)
class LabelledTrainConfig(BaselineTrainConfig):
    """How a baseline is made that reads the tags and trees of the corpus."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it; it is made if it does not hold those of this corpus."""


Report = Callable[[Progress], None]


def fit(
    model: nn.Module,
    lengths: Sequence[int],
    loss_of: Callable[[list[int]], Tensor],
    config: BaselineTrainConfig,
    progress: Report | None = None,
) -> None:
    """Train what of a model wants gradients, and leave it in evaluation mode.

    Args:
        model: to be trained.
        lengths: positions of each sentence.
        loss_of: from the numbers of a batch's sentences to its loss, [].
        config: how long, how fast.
        progress: called after every epoch.
    """
    order, sizes = torch.Generator().manual_seed(config.seed), torch.tensor(lengths)

    def loss(rows: Tensor) -> Tensor:
        with autocast(torch.device("cpu")):
            return loss_of(rows.tolist())

    fit_model(
        model,
        lambda: token_batches(sizes, config.batch_tokens, order),
        loss,
        Limits(epochs=config.epochs, minutes=config.minutes),
        OptimizerConfig(lr=config.lr, warmup=config.warmup, weight_decay=config.weight_decay, beta2=0.98, ema=0),
        on_epoch=progress,
    )


M = TypeVar("M", bound=nn.Module)

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What a missing, foreign or damaged file leads to."""


def save_baseline(
    folder: str | Path, kind: str, config: Mapping[str, Any], model: nn.Module, tokenizer: Tokenizer
) -> None:
    """Write the three files into `folder`, made if need be; each is whole or as it was before.

    Args:
        folder: where to.
        kind: what it is; `load_baseline` refuses another.
        config: what the model is built from.
        model: its weights.
        tokenizer: of its language model.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        write_whole(folder / "model.safetensors", save(weights))
        tokenizer.save(folder)
        text = json.dumps({"kind": kind, **config}, indent=2, ensure_ascii=False)
        write_whole(folder / "config.json", text + "\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None


def load_baseline(folder: str | Path, kind: str, build: Callable[[dict[str, Any], Tokenizer], M], command: str) -> M:
    """Read what `save_baseline` wrote, in evaluation mode and without gradients.

    Args:
        folder: where it is.
        kind: what it has to be.
        build: makes the model, without its weights, of its config and its tokenizer.
        command: makes such a folder, for errors.

    Raises:
        UserError: the folder is missing, is of another kind, or is damaged.
    """
    try:
        config: dict[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        if (found := config.pop("kind", None)) != kind:
            raise ValueError(f"its kind is {found}")
        model = build(config, Tokenizer.load(folder))
        model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    except DAMAGE as error:
        raise UserError(f"{folder} holds no {kind} ({error}); make one with: diffusion-lm {command}.") from error
    return model.eval().requires_grad_(False)


def kind_of(folder: str | Path) -> str:
    """What a folder says that it holds.

    Raises:
        UserError: if it is no folder of a baseline.
    """
    try:
        return str(json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["kind"])
    except DAMAGE:
        raise UserError(f"{folder} is no folder of a baseline; make one with diffusion-lm train-baseline.") from None
