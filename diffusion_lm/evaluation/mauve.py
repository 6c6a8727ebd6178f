"""MAUVE (Pillutla et al. 2021): how close two sets of texts are as distributions, by features of the texts.

Written out on scikit-learn's k-means: the authors' package is under the GPL, and its faiss writes warnings past Python at
every call. On the same features both agree to the noise of k-means. The features of the paper are GPT-2's; with others the
numbers are on a scale of their own, so a row is to be read beside the ceiling, human text against other human text.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.optional import MAUVE, require

SCALE = 5.0
"""c of the paper, section 3: the divergence curve is exp(-c KL)."""
POINTS = 25
"""Mixtures on the divergence curve."""
PER_BUCKET = 10
"""Texts of the smaller set for each cell of the quantisation (paper, appendix: k = n / 10)."""
VARIANCE = 0.9
"""Share of the features' variance that is kept before they are quantised."""

Histogram = NDArray[np.float64]
"""Shares of the cells, [K]; they sum to 1."""


def mauve(p: Tensor, q: Tensor, seed: int = 0) -> float:
    """MAUVE in [0, 1] between texts with features `p` [N, D] and `q` [M, D]; 1 where they are alike.

    It rises with the number of texts: compare sets of equal sizes.

    Raises:
        UserError: a set is empty, or a package is missing.
    """
    if not len(p) or not len(q):
        raise UserError("MAUVE needs at least one text in each of the two sets.")
    return curve_area(*quantise(p, q, seed))


def quantise(p: Tensor, q: Tensor, seed: int = 0) -> tuple[Histogram, Histogram]:
    """Histograms [K] of both sets over the K cells of a k-means of their union (paper, section 3)."""
    require(*MAUVE)
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    union = F.normalize(torch.cat([p, q]).double(), dim=-1).cpu().numpy()
    cells = max(2, round(min(len(p), len(q)) / PER_BUCKET))
    cells = min(cells, len(np.unique(union, axis=0)))
    if cells == 1:
        return np.ones(1), np.ones(1)
    reduced = PCA(VARIANCE, random_state=seed).fit_transform(union)
    labels = KMeans(cells, n_init=5, max_iter=500, random_state=seed).fit_predict(reduced)
    counts = [np.bincount(part, minlength=cells) for part in (labels[: len(p)], labels[len(p) :])]
    return counts[0] / len(p), counts[1] / len(q)


def curve_area(p: Histogram, q: Histogram, scale: float = SCALE) -> float:
    """Area under the divergence curve of two histograms [K] (paper, equations 1 and 2).

    Its points are (exp(-c KL(q | r)), exp(-c KL(p | r))) for mixtures r = w p + (1 - w) q, from (1, 0) to (0, 1).
    """
    w = np.linspace(0, 1, POINTS + 2)[1:-1, None]
    r = w * p + (1 - w) * q
    x = np.concatenate([[1.0], np.exp(-scale * _kl(q, r)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-scale * _kl(p, r)), [1.0]])
    return float(np.trapezoid(x, y))


def _kl(p: Histogram, r: Histogram) -> Histogram:
    """KL(p | r) in nats of p [K] from each row of r [W, K], which is positive wherever p is; [W]."""
    inside = p > 0
    return np.asarray((p[inside] * np.log(p[inside] / r[:, inside])).sum(1))
