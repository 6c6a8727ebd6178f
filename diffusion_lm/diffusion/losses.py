"""The training objectives, each a sum of named terms, [B] each, in nats or squared units a token.

L_e2e-simple(w) = E[ |mu_hat(x_T; x0)|^2 + sum_t |x0 - f(x_t, t)|^2 + |Emb(w) - f(x_1, 1)|^2 - log p(w | x0) ] (section 4.1).
Every term is a mean over the positions that exist (mask) and are not given; the bound and L_vlb are nats a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.diffusion.process import Given, Prediction
from diffusion_lm.diffusion.schedule import NoiseSchedule

Terms = dict[str, Tensor]
"""Named terms of a loss, [B] each; their sum is the loss."""


class Model(Protocol):
    """What an objective needs of a model."""

    schedule: NoiseSchedule

    def embed(self, ids: Tensor) -> Tensor:
        """Emb(w): [B, L] to [B, L, D]."""

    def predict(self, z: Tensor, t: Tensor, mask: Tensor, given: Given | None = None) -> Prediction:
        """The denoiser in training: half of the sentences self-conditioned; where words are given, z is not read."""

    def rounding_logits(self, x0: Tensor) -> Tensor:
        """Logits of p(w | x0), [B, L, V]."""


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions that exist: [B, L] to [B]."""
    return (values * mask).sum(-1) / mask.sum(-1)


def cross_entropy(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """-log p(w) a token, [B]."""
    # Flat, since a softmax over a strided dimension takes twice the time on a CPU.
    losses = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
    return token_mean(losses.view(ids.shape), mask)


def counted(mask: Tensor, given: Given | None) -> Tensor:
    """The positions that a loss counts, [B, L]."""
    return mask if given is None else given.counted(mask)


def spread_times(first: int, count: int, device: torch.device) -> Tensor:
    """Times [count] for sentences `first` and on: the golden ratio spreads them evenly over any number, equally at every call."""
    return ((torch.arange(first, first + count) * 0.6180339887) % 1).to(device)


class Objective(ABC):
    """A training loss: (model, ids [B, L], mask [B, L], t [B], what is given) to named terms [B]."""

    @abstractmethod
    def __call__(self, model: Model, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None) -> Terms:
        """The terms, whose sum is minimised."""


@final
class CrossEntropy(Objective):
    """E_t[-log p(w | z_t)]: one term, `words`, with z_t around the clean Emb(w) (Dieleman et al. 2022, score interpolation)."""

    def __call__(  # noqa: D102
        self, model: Model, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None
    ) -> Terms:
        x0 = model.embed(ids)
        z = model.schedule.noised(x0, t)
        logits = model.predict(z, t, mask, given).logits
        assert logits is not None
        return {"words": cross_entropy(logits, ids, counted(mask, given))}


@final
class Simple(Objective):
    """The paper's end-to-end objective L_simple in its x0 form (sections 4.1 and 4.2), on the grid of T steps.

    `x0`: |x0 - f(x_t, t)|^2 with x0 ~ N(Emb(w), sigma_0^2) (the target is the *noisy* x0); `embedding`: at the first step
    |Emb(w) - f(x_1, 1)|^2 instead; `rounding`: -log p(w | x0), of the noisy x0, so it never sees the network; `prior`:
    |sqrt(alpha_bar(1)) x0|^2, which keeps the embedding from growing. Squares are means over D. No gradient is stopped.
    With `predicts_eps` (the ablation of figure 4) `x0` and `embedding` are |eps - eps_hat|^2 instead. sigma_0 is the noise of
    the schedule at t = 0 (.1 of sqrt) unless it is given; a term that is left out is not learned from.
    """

    def __init__(
        self,
        steps: int = 2000,
        *,
        predicts_eps: bool = False,
        sigma_0: float | None = None,
        leave_out: str | None = None,
    ) -> None:
        self.steps, self.predicts_eps, self.sigma_0, self.leave_out = steps, predicts_eps, sigma_0, leave_out

    def __call__(  # noqa: D102
        self, model: Model, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None
    ) -> Terms:
        alpha_bar, written = model.schedule.alpha_bar, counted(mask, given)
        index = (t * self.steps).floor()  # 0 .. T-1, the paper's t - 1
        embedded = model.embed(ids)
        sigma_0 = (1 - alpha_bar(t.new_tensor(0.0))).sqrt() if self.sigma_0 is None else self.sigma_0
        x0 = embedded + sigma_0 * torch.randn_like(embedded)
        t = (index + 1) / self.steps
        z = model.schedule.noised(x0, t)
        f = model.predict(z, t, mask, given).x0
        first = index == 0
        to_x0 = token_mean((x0 - f).square().mean(-1), written)
        to_embedding = token_mean((embedded - f).square().mean(-1), written)
        if self.predicts_eps:
            # eps - eps_hat = sqrt(alpha_bar / (1 - alpha_bar)) (x0_hat - x0) at the same z_t.
            snr = model.schedule.log_snr(t).exp()
            to_x0, to_embedding = snr * to_x0, snr * to_embedding
        last = alpha_bar(t.new_tensor(1.0))
        terms = {
            "x0": torch.where(first, 0.0, to_x0),
            "embedding": torch.where(first, to_embedding, 0.0),
            "rounding": cross_entropy(model.rounding_logits(x0), ids, written),
            "prior": token_mean((last * x0.square()).mean(-1), written),
        }
        return {name: torch.zeros_like(value) if name == self.leave_out else value for name, value in terms.items()}


@final
class VariationalBound(Objective):
    """L_vlb (paper Eq. 1-2): an upper bound on -log p(w given length) a token, in nats.

    `diffusion`: T/2 (SNR(s) - SNR(t)) |Emb(w) - f(z_t, t)|^2, s = t - 1/T; `rounding`: -log p(w | z_0);
    `prior`: KL(q(z_1 | w) || N(0, 1)). The noise of the paper's q(x_0 | w) is that of z_0 here, so that its step at t = 0
    needs no term of its own (Kingma et al. 2021). `steps=None` is the limit of infinitely many steps.
    """

    def __init__(self, steps: int | None = 2000) -> None:
        self.steps = steps

    def __call__(  # noqa: D102
        self, model: Model, ids: Tensor, mask: Tensor, t: Tensor, given: Given | None = None
    ) -> Terms:
        embedded, written = model.embed(ids), counted(mask, given)
        if self.steps is not None:
            t = ((t * self.steps).floor() + 1) / self.steps
        weight = self._weight(model.schedule, t)
        z = model.schedule.noised(embedded, t)
        error = (embedded - model.predict(z, t, mask, given).x0).square().sum(-1)
        clean = model.schedule.alpha_bar(t.new_tensor(0.0))
        x0 = embedded + ((1 - clean) / clean).sqrt() * torch.randn_like(embedded)
        last = model.schedule.alpha_bar(t.new_tensor(1.0))
        kl = (last * embedded.square() - last - torch.log1p(-last)) / 2
        return {
            "diffusion": weight * token_mean(error, written),
            "rounding": cross_entropy(model.rounding_logits(x0), ids, written),
            "prior": token_mean(kl.sum(-1), written),
        }

    def estimate(self, model: Model, ids: Tensor, mask: Tensor, u: Tensor, given: Given | None = None) -> Tensor:
        """The bound of sentences [B, L], nats a token that is not given, [B], from one time each, of u [B] uniform in [0, 1)."""
        terms = self(model, ids, mask, u**3, given)
        # SNR'(t) is steepest at t = 0: t = u^3, dt = 3 u^2 du make the integrand flat, its mean steady.
        return 3 * u**2 * terms["diffusion"] + terms["rounding"] + terms["prior"]

    def _weight(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        if self.steps is None:
            with torch.enable_grad():
                time = t.detach().clone().requires_grad_(True)
                (slope,) = torch.autograd.grad(schedule.log_snr(time).exp().sum(), time)
            return -slope / 2
        # SNR(s) - SNR(t) = SNR(t) expm1(log SNR(s) - log SNR(t)), which loses no digits when the two are close.
        low = schedule.log_snr(t)
        return self.steps / 2 * low.exp() * torch.expm1(schedule.log_snr(t - 1 / self.steps) - low)
