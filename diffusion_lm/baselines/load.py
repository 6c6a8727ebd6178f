"""Open a baseline, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffusion_lm.baselines import fine_tuned as prompted_lm
from diffusion_lm.baselines import fudge as discriminator
from diffusion_lm.baselines import pplm as attribute_lm
from diffusion_lm.baselines.common import kind_of
from diffusion_lm.baselines.fine_tuned import FineTuned
from diffusion_lm.baselines.fudge import Fudge
from diffusion_lm.baselines.pplm import Pplm
from diffusion_lm.common import UserError
from diffusion_lm.evaluation.systems import Writer

KINDS: dict[str, Callable[[str], Writer]] = {discriminator.KIND: Fudge, attribute_lm.KIND: Pplm}
"""What opens a folder, by its kind, of baselines other than fine-tuned models."""


def open_baseline(folders: Sequence[str], beams: int | None = None) -> Writer:
    """The writer that train-baseline made.

    Args:
        folders: of one baseline, or of several fine-tuned models, which means their product.
        beams: width of a fine-tuned model's beam search; None samples.

    Raises:
        UserError: a folder holds no baseline, or they do not go together.
    """
    kinds = [kind_of(folder) for folder in folders]
    if set(kinds) == {prompted_lm.KIND}:
        return FineTuned(folders, beams)
    if unknown := [
        folder for folder, kind in zip(folders, kinds, strict=True) if kind not in (prompted_lm.KIND, *KINDS)
    ]:
        raise UserError(f"{unknown[0]} is no folder of a baseline; make one with diffusion-lm train-baseline.")
    if len(folders) > 1:
        raise UserError("Of several baselines only fine-tuned models make a product; give one folder.")
    if beams is not None:
        raise UserError("Only fine-tuned models are searched by beams; leave --baseline_beams out.")
    return KINDS[kinds[0]](folders[0])
