"""Train FUDGE's future discriminators, all in one run (Yang and Klein 2021)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.annotate.leaves import spans_of_leaves
from diffusion_lm.annotate.trees import Span
from diffusion_lm.baselines.discriminator import Discriminator, DiscriminatorConfig
from diffusion_lm.baselines.fit import Report, fit
from diffusion_lm.baselines.fudge_config import FudgeConfig
from diffusion_lm.baselines.padded import padded
from diffusion_lm.baselines.questions import MOST, Known, LeavesAhead, SaidFields, TagsAhead
from diffusion_lm.baselines.sentences import sentences
from diffusion_lm.baselines.span_head import corrupted
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.judge import JudgeLM
from diffusion_lm.text.tokenizer import WordTokenizer

ASKED = 2
"""True spans of a sentence that a step asks for; as many corrupted ones, and as many of another sentence."""


def train_fudge(config: FudgeConfig, progress: Report | None = None) -> Discriminator:
    """Train the discriminators of a language model, save both and return them in evaluation mode.

    Raises:
        UserError: the judge, the corpus or the labels cannot be used.
    """
    torch.manual_seed(config.seed)
    judge = JudgeLM.from_pretrained(config.judge)
    if not isinstance(judge.tokenizer, WordTokenizer):
        raise UserError(f"{config.judge} reads pieces of words, which have no labels; train one on words.")
    # One label a word, or the sentence is of no use.
    data = [
        Known.of(each) for each in sentences(config, judge) if len(each.ids) == len(each.labels.words) + 2
    ]
    spans = [spans_of_leaves(each.leaves) for each in data]
    if not any(spans):
        raise UserError("No sentence of the corpus has a label for each of its words, and a tree.")
    model = _built(judge, data, spans)
    lengths = [len(each.sentence.ids) for each in data]
    fit(model, lengths, Loss(model, data, spans, config.seed), config, progress)
    model.save_pretrained(config.out)
    return model


def _built(judge: JudgeLM, data: Sequence[Known], spans: Sequence[Sequence[Span]]) -> Discriminator:
    """The network, its language model and its trunk alike the judge."""
    chains = Counter(span.label for each in spans for span in each).most_common(MOST)
    config = DiscriminatorConfig(
        judge.config,
        SaidFields.names(each.sentence.document for each in data),
        TagsAhead.names(data),
        LeavesAhead.names(data),
        [chain for chain, _ in chains],
    )
    model = Discriminator(config, judge.tokenizer)
    for part in (model.lm, model.trunk):
        part.load_state_dict(judge.state_dict())
    return model


class Loss:
    """Nats of a batch: of each softmax's mean, summed over the controls, and of spans, true and not.

    Args:
        model: the discriminators.
        data: all sentences.
        spans: the constituents of each.
        seed: of the spans that are asked for.
    """

    def __init__(
        self, model: Discriminator, data: Sequence[Known], spans: Sequence[Sequence[Span]], seed: int
    ) -> None:
        self.model, self.rng = model, random.Random(seed)
        self.ids = [each.sentence.ids for each in data]
        # int16: there are as many classes as questions for every word of the corpus.
        self.classes = {
            name: [asked.of_sentence(each).to(torch.int16) for each in data]
            for name, asked in model.questions.items()
        }
        known = set(model.config.chains)
        self.spans = [[span for span in each if span.label in known] for each in spans]

    def __call__(self, rows: list[int]) -> Tensor:
        """The loss of some sentences, []."""
        model = self.model
        ids = padded([self.ids[i] for i in rows], -1)
        real, ids = ids[:, 1:] >= 0, ids.clamp(min=0)
        states = model.states(model.trunk.hidden(ids[:, :-1])[real], ids[:, 1:][real])
        losses = [
            model.head(name).nll(states, torch.cat([classes[i] for i in rows]))
            for name, classes in self.classes.items()
        ]
        return torch.stack([*losses, self._span_loss(states, real, rows)]).sum()

    def _span_loss(self, states: Tensor, real: Tensor, rows: list[int]) -> Tensor:
        """Of some spans of each sentence, asked at all its words: states [N, H] of the real positions of [B, L - 1]."""
        asked = [self._asked(i) for i in rows]
        numbers = torch.tensor([self.model.span.numbers(spans) for spans in asked])
        right = torch.tensor(
            [[float(span in self.spans[i]) for span in spans] for i, spans in zip(rows, asked, strict=True)]
        )
        sentence, place = real.nonzero(as_tuple=True)
        logits = self.model.span(states, place, numbers[sentence])
        return F.binary_cross_entropy_with_logits(logits, right[sentence])

    def _asked(self, row: int) -> list[Span]:
        """True spans, corrupted ones, and, since a target is a span of another sentence, those of one."""
        chains, rng = self.model.config.chains, self.rng
        whole = [Span(0, len(self.ids[row]) - 2, chains[0])]
        true = rng.choices(self.spans[row] or whole, k=ASKED)
        foreign = rng.choices(rng.choice(self.spans) or whole, k=ASKED)
        return [*true, *(corrupted(span, chains, rng) for span in true), *foreign]
