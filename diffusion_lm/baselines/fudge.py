"""FUDGE: a language model whose next words future discriminators reweight (Yang and Klein 2021)."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.trees import Span
from diffusion_lm.baselines.common import Baseline, BaselineLM, LabelledTrainConfig, Lesson, sentences
from diffusion_lm.baselines.questions import MOST, READ, Questions, SaidFields, Sentence, SymbolsAhead, WordsToCome
from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import known_values
from diffusion_lm.control.control import Target
from diffusion_lm.control.span import read_span
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, NextWord
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import padded
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
        """Logits [..., Q] of Q spans (see `numbers`), [..., Q, 3], at states [..., H] of the words at places [...] from 0 on."""
        first, last = ((spans[..., i] - places[..., None]).clamp(-FAR, FAR) + FAR for i in (0, 1))
        seen = self.state(states)[..., None, :] + self.first(first) + self.last(last) + self.label(spans[..., 2])
        return self.out(F.gelu(self.inner(F.gelu(seen)))).squeeze(-1).float()

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


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What the discriminators know; saved as `config.json`."""

    lm: JudgeConfig
    """Of the discriminators' trunk too."""
    fields: dict[str, list[str]]
    """The values of each field that texts say."""
    symbols: dict[str, list[list[str]]]
    """For `pos` the universal tags; for `tree` the tags, the sets of labels that open, and the sets that close."""
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""


Evidence = Callable[[Tensor, int], Tensor]
"""(states of prefixes and candidates [B, K, H], place of the candidates from 0) -> log p(control | prefix, candidate), [B, K]."""


class Discriminator(BaselineLM):
    """A frozen language model and, beside it, a causal transformer with a head for each control.

    The label is predicted from the trunk's state of the prefix, h_t, and the embedding of the next word, e(w): z = f(A h_t + B
    e(w)). Yang and Klein read the prefix and the word together with a whole network, which costs a pass for each of 200
    candidates; so it costs one pass a word and a perceptron of two layers a candidate. It is trained as it is used, on the
    word that really comes next. The trunk starts as the language model's weights, and all heads are trained together.
    """

    kind = Kind("language model with future discriminators", "diffusion-lm train-baseline fudge")
    Config = DiscriminatorConfig
    config: DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        width = config.lm.width
        self.lm.requires_grad_(False)
        self.trunk = JudgeLM(config.lm, tokenizer)
        self.prefix = nn.Linear(width, width)
        self.word = nn.Linear(width, width, bias=False)
        self.inner = nn.Linear(width, width)
        self.questions: dict[str, Questions] = {"length": WordsToCome(width, config.lm.max_length)}
        self.questions |= {task: SymbolsAhead(width, task, names) for task, names in config.symbols.items()}
        if config.fields:
            self.questions["attribute"] = SaidFields(width, config.fields)
        self.heads = nn.ModuleDict(self.questions)
        self.span = SpanHead(width, config.chains)

    @classmethod
    def of(cls, judge: JudgeLM, data: Sequence[Sentence]) -> Discriminator:
        """The discriminators of what sentences show, not yet trained; language model and trunk are alike the judge."""
        chains = Counter(span.label for each in data for span in each.spans).most_common(MOST)
        config = DiscriminatorConfig(
            judge.config,
            known_values([each.said for each in data], 1),
            {task: SymbolsAhead.names([each.symbols[task] for each in data]) for task in READ},
            [chain for chain, _ in chains],
        )
        model = cls(config, judge.tokenizer)
        for part in (model.lm, model.trunk):
            part.load_state_dict(judge.state_dict())
        return model

    def states(self, hidden: Tensor, words: Tensor) -> Tensor:
        """What the heads read, [..., H], of the trunk's states of prefixes [..., H] and the next words [...]."""
        z = F.gelu(self.prefix(hidden) + self.word(self.trunk.embedding(words)))
        return z + F.gelu(self.inner(z))

    def evidence(self, task: str, value: str) -> Evidence:
        """What is said of a target; tags and a tree also fix the number of words. A `UserError` if no text fulfils it."""
        if task == "span":
            spans = [read_span(each) for each in value.split()]
            if unknown := [span.label for span in spans if span.label not in self.span.index]:
                raise UserError(f"No tree that the baseline was trained on has a constituent {unknown[0]}.")
            return lambda states, place: self.span.log_p(states, place, spans)
        wanted = {task: self.questions[task].of_target(value)}
        if task in READ:
            wanted["length"] = self.questions["length"].of_target(str(len(wanted[task]) - 1))

        def log_p(states: Tensor, place: int) -> Tensor:
            parts = [self.questions[name].log_p(states, at[min(place, len(at) - 1)]) for name, at in wanted.items()]
            return torch.stack(parts).sum(0)

        return log_p


ASKED = 2
"""True spans of a sentence that a step asks for; as many corrupted ones, and as many of another sentence."""


class Loss:
    """Nats of a batch: of each softmax's mean, summed over the controls, and of spans, true and not, drawn by `seed`."""

    def __init__(self, model: Discriminator, data: Sequence[Sentence], seed: int) -> None:
        self.model, self.rng = model, random.Random(seed)
        self.ids = [each.ids for each in data]
        # int16: there are as many classes as questions for every word of the corpus.
        self.classes = {
            name: [asked.of_sentence(each).to(torch.int16) for each in data] for name, asked in model.questions.items()
        }
        self.spans = [[span for span in each.spans if span.label in model.span.index] for each in data]

    def __call__(self, rows: list[int]) -> Tensor:  # noqa: D102
        model, device = self.model, self.model.lm.device
        ids = padded([self.ids[i] for i in rows], -1).to(device)
        real, ids = ids[:, 1:] >= 0, ids.clamp(min=0)
        states = model.states(model.trunk.hidden(ids[:, :-1])[real], ids[:, 1:][real])
        right = {name: torch.cat([classes[i] for i in rows]).to(device) for name, classes in self.classes.items()}
        losses = [model.questions[name].nll(states, classes) for name, classes in right.items()]
        return torch.stack([*losses, self._span_loss(states, real, rows)]).sum()

    def _span_loss(self, states: Tensor, real: Tensor, rows: list[int]) -> Tensor:
        """Of some spans of each sentence, asked at all its words: states [N, H] of the real positions of [B, L - 1]."""
        asked = [(self.spans[i], self._asked(i)) for i in rows]
        numbers = torch.tensor([self.model.span.numbers(spans) for _, spans in asked], device=states.device)
        right = torch.tensor([[float(span in true) for span in spans] for true, spans in asked], device=states.device)
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


class Fudge(Baseline, name="fudge"):
    """p(w | prefix) p(control | prefix, w)^lambda, among the likeliest words; several controls are several factors.

    The weights are lambda by the name of the control; `before` and `after` are the numbers of likeliest words, of the
    language model's, that are looked at, and of the reweighted ones, that may be drawn.
    """

    about = "train what reweights an autoregressive model's words (FUDGE), to compare with"
    name = "FUDGE"
    Config = LabelledTrainConfig
    Model = Discriminator
    passes = 2  # the language model's and the trunk's

    def __init__(
        self, model: Discriminator, weights: Mapping[str, float] = WEIGHTS, before: int = BEFORE, after: int = AFTER
    ) -> None:
        super().__init__(model)
        self.model, self.weights, self.before, self.after = model, weights, before, after
        self.settings["fudge"] = json.dumps([dict(weights), before, after])

    @classmethod
    def lesson(cls, config: LabelledTrainConfig, judge: JudgeLM) -> Lesson:
        """The discriminators of all controls, in one network."""
        if not isinstance(judge.tokenizer, WordTokenizer):
            raise UserError(f"{config.judge} reads pieces of words, which have no labels; train one on words.")
        # One label a word, or the sentence is of no use.
        data = [Sentence.of(*each) for each in sentences(config, judge) if len(each[2]) == len(each[1].words) + 2]
        if not any(each.spans for each in data):
            raise UserError("No sentence of the corpus has a label for each of its words, and a tree.")
        model = Discriminator.of(judge, data)
        return Lesson(model, [len(each.ids) for each in data], Loss(model, data, config.seed))

    def check(self, task: str) -> None:  # noqa: D102
        known = {*self.model.questions, "span"}
        if missing := [name for name in task.split("+") if name not in known]:
            raise UserError(f"The baseline has no discriminator for {missing[0]}, but for {', '.join(sorted(known))}.")

    def next_word(self, asked: Mapping[str, Target]) -> NextWord:  # noqa: D102
        model = self.model
        evidence = [(self.weights[task], model.evidence(task, target.value)) for task, target in asked.items()]

        def next_word(ids: Tensor) -> Tensor:
            hidden = model.trunk.hidden(ids)[:, -1:]

            def fulfils(words: Tensor) -> Tensor:
                states = model.states(hidden, words)
                return torch.stack([w * log_p(states, ids.shape[1] - 1) for w, log_p in evidence]).sum(0)

            return reweighted(model.lm.next_word(ids), fulfils, self.before, self.after)

        return next_word


def reweighted(logits: Tensor, fulfils: Callable[[Tensor], Tensor], before: int, after: int) -> Tensor:
    """Log-probabilities, up to a constant, [B, V], of the `after` words that may be drawn; -inf for all others.

    `fulfils` takes the `before` likeliest words [B, K] to lambda log p(control | prefix, word), [B, K].
    """
    log_p, words = logits.log_softmax(-1).topk(min(before, logits.shape[-1]))
    scores, places = (log_p + fulfils(words)).topk(min(after, words.shape[-1]))
    return torch.full_like(logits, -torch.inf).scatter(1, words.gather(1, places), scores)
