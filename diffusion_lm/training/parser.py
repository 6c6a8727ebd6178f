"""Training of the constituency parser: a label, or none, for every span of a treebank's sentences."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
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
    equal_length_batches,
    features,
    span_index,
)
from diffusion_lm.annotate.trees import MOST_WORDS, bracket_f1, chart_of, read_tree, word_of
from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.fit import Limits, OptimizerConfig, Progress, fit

if TYPE_CHECKING:
    from nltk import Tree


@dataclass(frozen=True)
class ParserTrainConfig(Settings):
    """How the constituency parser is trained."""

    train: list[str] = field(default_factory=list)
    """Files of trees in Penn Treebank brackets, one a line."""
    dev: str | None = None
    """File of trees that decide which epoch is kept; without one the last is."""
    out: str = "runs/parser"
    """Where the parser goes: a folder."""
    epochs: int = number(16, least=1)
    """Times that every tree is seen."""
    batch_tokens: int = number(1024, least=1)
    """Words a step."""
    lr: float = number(2e-3, above=0)
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = number(0.01, least=0)
    """AdamW's decoupled weight decay of matrices."""
    ema: float = number(0.998, least=0, below=1)
    """Decay of the average of the weights that is kept."""
    width: int = number(256, least=1)
    """Width of the LSTM in each direction, and of the perceptron."""
    dropout: float = number(0.35, least=0, below=1)
    """Dropout at the LSTM's input, between its layers and at its output."""
    word_dropout: float = number(0.1, least=0, below=1)
    """How often a word loses its tags and dependency, and how often its vector."""
    min_label_count: int = number(5, least=1)
    """A label, or chain of labels, is learned if the trees have it so often; a span with a rarer one is passed over."""
    max_words: int = number(100, least=1, most=MOST_WORDS)
    """Longer sentences are skipped and counted."""
    seed: int = 0
    """Seed of weights, batches and dropout."""

    def __post_init__(self) -> None:
        if not self.train:
            raise UserError("Training a parser needs trees; name at least one file with --train.")
        super().__post_init__()


logger = logging.getLogger(__name__)
_PASSED_OVER = -100  # what the loss leaves out


def read_treebank(path: str | Path, max_words: int) -> list[Tree]:
    """The trees of a file, one a line; longer ones and lines that are no tree are left out and counted in the log.

    Raises:
        UserError: if the file is missing or no text, or no tree is left.
    """
    try:
        lines = Path(path).read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a treebank ({error}); give a text file of trees.") from None
    found, broken = [], []
    for row, line in enumerate(lines, 1):
        try:
            found += [read_tree(line)] if line.strip() else []
        except UserError as error:
            # Treebanks have such lines: MASC has one bracket without a label in 5,331 trees.
            broken.append(f"line {row}: {error}")
    trees = [tree for tree in found if len(tree.leaves()) <= max_words and chart_of(tree)]
    if not trees:
        first = "".join(f" ({problem})" for problem in broken[:1])
        raise UserError(f"{path} holds no tree of at most {max_words} words{first}; give one tree a line.")
    if broken:
        logger.warning("%s: %d lines are no trees and are left out; the first is %s", path, len(broken), broken[0])
    logger.info("%s: %d trees, %d skipped as too long or without a phrase.", path, len(trees), len(found) - len(trees))
    return trees


def known_labels(trees: Sequence[Tree], min_count: int) -> list[str]:
    """Chains of labels that the trees have at least so often, the most frequent first.

    Raises:
        UserError: if there are none.
    """
    counts = Counter(label for tree in trees for label in chart_of(tree).values())
    labels = [label for label, n in counts.items() if n >= min_count]
    if not labels:
        raise UserError(f"The trees have no label {min_count} times; lower min_label_count or give more trees.")
    return sorted(labels, key=lambda label: (-counts[label], label))


def targets(tree: Tree, labels: Sequence[str]) -> Tensor:
    """The class of each span of a tree, [S], in the order of `span_index`."""
    classes = {label: i + 1 for i, label in enumerate(labels)}
    chart = {span: classes.get(label, _PASSED_OVER) for span, label in chart_of(tree).items()}
    spans = torch.stack(span_index(len(tree.leaves())), -1).tolist()
    return torch.tensor([chart.get((start, stop), NULL) for start, stop in spans], dtype=torch.int16)


def train_parser(
    config: ParserTrainConfig, progress: Callable[[Progress, float | None], None] | None = None
) -> float | None:
    """Train the parser; the best epoch so far always stands in the folder, whole.

    After every epoch `progress` is called with its mean loss a word and its F1 on the dev trees, None without any.
    Returns the best F1.

    Raises:
        UserError: if a treebank is unusable, the loss is not finite or the folder cannot be written.
    """
    torch.manual_seed(config.seed)
    trees = [tree for path in config.train for tree in read_treebank(path, config.max_words)]
    dev = read_treebank(config.dev, config.max_words) if config.dev else []
    labels, vocabulary = known_labels(trees, config.min_label_count), FeatureVocabulary.of_spacy()
    model = SpanParser(SpanParserConfig(labels, vocabulary, config.width, config.dropout, config.word_dropout))
    logger.info("%d labels, %d parameters.", len(labels), sum(p.numel() for p in model.parameters()))
    seen, dev_seen = _seen(trees, vocabulary), _seen(dev, vocabulary)
    goals = [targets(tree, labels) for tree in trees]
    plan = partial(equal_length_batches, [len(each.words) for each in seen], config.batch_tokens)
    warmup = max(1, config.epochs * len(plan()) // 20)
    best: float | None = None

    def keep(done: Progress) -> None:
        nonlocal best
        f1 = bracket_f1(dev, model.trees(dev_seen)) if dev else None
        if f1 is None or best is None or f1 > best:
            best = f1
            model.save_pretrained(config.out)
        if progress is not None:
            progress(done, f1)

    fit(
        model,
        partial(plan, torch.Generator().manual_seed(config.seed)),
        lambda rows: _loss(model, [seen[row] for row in rows], [goals[row] for row in rows]),
        Limits(epochs=config.epochs),
        OptimizerConfig(lr=config.lr, warmup=warmup, weight_decay=config.weight_decay, ema=config.ema),
        on_epoch=keep,
    )
    return best


def _seen(trees: Sequence[Tree], vocabulary: FeatureVocabulary) -> list[Words]:
    return features([[word_of(leaf) for leaf in tree.leaves()] for tree in trees], vocabulary)


def _loss(model: SpanParser, sentences: list[Words], goals: list[Tensor]) -> Tensor:
    """Cross-entropy of all spans of sentences of one length, summed, a word."""
    logits, goal = model.logits(sentences), torch.stack(goals).long()
    total = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), ignore_index=_PASSED_OVER, reduction="sum")
    return total / (len(sentences) * len(sentences[0].words))
