"""Fine-tuned language models as a writer: one, or the product of several; by sampling or by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.baselines.asked import asked_of
from diffusion_lm.baselines.prompted_lm import PromptedLM
from diffusion_lm.baselines.prompts import PROMPTS
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.decode import Ends, beam_search, sample
from diffusion_lm.evaluation.fingerprint import weights_hash
from diffusion_lm.evaluation.writer import Writer, Written


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
            raise UserError(
                "The fine-tuned models have not the same words; make them from one language model."
            )
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
        prompts = {
            task: model.encode([PROMPTS[task].of_target(asked[task])]) for task, model in self.experts.items()
        }
        lm = next(iter(self.experts.values())).lm
        ends = Ends(lm.tokenizer.start_id, lm.tokenizer.end_id, lm.config.max_length)

        def next_word(ids: Tensor) -> Tensor:
            return product(
                [
                    model.next_word(prompts[task].expand(len(ids), -1, -1), ids)
                    for task, model in self.experts.items()
                ]
            )

        if self.beams is None:
            sentences = sample(next_word, ends, n, torch.Generator().manual_seed(seed))
        else:
            sentences = beam_search(next_word, ends, self.beams)[:1]
        evaluations = len(self.experts) * (max(map(len, sentences)) - 1)
        return Written([lm.tokenizer.decode(ids) for ids in sentences], evaluations)


def product(logits: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of a product of K experts, [B, V], from the logits of each, [B, V].

    It is their geometric mean, made to sum to one: p(w) ~ (prod_k p_k(w))^(1/K). Each expert is a whole language model, so
    the plain product would count what they agree on, the language, K times; and a model's product with itself is that model.
    """
    return torch.stack([each.log_softmax(-1) for each in logits]).mean(0).log_softmax(-1)
