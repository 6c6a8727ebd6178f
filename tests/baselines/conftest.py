"""A corpus of a few labelled sentences, and judges of their words."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import product

import pytest
import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.fit import Limits, OptimizerConfig, fit
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.batches import padded, token_batches
from diffusion_lm.text.fields import Document
from diffusion_lm.text.tokenizer import build_word_tokenizer

NAMES, PRICES = ("The Mill", "Aromi"), ("cheap", "dear")


def labelled_sentence(name: str, price: str) -> tuple[Document, Annotation]:
    """NAME is PRICE; the food is known, but not said."""
    words = name.split()
    tags, fine = ["DET", "PROPN"][-len(words) :], ["DT", "NNP"][-len(words) :]
    subject = " ".join(f"({tag} {word})" for tag, word in zip(fine, words, strict=True))
    return (
        Document(f"{name} is {price}.", {"name": name, "price": price, "food": "Thai"}),
        Annotation(
            [*words, "is", price, "."],
            [*tags, "AUX", "ADJ", "PUNCT"],
            f"(S (NP {subject}) (VP (VBZ is) (ADJP (JJ {price}))) (. .))",
        ),
    )


Corpus = list[tuple[Document, Annotation]]


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The sentences and their labels."""
    return [labelled_sentence(name, price) for name, price in product(NAMES, PRICES)]


@pytest.fixture(scope="module")
def labelled(corpus: Corpus) -> Iterator[None]:
    """Trainings read these sentences, many times over, whatever corpus they are told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusion_lm.baselines.common.labelled_documents", lambda *_: corpus * 8)
        yield


@pytest.fixture(scope="session")
def judge(corpus: Corpus) -> JudgeLM:
    """A judge of their words whose random weights are so large that its distributions are far from uniform."""
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer((document.text for document, _ in corpus), 1)
    shape = JudgeConfig(tokenizer.vocab_size, width=16, layers=2, heads=2, max_length=12, dropout=0.0)
    judge = JudgeLM(shape, tokenizer)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.normal_(std=0.3)
    return judge.eval()


@pytest.fixture(scope="session")
def learned(corpus: Corpus, judge: JudgeLM, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a judge that has learnt the sentences, each as likely as the others."""
    learned = deepcopy(judge)
    rows = [judge.tokenizer.encode_sentence(document.text) for document, _ in corpus]

    def loss(numbers: Tensor) -> Tensor:
        ids = padded([rows[i % len(rows)] for i in numbers.tolist()], -1)
        return learned.nll(ids.clamp(min=0), ids >= 0).sum(1).mean()

    lengths, order = torch.tensor([len(row) for row in rows * 4]), torch.Generator().manual_seed(0)
    rates = OptimizerConfig(lr=2e-2, warmup=5, weight_decay=0.01, beta2=0.98, ema=0)
    fit(learned, lambda: token_batches(lengths, 4096, order), loss, Limits(epochs=60), rates)
    folder = tmp_path_factory.mktemp("learned")
    learned.save_pretrained(folder)
    return str(folder)
