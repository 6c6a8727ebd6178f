"""Diffusion-LM: a language model that denoises Gaussian vectors into words, and that gradients can steer."""

__version__ = "0.1.0"
