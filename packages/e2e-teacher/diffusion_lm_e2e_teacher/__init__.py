"""The model e2e-teacher, which diffusion-lm finds by its entry point; this folder is the model."""
