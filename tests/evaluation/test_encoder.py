"""The sentence encoder: its pooling on a stand-in, and the real weights where they are installed."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.pretrained import ENCODER, SentenceEncoder, require

CLS, SEP = 1, 2


class Lookup(nn.Module):
    """A stand-in for MiniLM: a token's vector is its embedding, whatever stands around it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def spell(texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
    return {"input_ids": [[CLS, *map(ord, text), SEP][:max_length] for text in texts]}


@pytest.fixture
def encoder() -> SentenceEncoder:
    return SentenceEncoder(Lookup(), spell, batch_tokens=12)


def test_vectors_are_unit_means_in_the_order_given(encoder: SentenceEncoder) -> None:
    texts = ["hello", "a", "", "some longer text", "b"]
    vectors = encoder.sentences(texts)
    table = encoder.model.table.weight.detach()
    for vector, text in zip(vectors, texts, strict=True):
        mean = table[[CLS, *map(ord, text), SEP]].mean(0)
        torch.testing.assert_close(vector, mean / mean.norm())


def test_tokens_are_those_between_the_marks(encoder: SentenceEncoder) -> None:
    texts = ["hello", "", "ab"]
    vectors = encoder.tokens(texts)
    assert [len(each) for each in vectors] == [5, 0, 2]
    table = encoder.model.table.weight.detach()
    torch.testing.assert_close(vectors[2][1], table[ord("b")] / table[ord("b")].norm())


def test_missing_packages_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"needs no_such_module, not installed here; run: make metrics\."):
        require("json", "no_such_module", "no_such_module")


@pytest.mark.skipif(not all(map(find_spec, ENCODER)), reason="make metrics installs the encoder")
def test_the_real_encoder_knows_what_is_alike() -> None:
    encoder = SentenceEncoder.from_package()
    vectors = encoder.sentences(["A cheap pub by the river.", "An inexpensive riverside bar.", "He broke his arm."])
    assert vectors.shape == (3, 384) and torch.allclose(vectors.norm(dim=1), torch.ones(3))
    alike, unlike = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert alike > 0.6 > 0.3 > unlike
    assert encoder.tokens(["river"])[0].shape == (1, 384)
