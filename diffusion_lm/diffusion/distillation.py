"""Distillation: in long steps, one pass of a student says what its teacher says after two.

A self-conditioned denoiser learns to read its own x0_hat of the same z_t. A sampler shows it that of the step before, of other
noise and of words that have been drawn anew since, or what a program has left of it, and it believes what it reads. A second
pass at the same z_t mends this where steps are long, for twice the time; a student learns to need none (docs/speed.md).
"""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.diffusion.losses import Model, Terms, counted, token_mean
from diffusion_lm.diffusion.process import Given, Prediction, Source, average, per_sentence

LONGEST = 0.25
"""The longest step that a student is made for, that of a sampler of four steps."""
SHORT = 0.05
"""A step up to which one pass of the teacher is as good as two, or better (docs/log.md)."""
FIRST = 0.2
"""Share of the sentences of which it is shown nothing, as at a sampler's first step."""
MOST_CLASSES = 128
"""Most classes into which the words are put that a program would hold apart; tags are some 40."""


class SelfConditioned(Model, Protocol):
    """What distillation needs of a teacher and of a student."""

    def __call__(
        self, z: Tensor, t: Tensor, mask: Tensor, previous: Tensor | None = None, given: Given | None = None
    ) -> Prediction:
        """One pass on z_t, shown an x0_hat [B, L, D] or none."""

    def read(self, source: Tensor) -> Source:
        """Read sources, [B, S]."""


def held_words(ids: Tensor, vocab_size: int) -> Tensor:
    """Which words a program might allow at each position, the true one among them, [B, L, V].

    Words are put into classes at random, and of some positions only those of the true word's class may stand: of none in a
    third of the sentences, of all in another, of a share in the last.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=ids.device)

    classes = (uniform(vocab_size) * MOST_CLASSES ** uniform(1)).long()
    free = uniform(*ids.shape) >= 3 * uniform(len(ids), 1) - 1
    return free[..., None] | (classes == classes[ids][..., None])


@final
class Distillation:
    """KL(p_T(w | z_t, x0_T) || p(w | z_t, x0_hat(z_s))), x0_T the teacher's x0_hat at z_t: one term, `words`, in nats a token.

    s > t, mostly not by much, and z_s and z_t are noises of the same text that know nothing of each other, as a sampler makes
    them that noises afresh (`Renoise`). Both are shown the same x0_hat(z_s), the student's, or nothing; what the teacher says
    in a second pass is wanted where s - t is above `SHORT`, elsewhere what it says in the first. In some sentences each x0_hat is
    an average over `held_words` alone. It is called as an `Objective` is.
    """

    def __init__(self, teacher: SelfConditioned) -> None:
        self.teacher = teacher

    def __call__(
        self, model: SelfConditioned, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None
    ) -> Terms:
        """The divergence from what the teacher says, [B]."""
        x0, written, noised = model.embed(ids).detach(), counted(mask, given), model.schedule.noised
        z, taught = noised(x0, t), given
        with torch.no_grad():
            if given is not None and given.source is not None:
                taught = given._replace(source=self.teacher.read(given.source.ids))
            s = (t + LONGEST * torch.rand_like(t) ** 2).clamp(max=1)
            earlier = model(noised(x0, s), s, mask, None, given).logits
            assert earlier is not None
            words = torch.arange(earlier.shape[-1], device=ids.device)
            allowed, x0_of = held_words(ids, len(words)), average(model.embed(words))

            def held(logits: Tensor | None) -> Tensor:
                assert logits is not None
                return Prediction(x0_of, logits.masked_fill(~allowed, -torch.inf)).x0

            before = torch.where(per_sentence(torch.rand_like(t)) < FIRST, 0.0, held(earlier))
            once = self.teacher(z, t, mask, before, taught).logits
            twice = self.teacher(z, t, mask, held(once), taught).logits
            assert once is not None and twice is not None
            wanted = torch.where(per_sentence(s - t > SHORT), twice, once)
        said = model(z, t, mask, before, given).logits
        assert said is not None
        log_p, log_wanted = (logits.float().log_softmax(-1) for logits in (said, wanted))
        divergence = F.kl_div(log_p, log_wanted, reduction="none", log_target=True).sum(-1)
        return {"words": token_mean(divergence, written)}
