"""The model roc-gaps, which diffusion-lm finds by its entry point; this folder is the model."""
