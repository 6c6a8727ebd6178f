"""The model e2e-student, which diffusion-lm finds by its entry point; this folder is the model."""
