"""`diffusion-lm train-control pos`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.commands.progress import Bar
from diffusion_lm.training.tags import train_tags
from diffusion_lm.training.tags_config import TagTrainConfig


def run(config: TagTrainConfig) -> None:
    """Count p(tag | word) for a language model and say how sure a word is of its tag."""
    with Bar("labelling", "sentences") as bar:
        table = train_tags(config, bar)
    Console(highlight=False).print(
        f"{table.config.sentences:,} sentences; the likeliest tag of a word is right "
        f"{table.config.certainty:.1%} of the time."
    )
