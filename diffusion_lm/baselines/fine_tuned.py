"""The fine-tuned language model as a writer: by sampling or by beam search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.baselines.prompted_lm import PromptedLM
from diffusion_lm.baselines.prompts import PROMPTS
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.decode import Ends, beam_search, sample
from diffusion_lm.evaluation.fingerprint import weights_hash
from diffusion_lm.evaluation.writer import Writer, Written


class FineTuned(Writer):
    """Table 2's FT-sample and FT-search.

    Args:
        folder: what train-baseline made.
        beams: width of the beam search, which writes its best text alone; None samples.
    """

    def __init__(self, folder: str | Path, beams: int | None = None) -> None:
        self.model = PromptedLM.from_pretrained(folder)
        self.beams = beams
        how = "sampled" if beams is None else f"{beams} beams"
        self.name = f"FT, {how}"
        self.settings = {"baseline": weights_hash(self.model), "decoding": how}

    def check(self, task: str) -> None:
        """See that it was fine-tuned to the task.

        Raises:
            UserError: if it was not.
        """
        if task != self.model.config.task:
            raise UserError(f"The baseline was fine-tuned to {self.model.config.task}, not to {task}.")

    def samples(self, wanted: int) -> int:  # noqa: D102
        return wanted if self.beams is None else 1

    def write(self, target: Any, n: int, seed: int) -> Written:  # noqa: D102
        symbols = self.model.encode(PROMPTS[self.model.config.task].of_target(target))
        prompt, tokenizer = torch.tensor([symbols]), self.model.lm.tokenizer
        ends = Ends(tokenizer.start_id, tokenizer.end_id, self.model.lm.config.max_length)

        def next_word(ids: Tensor) -> Tensor:
            return self.model.next_word(prompt.expand(len(ids), -1), ids)

        if self.beams is None:
            sentences = sample(next_word, ends, n, torch.Generator().manual_seed(seed))
        else:
            sentences = beam_search(next_word, ends, self.beams)[:1]
        return Written([tokenizer.decode(ids) for ids in sentences], max(map(len, sentences)) - 1)
