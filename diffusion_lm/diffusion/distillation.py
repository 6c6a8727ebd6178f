"""Distillation: one pass of a student says what its teacher says after two.

A self-conditioned denoiser learns to read its own x0_hat of the same z_t. A sampler shows it that of the step before, of other
noise and of words that have been drawn anew since, and it believes what it reads. A second pass at the same z_t mends this, for
twice the time; a student learns to need none (docs/speed.md).
"""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.diffusion.losses import Model, Terms, counted, token_mean
from diffusion_lm.diffusion.process import Given, Prediction, Source, per_sentence

LONGEST = 0.25
"""The longest step that a student is made for, that of a sampler of four steps."""
FIRST = 0.2
"""Share of the sentences of which it is shown nothing, as at a sampler's first step."""


class SelfConditioned(Model, Protocol):
    """What distillation needs of a teacher and of a student."""

    def __call__(
        self, z: Tensor, t: Tensor, mask: Tensor, previous: Tensor | None = None, given: Given | None = None
    ) -> Prediction:
        """One pass on z_t, shown an x0_hat [B, L, D] or none."""

    def read(self, source: Tensor) -> Source:
        """Read sources, [B, S]."""


@final
class Distillation:
    """KL(p_T(w | z_t, x0_T) || p(w | z_t, x0_hat(z_s))), x0_T the teacher's x0_hat at z_t: one term, `words`, in nats a token.

    s > t, and z_s and z_t are noises of the same text that know nothing of each other, as a sampler makes them that noises
    afresh (`Renoise`). Both are shown the same x0_hat(z_s), the student's, or nothing; the teacher then has a second pass. It
    is called as an `Objective` is.
    """

    def __init__(self, teacher: SelfConditioned) -> None:
        self.teacher = teacher

    def __call__(
        self, model: SelfConditioned, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None
    ) -> Terms:
        """The divergence from what the teacher says, [B]."""
        x0, written = model.embed(ids).detach(), counted(mask, given)
        z = model.schedule.noised(x0, t)
        with torch.no_grad():
            taught = given
            if given is not None and given.source is not None:
                taught = given._replace(source=self.teacher.read(given.source.ids))
            s = (t + LONGEST * torch.rand_like(t)).clamp(max=1)
            before = model(model.schedule.noised(x0, s), s, mask, None, given).x0
            before = torch.where(per_sentence(torch.rand_like(t)) < FIRST, 0.0, before)
            first = self.teacher(z, t, mask, before, taught)
            wanted = self.teacher(z, t, mask, first.x0, taught).logits
        said = model(z, t, mask, before, given).logits
        assert said is not None and wanted is not None
        log_p, log_wanted = (logits.float().log_softmax(-1) for logits in (said, wanted))
        divergence = F.kl_div(log_p, log_wanted, reduction="none", log_target=True).sum(-1)
        return {"words": token_mean(divergence, written)}
