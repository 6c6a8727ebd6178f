"""Training of the constituency parser: a label, or none, for every span of a treebank's sentences."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.annotate.parser import (
    NULL,
    FeatureVocabulary,
    SpanParser,
    SpanParserConfig,
    Words,
    charts,
    equal_length_batches,
    features,
    span_index,
)
from diffusion_lm.annotate.trees import bracket_f1, chart_of, read_tree, tree_of, word_of
from diffusion_lm.common import UserError, check_seed
from diffusion_lm.fit import EMA, OptimizerConfig, build_optimizer, learning_rate

if TYPE_CHECKING:
    from nltk import Tree


@dataclass(frozen=True)
class ParserTrainConfig:
    """How the constituency parser is trained."""

    train: list[str] = field(default_factory=list)
    """Files of trees in Penn Treebank brackets, one a line."""
    dev: str | None = None
    """File of trees that decide which epoch is kept; without one the last is."""
    out: str = "runs/parser"
    """Where the parser goes: a folder."""
    epochs: int = 16
    """Times that every tree is seen."""
    batch_tokens: int = 1024
    """Words a step."""
    lr: float = 2e-3
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay of matrices."""
    ema: float = 0.998
    """Decay of the average of the weights that is kept."""
    width: int = 256
    """Width of the LSTM in each direction, and of the perceptron."""
    dropout: float = 0.35
    """Dropout at the LSTM's input, between its layers and at its output."""
    word_dropout: float = 0.1
    """How often a word loses its tags and dependency, and how often its vector."""
    min_label_count: int = 5
    """A label, or chain of labels, is learned if the training trees have it so often; a span with a rarer one is passed
    over."""
    max_words: int = 100
    """Longer sentences are skipped and counted."""
    seed: int = 0
    """Seed of weights, batches and dropout."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.train:
            raise UserError("Training a parser needs trees; name at least one file with --train.")
        for name in ("epochs", "batch_tokens", "width", "min_label_count", "max_words"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("dropout", "word_dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        check_seed(self.seed)
        if self.lr <= 0:
            raise UserError(f"lr must be above 0, not {self.lr}.")


logger = logging.getLogger(__name__)

PASSED_OVER = -100
"""Target of a span that the loss leaves out."""


@dataclass(frozen=True)
class ParserProgress:
    """What an epoch came to.

    Attributes:
        epoch: counted from 1.
        loss: cross-entropy a word, over all its spans.
        f1: labelled bracket F1 on the dev trees; None without any.
        seconds: what the epoch took, the dev trees included.
    """

    epoch: int
    loss: float
    f1: float | None
    seconds: float


def read_treebank(path: str | Path, max_words: int) -> list[Tree]:
    """The trees of a file, one a line; longer ones and lines that are no tree are left out and counted in the log.

    Raises:
        UserError: if the file is missing or no text, or no tree is left.
    """
    try:
        lines = Path(path).read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a treebank ({error}); give a text file of trees.") from None
    trees, skipped, broken = [], 0, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            tree = read_tree(line)
        except UserError as error:
            # Treebanks have such lines: MASC has one bracket without a label in 5,331 trees.
            broken.append(f"line {number}: {error}")
            continue
        if len(tree.leaves()) > max_words or not chart_of(tree):
            skipped += 1
        else:
            trees.append(tree)
    if not trees:
        problem = f" ({broken[0]})" if broken else ""
        raise UserError(f"{path} holds no tree of at most {max_words} words{problem}; give one tree a line.")
    if broken:
        logger.warning("%s: %d lines are no trees and are left out; the first is %s", path, len(broken), broken[0])
    logger.info("%s: %d trees, %d skipped as too long or without a phrase.", path, len(trees), skipped)
    return trees


def known_labels(trees: Sequence[Tree], min_count: int) -> list[str]:
    """Chains of labels that the trees have at least so often, the most frequent first.

    Raises:
        UserError: if there are none.
    """
    counts = Counter(label for tree in trees for label in chart_of(tree).values())
    labels = [label for label, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_count]
    if not labels:
        raise UserError(f"The trees have no label {min_count} times; lower min_label_count or give more trees.")
    return labels


def targets(tree: Tree, classes: dict[str, int]) -> Tensor:
    """The class of each span of a tree, [S] (int16), in the order of `span_index`."""
    chart = chart_of(tree)
    starts, stops = span_index(len(tree.leaves()))
    return torch.tensor(
        [
            classes.get(chart[span], PASSED_OVER) if span in chart else NULL
            for span in zip(starts.tolist(), stops.tolist(), strict=True)
        ],
        dtype=torch.int16,
    )


def _words(tree: Tree) -> list[str]:
    return [word_of(leaf) for leaf in tree.leaves()]


def train_parser(config: ParserTrainConfig, progress: Callable[[ParserProgress], None] | None = None) -> float | None:
    """Train the parser; the best epoch so far always stands in the folder, whole.

    Args:
        config: what to train on, how large, how long.
        progress: called after every epoch.

    Returns:
        The best F1 on the dev trees; None without any.

    Raises:
        UserError: if a treebank is unusable or the loss is not finite.
    """
    torch.manual_seed(config.seed)
    trees = [tree for path in config.train for tree in read_treebank(path, config.max_words)]
    dev = read_treebank(config.dev, config.max_words) if config.dev else []
    labels = known_labels(trees, config.min_label_count)
    vocabulary = FeatureVocabulary.of_spacy()
    model = SpanParser(SpanParserConfig(labels, vocabulary, config.width, config.dropout, config.word_dropout))
    logger.info("%d labels, %d parameters.", len(labels), sum(p.numel() for p in model.parameters()))
    seen = features(list(map(_words, trees)), vocabulary)
    dev_seen = features(list(map(_words, dev)), vocabulary)
    classes = {label: i + 1 for i, label in enumerate(labels)}
    goals = [targets(tree, classes) for tree in trees]
    logger.info("Features of %d sentences are ready.", len(seen) + len(dev_seen))

    generator = torch.Generator().manual_seed(config.seed)
    plan = [
        equal_length_batches([len(words.tags) for words in seen], config.batch_tokens, generator)
        for _ in range(config.epochs)
    ]
    steps = sum(map(len, plan))
    schedule = OptimizerConfig(
        lr=config.lr, warmup=max(1, steps // 20), decay="cosine", weight_decay=config.weight_decay
    )
    optimizer = build_optimizer(model, schedule)
    average = EMA(model, config.ema)
    step, best = 0, -1.0
    for epoch, batches in enumerate(plan, 1):
        began, total = time.perf_counter(), 0.0
        model.train()
        for rows in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, schedule)
            loss = _loss(model, [seen[row] for row in rows], [goals[row] for row in rows])
            if not torch.isfinite(loss):
                raise UserError(f"The loss is not finite at step {step + 1}; take a lower lr.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
            total += loss.item() / len(batches)
            step += 1
        with average.in_place():
            f1 = dev_f1(model.eval(), dev, dev_seen) if dev else None
            if f1 is None or f1 > best:
                best = best if f1 is None else f1
                model.save_pretrained(config.out)
        done = ParserProgress(epoch, total, f1, time.perf_counter() - began)
        logger.info(
            "Epoch %d: loss %.4f, dev F1 %s, %.0f s.",
            epoch,
            total,
            "-" if f1 is None else f"{100 * f1:.2f}",
            done.seconds,
        )
        if progress is not None:
            progress(done)
    return best if dev else None


def _loss(model: SpanParser, words: list[Words], goals: list[Tensor]) -> Tensor:
    """Cross-entropy of all spans of sentences of one length, summed, a word."""
    logits = model(torch.stack([w.classes for w in words]), torch.stack([w.vectors for w in words]))
    goal = torch.stack(goals).long().flatten()
    total = F.cross_entropy(logits.flatten(0, 1), goal, ignore_index=PASSED_OVER, reduction="sum")
    return total / (len(words) * len(words[0].tags))


def dev_f1(model: SpanParser, trees: Sequence[Tree], words: Sequence[Words]) -> float:
    """Labelled bracket F1 of a model in eval mode on gold trees whose features are at hand."""
    found = [
        tree_of(tree.leaves(), each.tags, chart)
        for tree, each, chart in zip(trees, words, charts(model, words), strict=True)
    ]
    return bracket_f1(trees, found)
