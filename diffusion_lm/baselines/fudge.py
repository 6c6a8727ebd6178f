"""FUDGE as a writer: a language model whose next words future discriminators reweight (Yang and Klein 2021)."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.trees import Span, spans_of_leaves
from diffusion_lm.baselines.common import (
    LabelledTrainConfig,
    Report,
    Softmaxes,
    asked_of,
    fit,
    load_baseline,
    save_baseline,
    sentences,
)
from diffusion_lm.baselines.questions import MOST, Known, LeavesAhead, Questions, SaidFields, TagsAhead, WordsToCome
from diffusion_lm.common import UserError
from diffusion_lm.control.span import read_span
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, padded, sample
from diffusion_lm.text.tokenizer import Tokenizer, WordTokenizer

FAR = 64
"""Words from here on are told apart no more."""
MOVES = 4
"""How many words a corrupted span is off at most."""


class SpanHead(nn.Module):
    """A perceptron on a state, and on where a span begins and ends as seen from the word, and its label."""

    def __init__(self, width: int, chains: Sequence[str]) -> None:
        super().__init__()
        self.index = {chain: i for i, chain in enumerate(chains)}
        self.state = nn.Linear(width, width)
        self.first = nn.Embedding(2 * FAR + 1, width)
        self.last = nn.Embedding(2 * FAR + 1, width)
        self.label = nn.Embedding(len(chains), width)
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, states: Tensor, places: Tensor, spans: Tensor) -> Tensor:
        """Logits [..., Q] of Q spans, at states [..., H] of the words at places [...].

        Args:
            states: of a prefix and the next word.
            places: of that word, counted from 0.
            spans: first word, last word, number of the label, [..., Q, 3].
        """
        first, last = (
            table((spans[..., i] - places[..., None]).clamp(-FAR, FAR) + FAR)
            for i, table in enumerate((self.first, self.last))
        )
        x = F.gelu(self.state(states)[..., None, :] + first + last + self.label(spans[..., 2]))
        return self.out(F.gelu(self.inner(x))).squeeze(-1).float()

    def log_p(self, states: Tensor, place: int, spans: Sequence[Span]) -> Tensor:
        """Sum of the log-probabilities of spans, [...], at states [..., H] of words at one place."""
        numbers = torch.tensor(self.numbers(spans), device=states.device)
        places = torch.full(states.shape[:-1], place, device=states.device)
        return F.logsigmoid(self(states, places, numbers)).sum(-1)

    def numbers(self, spans: Sequence[Span]) -> list[list[int]]:
        """First word, last word and number of the label of each."""
        return [[span.start, span.stop - 1, self.index[span.label]] for span in spans]


def corrupted(span: Span, chains: Sequence[str], rng: random.Random) -> Span:
    """The span with another label, or with its first, its last, or both moved; it may end after the sentence."""
    start, stop, label = span
    what = rng.randrange(4)
    move = rng.choice((-1, 1)) * rng.randint(1, MOVES)
    if what == 0:
        return Span(start, stop, rng.choice(chains))
    start, stop = start + move * (what != 1), stop + move * (what != 2)
    return Span(max(0, start), max(stop, start + 1, 1), label)


KIND = "language model with future discriminators"


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What the discriminators know; saved as `config.json`."""

    lm: JudgeConfig
    """Shape of the language model, and of the discriminators' trunk."""
    fields: dict[str, list[str]]
    """The values of each field that texts say."""
    tags: list[list[str]]
    """Universal tags."""
    leaves: list[list[str]]
    """Tags of trees, sets of labels that open, sets that close."""
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""


class Discriminator(nn.Module):
    """A frozen language model and, beside it, a causal transformer with a head for each control.

    The label is predicted from the trunk's state of the prefix, h_t, and the embedding of the next word, e(w): z = f(A h_t + B
    e(w)). Yang and Klein read the prefix and the word together with a whole network, which costs a pass for each of 200
    candidates; so it costs one pass a word and a perceptron of two layers a candidate. It is trained as it is used, on the
    word that really comes next. The trunk starts as the language model's weights, and all heads are trained together.
    """

    def __init__(self, config: DiscriminatorConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        width = config.lm.width
        self.lm = JudgeLM(config.lm, tokenizer).requires_grad_(False)
        self.trunk = JudgeLM(config.lm, tokenizer)
        self.prefix = nn.Linear(width, width)
        self.word = nn.Linear(width, width, bias=False)
        self.inner = nn.Linear(width, width)
        self.questions: dict[str, Questions] = {
            "length": WordsToCome(config.lm.max_length),
            "pos": TagsAhead(config.tags),
            "tree": LeavesAhead(config.leaves),
        }
        if config.fields:
            self.questions["attribute"] = SaidFields(config.fields)
        self.heads = nn.ModuleDict({name: Softmaxes(width, asked.sizes) for name, asked in self.questions.items()})
        self.span = SpanHead(width, config.chains)

    def states(self, hidden: Tensor, words: Tensor) -> Tensor:
        """What the heads read, [..., H], of the trunk's states of prefixes [..., H] and the next words [...]."""
        z = F.gelu(self.prefix(hidden) + self.word(self.trunk.embedding(words)))
        return z + F.gelu(self.inner(z))

    def head(self, name: str) -> Softmaxes:
        """The softmaxes of a control other than span."""
        head = self.heads[name]
        assert isinstance(head, Softmaxes)
        return head

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all of it, the language model too, into `folder`, made if need be."""
        save_baseline(folder, KIND, dataclasses.asdict(self.config), self, self.lm.tokenizer)

    @staticmethod
    def from_pretrained(folder: str | Path) -> Discriminator:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder is missing, holds something else, or is damaged.
        """

        def build(config: dict[str, Any], tokenizer: Tokenizer) -> Discriminator:
            config["lm"] = JudgeConfig(**config["lm"])
            return Discriminator(DiscriminatorConfig(**config), tokenizer)

        return load_baseline(folder, KIND, build, "train-baseline fudge")


@dataclass(frozen=True)
class FudgeConfig(LabelledTrainConfig):
    """How the future discriminators of all controls are trained, in one network."""

    out: str = "runs/fudge"
    """Folder of the result, which holds the language model too."""


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
    data = [Known.of(each) for each in sentences(config, judge) if len(each.ids) == len(each.labels.words) + 2]
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

    def __init__(self, model: Discriminator, data: Sequence[Known], spans: Sequence[Sequence[Span]], seed: int) -> None:
        self.model, self.rng = model, random.Random(seed)
        self.ids = [each.sentence.ids for each in data]
        # int16: there are as many classes as questions for every word of the corpus.
        self.classes = {
            name: [asked.of_sentence(each).to(torch.int16) for each in data] for name, asked in model.questions.items()
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


WEIGHTS = {"attribute": 8.0, "pos": 20.0, "tree": 20.0, "span": 20.0, "length": 2.0}
"""Lambda of each control (paper, Table 6)."""
BEFORE, AFTER = 200, 10
"""Likeliest words that are looked at, and that may be drawn (paper, Table 6: precondition and posterior top-K)."""

Evidence = Callable[[Tensor, int], Tensor]
"""(states of prefixes and candidates [B, K, H], place of the candidates from 0) -> log p(control | prefix, candidate), [B, K]."""


class Fudge(Writer):
    """p(w | prefix) p(control | prefix, w)^lambda, among the likeliest words; several controls are several factors.

    Args:
        folder: what train-baseline fudge made.
        weights: lambda by the name of the control.
        before: likeliest words of the language model that are looked at.
        after: likeliest words after reweighting that may be drawn.
    """

    name = "FUDGE"

    def __init__(
        self,
        folder: str | Path,
        weights: Mapping[str, float] = WEIGHTS,
        before: int = BEFORE,
        after: int = AFTER,
    ) -> None:
        self.model = Discriminator.from_pretrained(folder)
        self.weights, self.before, self.after = weights, before, after
        self.settings = {
            "baseline": weights_hash(self.model),
            "fudge": json.dumps([dict(weights), before, after]),
        }

    def check(self, task: str) -> None:
        """See that there is a discriminator for every control of the task.

        Raises:
            UserError: if there is not.
        """
        known = {*self.model.questions, "span"}
        if missing := [name for name in task.split("+") if name not in known]:
            raise UserError(f"The baseline has no discriminator for {missing[0]}, but for {', '.join(sorted(known))}.")

    def write(self, target: Any, n: int, seed: int) -> Written:  # noqa: D102
        model = self.model
        evidence = [(self.weights[name], _evidence(model, name, part)) for name, part in asked_of(target).items()]
        tokenizer = model.lm.tokenizer

        def next_word(ids: Tensor) -> Tensor:
            hidden = model.trunk.hidden(ids)[:, -1:]

            def fulfils(words: Tensor) -> Tensor:
                states = model.states(hidden, words)
                return sum((w * log_p(states, ids.shape[1] - 1) for w, log_p in evidence), torch.zeros(()))

            logits = model.lm.next_word(ids)
            return reweighted(logits, fulfils, self.before, self.after)

        sentences = sample(next_word, model.lm.ends, n, torch.Generator().manual_seed(seed))
        # The language model's pass and the trunk's.
        evaluations = 2 * (max(map(len, sentences)) - 1)
        return Written([tokenizer.decode(ids) for ids in sentences], evaluations)


def reweighted(logits: Tensor, fulfils: Callable[[Tensor], Tensor], before: int, after: int) -> Tensor:
    """Log-probabilities, up to a constant, [B, V]; -inf for words that may not be drawn.

    Args:
        logits: of the language model, [B, V].
        fulfils: from the likeliest words [B, K] to lambda log p(control | prefix, word), [B, K].
        before: K.
        after: words that may be drawn.
    """
    log_p, words = logits.log_softmax(-1).topk(min(before, logits.shape[-1]))
    scores, places = (log_p + fulfils(words)).topk(min(after, words.shape[-1]))
    return torch.full_like(logits, -torch.inf).scatter(1, words.gather(1, places), scores)


def _evidence(model: Discriminator, name: str, target: Any) -> Evidence:
    """What a discriminator says of a target; tags and a tree also fix the number of words."""
    if name == "span":
        spans = _spans(model, target.value)
        return lambda states, place: model.span.log_p(states, place, spans)
    asked = {name: target}
    if (words := model.questions[name].words(target)) is not None:
        asked["length"] = words
    # A target that cannot be fulfilled is refused before the first word.
    for each, value in asked.items():
        model.questions[each].of_target(value, 0)

    def log_p(states: Tensor, place: int) -> Tensor:
        parts = [
            model.head(each).log_p(states, model.questions[each].of_target(value, place))
            for each, value in asked.items()
        ]
        return torch.stack(parts).sum(0)

    return log_p


def _spans(model: Discriminator, text: str) -> list[Span]:
    spans = [read_span(each) for each in text.split()]
    if unknown := [span.label for span in spans if span.label not in model.span.index]:
        raise UserError(f"No tree that the baseline was trained on has a constituent {unknown[0]}.")
    return spans
