"""Train PPLM's attribute model on a frozen language model (Dathathri et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lm.baselines.attribute_lm import AttributeLM, AttributeLMConfig
from diffusion_lm.baselines.fit import Report, fit
from diffusion_lm.baselines.padded import padded
from diffusion_lm.baselines.pplm_config import PplmConfig
from diffusion_lm.baselines.questions import SaidFields
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.judge import JudgeLM
from diffusion_lm.text.corpus import open_corpus


def train_pplm(config: PplmConfig, progress: Report | None = None) -> AttributeLM:
    """Train the attribute model, save it with its language model and return both in evaluation mode.

    Raises:
        UserError: the judge or the corpus cannot be used, or its texts have no fields.
    """
    torch.manual_seed(config.seed)
    judge = JudgeLM.from_pretrained(config.judge)
    read = [
        (each, judge.tokenizer.encode_sentence(each.text))
        for each in open_corpus(config.corpus).documents("train")
    ]
    read = [(document, ids) for document, ids in read if len(ids) <= judge.config.max_length]
    fields = SaidFields.names(document for document, _ in read)
    if not fields:
        raise UserError("No text of the corpus says a value of a field; PPLM needs a corpus with fields.")
    model = AttributeLM(AttributeLMConfig(judge.config, fields), judge.tokenizer)
    model.lm.load_state_dict(judge.state_dict())
    classes = torch.tensor([model.questions.classes(document) for document, _ in read])

    def loss(rows: list[int]) -> Tensor:
        """Of whole sentences; END is never read."""
        ids = padded([read[i][1][:-1] for i in rows], -1)
        real = (ids >= 0)[..., None]
        with torch.no_grad():
            hidden = model.lm.eval().hidden(ids.clamp(min=0))
        return model.head.nll((hidden * real).sum(1) / real.sum(1), classes[rows])

    fit(model, [len(ids) for _, ids in read], loss, config, progress)
    model.save_pretrained(config.out)
    return model
