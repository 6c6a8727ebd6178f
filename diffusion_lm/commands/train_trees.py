"""`diffusion-lm train-control tree`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.commands.progress import Bar
from diffusion_lm.training.trees import train_trees
from diffusion_lm.training.trees_config import TreeTrainConfig


def run(config: TreeTrainConfig) -> None:
    """Count what trees say of a language model's words, and how many trees there are."""
    with Bar("labelling", "sentences") as bar:
        table = train_trees(config, bar)
    Console(highlight=False, soft_wrap=True).print(
        f"{table.config.sentences:,} sentences; {len(table.config.leaves):,} kinds of leaf, "
        f"{len(table.tags.config.tags)} tags, {len(table.lengths):,} different trees kept."
    )
