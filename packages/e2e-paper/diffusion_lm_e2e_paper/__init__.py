"""The model e2e-paper, which diffusion-lm finds by its entry point; this folder is the model."""
