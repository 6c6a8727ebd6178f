"""Autoregressive methods that the paper compares with, small and from scratch: the comparison is of methods, not of sizes."""

from diffusion_lm.baselines.common import BASELINES, Baseline, open_baseline
from diffusion_lm.baselines.fine_tuned import FineTuned
from diffusion_lm.baselines.fudge import Fudge
from diffusion_lm.baselines.pplm import Pplm

__all__ = ["BASELINES", "Baseline", "FineTuned", "Fudge", "Pplm", "open_baseline"]
