"""The outside judge on a tiny model of the same kind: its nats are the chain rule's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.pretrained import OUTSIDE, OutsideJudge

BOS = 1


class Spelling:
    bos_token_id = BOS

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        return {"input_ids": [[ord(letter) - 95 for letter in text] for text in texts]}


@pytest.fixture
def judge() -> OutsideJudge:
    transformers = pytest.importorskip("transformers")
    shape = transformers.LlamaConfig(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    return OutsideJudge(transformers.LlamaForCausalLM(shape), Spelling(), batch_tokens=8)


def test_nats_are_those_of_one_text_alone(judge: OutsideJudge) -> None:
    texts = ["abc", "", "a", "zyxwvu"]
    nats, tokens = judge.score(texts)
    assert tokens.tolist() == [3, 0, 1, 6]
    for text, found in zip(texts, nats.tolist(), strict=True):
        ids = torch.tensor([[BOS, *(ord(letter) - 95 for letter in text)]])
        with torch.no_grad():
            log_p = judge.model(ids).logits[0, :-1].log_softmax(-1)
        assert found == pytest.approx(-float(log_p.gather(1, ids[0, 1:, None]).sum()), abs=1e-5)


def test_probabilities_of_all_texts_of_one_token_sum_to_one(judge: OutsideJudge) -> None:
    nats, _ = judge.score([chr(95 + i) for i in range(32)])
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_weights_that_are_not_installed_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lm.evaluation.pretrained.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"needs {', '.join(OUTSIDE)}, not installed here; run: make metrics"):
        OutsideJudge.from_package()
