"""Controls: what is wanted of a text, and how it is combined and followed."""

from diffusion_lm.control.attribute import Attribute, Said
from diffusion_lm.control.control import CONTROLS, Control
from diffusion_lm.control.guidance import Guidance
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.infill import Infill
from diffusion_lm.control.language import Avoid, Keyword
from diffusion_lm.control.length import Length
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.pos import Pos
from diffusion_lm.control.program import ASSETS, Asset, Energy, Evidence, Host, Latents, Program
from diffusion_lm.control.prompt import Prompt
from diffusion_lm.control.regex import Regex
from diffusion_lm.control.reward import Reward
from diffusion_lm.control.span import Span
from diffusion_lm.control.tree import Tree

__all__ = [
    "ASSETS",
    "CONTROLS",
    "Asset",
    "Attribute",
    "Avoid",
    "CausalHead",
    "Control",
    "Energy",
    "Evidence",
    "Guidance",
    "Host",
    "Infill",
    "Keyword",
    "Latents",
    "Length",
    "PairTable",
    "Pos",
    "Program",
    "Prompt",
    "Regex",
    "Reward",
    "Said",
    "Span",
    "Tree",
]
