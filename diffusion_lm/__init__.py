"""Diffusion-LM: a language model that denoises Gaussian vectors into words, and that gradients can steer."""

__version__ = "0.1.0"

__all__ = ["DiffusionLM", "__version__"]


def __getattr__(name: str) -> object:
    """Import PyTorch only when the model is asked for, so that the command line answers at once."""
    if name == "DiffusionLM":
        from diffusion_lm.generation.pipeline import DiffusionLM

        return DiffusionLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
