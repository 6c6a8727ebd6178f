"""Controls: what is wanted of a text, and how it is combined and followed."""

from diffusion_lm.control.attribute import Attribute
from diffusion_lm.control.base import Control, Latents
from diffusion_lm.control.guidance import Guidance
from diffusion_lm.control.infill import Infill
from diffusion_lm.control.length import Length
from diffusion_lm.control.pos import Pos

__all__ = ["Attribute", "Control", "Guidance", "Infill", "Latents", "Length", "Pos"]
