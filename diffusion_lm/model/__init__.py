"""The network: embedding and rounding, transformer, DiffusionLM."""
