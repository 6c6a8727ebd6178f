"""The training loop, checkpoints, and the training of classifiers and judge."""
