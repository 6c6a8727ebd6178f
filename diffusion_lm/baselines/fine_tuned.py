"""Fine-tuned language models as a writer: one, or the product of several; by sampling or by beam search."""

from __future__ import annotations

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from diffusion_lm.annotate.trees import is_tag, read_tree, spans_of
from diffusion_lm.baselines.common import (
    LabelledTrainConfig,
    Report,
    asked_of,
    fit,
    load_baseline,
    save_baseline,
    sentences,
)
from diffusion_lm.common import UserError
from diffusion_lm.control.span import read_span
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, beam_search, padded, sample
from diffusion_lm.text.fields import says
from diffusion_lm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from nltk import Tree

    from diffusion_lm.annotate.labels import Annotation
    from diffusion_lm.text.fields import Document


CLOSE = ")"


class Symbol(NamedTuple):
    """One symbol of a prompt, and the word that it speaks of."""

    text: str
    place: int = 0
    """Number of words before that one; 0 too where it speaks of the whole sentence."""


Prompt = list[Symbol]


class Prompts(ABC):
    """How one task's targets, and the sentences that fulfil them, become symbols."""

    @abstractmethod
    def options(self, document: Document, labels: Annotation) -> list[Prompt]:
        """All prompts that a sentence of the corpus fulfils; training takes one of them at random."""

    @abstractmethod
    def of_target(self, target: Any) -> Prompt:
        """The prompt for a target of the task."""


@final
class AttributePrompts(Prompts):
    """A field and its value as one symbol; of a sentence, those that it says."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [[Symbol(f"{f}={v}")] for f, v in document.fields.items() if says(document.text, v)]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [Symbol(f"{target.field}={target.value}")]


@final
class PosPrompts(Prompts):
    """The tags, each at the place of its word."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self._symbols(labels.pos)]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return self._symbols(str(target.value).split())

    @staticmethod
    def _symbols(tags: Sequence[str]) -> Prompt:
        return [Symbol(tag, place) for place, tag in enumerate(tags)]


@final
class TreePrompts(Prompts):
    """The tree in brackets without its words: labels that open, tags, and closing brackets."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [brackets(read_tree(labels.tree))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return brackets(read_tree(target.value))


@final
class SpanPrompts(Prompts):
    """Where a constituent begins and where it ends, one after another where several are wanted."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self._symbols(*span) for span in spans_of(read_tree(labels.tree))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [symbol for text in target.value.split() for symbol in self._symbols(*read_span(text))]

    @staticmethod
    def _symbols(start: int, stop: int, label: str) -> Prompt:
        return [Symbol(f"{label} begins", start), Symbol(f"{label} ends", stop - 1)]


@final
class LengthPrompts(Prompts):
    """The end of the sentence, at its place."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self.of_target(len(labels.words))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [Symbol("end", int(target))]


def brackets(tree: Tree) -> Prompt:
    """Depth first: "(S", "(NP", the tags of words, and ")"; a bracket speaks of the word after it or, closing, before it."""
    return list(_brackets(tree, 0))


def _brackets(tree: Tree, place: int) -> Iterator[Symbol]:
    if is_tag(tree):
        yield Symbol(tree.label(), place)
        return
    yield Symbol(f"({tree.label()}", place)
    for child in tree:
        yield from _brackets(child, place)
        place += len(child.leaves())
    yield Symbol(CLOSE, place - 1)


PROMPTS: dict[str, Prompts] = {
    "attribute": AttributePrompts(),
    "pos": PosPrompts(),
    "tree": TreePrompts(),
    "span": SpanPrompts(),
    "length": LengthPrompts(),
}
"""The prompts by the name of their task."""


KIND = "fine-tuned language model"


@dataclass(frozen=True)
class PromptedConfig:
    """What a fine-tuned language model is; saved as its `config.json`."""

    task: str
    """The control that its prompts say."""
    symbols: list[str]
    """All symbols of prompts; the first is the padding."""
    lm: JudgeConfig
    """Shape of the language model that was fine-tuned."""


class PromptedLM(nn.Module):
    """p(words, END | prompt, START): the symbols stand in front.

    A symbol's vector is the sum of what it says and of the position that predicts the word it speaks of. The language model
    knows its positions, so a new control need not learn what "the 23rd word" is.
    """

    def __init__(self, config: PromptedConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.lm = JudgeLM(config.lm, tokenizer)
        self.symbols = nn.Embedding(len(config.symbols), config.lm.width)
        self.places = nn.Embedding(config.lm.max_length - 1, config.lm.width)
        for table in (self.symbols, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.index = {symbol: i for i, symbol in enumerate(config.symbols)}

    def encode(self, prompts: Sequence[Prompt]) -> Tensor:
        """The ids of the prompts' symbols and their places, [B, P, 2], padded on the right.

        Raises:
            UserError: if a symbol was never seen in training, or a place lies beyond the longest sentence.
        """
        for symbol in (symbol for prompt in prompts for symbol in prompt):
            if symbol.text not in self.index:
                raise UserError(
                    f"The fine-tuned model for {self.config.task} has never seen the symbol {symbol.text!r}."
                )
            if symbol.place >= self.places.num_embeddings:
                raise UserError(
                    f"The fine-tuned model for {self.config.task} writes at most {self.places.num_embeddings - 1} words, "
                    f"but the target speaks of word {symbol.place + 1}."
                )
        ids = padded([[self.index[symbol.text] for symbol in prompt] for prompt in prompts], 0)
        return torch.stack([ids, padded([[symbol.place for symbol in prompt] for prompt in prompts], 0)], -1)

    def logits(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """Next-word logits after each word, [B, L, V], of prompts [B, P, 2] and words [B, L] from START on."""
        return self.lm.logits(self._hidden(prompt, ids))

    @torch.no_grad()
    def next_word(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """The logits after the last word alone, [B, V]."""
        return self.lm.logits(self._hidden(prompt, ids)[:, -1])

    def _hidden(self, prompt: Tensor, ids: Tensor) -> Tensor:
        lm, width = self.lm, prompt.shape[1]
        before = self.symbols(prompt[..., 0]) + self.places(prompt[..., 1])
        x = lm.dropout(torch.cat([before, lm.placed(lm.embedding(ids))], dim=1))
        return lm.step(x)[0][:, width:]

    def nll(self, prompt: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean -log p of the words and END, in nats a token, [], of sentences [B, L] where mask [B, L] is True."""
        targets, real = ids[:, 1:], mask[:, 1:]
        return nn.functional.cross_entropy(self.logits(prompt, ids[:, :-1])[real], targets[real])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into `folder`, made if need be."""
        save_baseline(folder, KIND, dataclasses.asdict(self.config), self, self.lm.tokenizer)

    @staticmethod
    def from_pretrained(folder: str | Path) -> PromptedLM:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder is missing, is none of a fine-tuned model, or is damaged.
        """

        def build(config: dict[str, Any], tokenizer: Tokenizer) -> PromptedLM:
            return PromptedLM(PromptedConfig(**{**config, "lm": JudgeConfig(**config["lm"])}), tokenizer)

        return load_baseline(folder, KIND, build, "train-baseline ft")


@dataclass(frozen=True)
class FineTuneConfig(LabelledTrainConfig):
    """Which control a language model is fine-tuned to, and how."""

    task: Literal["attribute", "pos", "tree", "span", "length"] = "attribute"
    """What its prompts say."""
    out: str | None = None
    """Folder of the result; null: runs/ft-TASK."""

    @property
    def folder(self) -> str:
        """Where the result goes."""
        return self.out or f"runs/ft-{self.task}"


PADDING = ""


class Example(NamedTuple):
    """A sentence and all prompts that it fulfils."""

    prompts: list[Prompt]
    ids: list[int]
    """START words END."""


def examples(config: FineTuneConfig, judge: JudgeLM, prompts: Prompts) -> list[Example]:
    """The training sentences that fulfil at least one prompt and that the language model can read.

    Raises:
        UserError: the corpus cannot be read, or no sentence fulfils one.
    """
    found = [
        Example(options, ids)
        for document, labels, ids in sentences(config, judge)
        if (options := prompts.options(document, labels))
    ]
    if not found:
        raise UserError(f"No sentence of the corpus has a prompt for {config.task}.")
    return found


def prompted(judge: JudgeLM, task: str, data: Sequence[Example]) -> PromptedLM:
    """A judge that reads prompts, not yet trained to; the places of its symbols start as the judge's positions."""
    symbols = sorted({symbol.text for each in data for prompt in each.prompts for symbol in prompt})
    model = PromptedLM(PromptedConfig(task, [PADDING, *symbols], judge.config), judge.tokenizer)
    model.lm.load_state_dict(judge.state_dict())
    with torch.no_grad():
        model.places.weight.copy_(judge.positions.weight)
    return model


def fine_tune(config: FineTuneConfig, progress: Report | None = None) -> PromptedLM:
    """Fine-tune a judge's weights, save the result and return it in evaluation mode.

    Raises:
        UserError: the judge, the corpus or the labels cannot be used.
    """
    torch.manual_seed(config.seed)
    judge, rng = JudgeLM.from_pretrained(config.judge), random.Random(config.seed)
    data = examples(config, judge, PROMPTS[config.task])
    model = prompted(judge, config.task, data)

    def loss(rows: list[int]) -> Tensor:
        """Of sentences, each behind one of its prompts, drawn anew."""
        prompts = model.encode([rng.choice(data[i].prompts) for i in rows])
        ids = padded([data[i].ids for i in rows], -1)
        return model.nll(prompts, ids.clamp(min=0), ids >= 0)

    fit(model, [len(each.ids) + max(map(len, each.prompts)) for each in data], loss, config, progress)
    model.save_pretrained(config.folder)
    return model


class FineTuned(Writer):
    """Table 2's FT-sample and FT-search; of several models, Table 4's FT-PoE.

    Args:
        folders: what train-baseline ft made, each for another control.
        beams: width of the beam search, which writes its best text alone; None samples.

    Raises:
        UserError: a folder cannot be read, or two experts do not go together.
    """

    def __init__(self, folders: Sequence[str | Path], beams: int | None = None) -> None:
        models = [PromptedLM.from_pretrained(folder) for folder in folders]
        self.experts = {model.config.task: model for model in models}
        if len(self.experts) < len(models):
            raise UserError("Two of the fine-tuned models are for the same control; give one for each.")
        if len({model.lm.tokenizer.fingerprint for model in models}) > 1:
            raise UserError("The fine-tuned models have not the same words; make them from one language model.")
        self.beams = beams
        how = "sampled" if beams is None else f"{beams} beams"
        self.name = f"{'FT' if len(models) == 1 else 'FT-PoE'}, {how}"
        self.settings = {"baseline": " ".join(map(weights_hash, models)), "decoding": how}

    def check(self, task: str) -> None:
        """See that there is a model for every control of the task, and no other.

        Raises:
            UserError: if there is not.
        """
        if set(task.split("+")) != set(self.experts):
            raise UserError(f"The baseline was fine-tuned to {'+'.join(self.experts)}, not to {task}.")

    def samples(self, wanted: int) -> int:  # noqa: D102
        return wanted if self.beams is None else 1

    def write(self, target: Any, n: int, seed: int) -> Written:  # noqa: D102
        asked = asked_of(target)
        prompts = {task: model.encode([PROMPTS[task].of_target(asked[task])]) for task, model in self.experts.items()}
        lm = next(iter(self.experts.values())).lm

        def next_word(ids: Tensor) -> Tensor:
            return product(
                [model.next_word(prompts[task].expand(len(ids), -1, -1), ids) for task, model in self.experts.items()]
            )

        if self.beams is None:
            sentences = sample(next_word, lm.ends, n, torch.Generator().manual_seed(seed))
        else:
            sentences = beam_search(next_word, lm.ends, self.beams)[:1]
        evaluations = len(self.experts) * (max(map(len, sentences)) - 1)
        return Written([lm.tokenizer.decode(ids) for ids in sentences], evaluations)


def product(logits: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of a product of K experts, [B, V], from the logits of each, [B, V].

    It is their geometric mean, made to sum to one: p(w) ~ (prod_k p_k(w))^(1/K). Each expert is a whole language model, so
    the plain product would count what they agree on, the language, K times; and a model's product with itself is that model.
    """
    return torch.stack([each.log_softmax(-1) for each in logits]).mean(0).log_softmax(-1)
