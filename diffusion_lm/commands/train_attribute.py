"""`diffusion-lm train-control attribute`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffusion_lm.commands.progress import Bar
from diffusion_lm.training.attribute import NoiseLevelAccuracy, train_attribute
from diffusion_lm.training.attribute_config import AttributeTrainConfig


def run(config: AttributeTrainConfig) -> None:
    """Train the attribute classifier of a language model and show what it knows at which noise."""
    with Bar("classifier", "steps") as bar:
        accuracy = train_attribute(config, lambda step, loss: bar(step, config.steps, loss=f"{loss:.3f}"))
    Console().print(_table(accuracy))


def _table(accuracy: NoiseLevelAccuracy) -> Table:
    table = Table("t", "fields that the text says", "all fields", title="Accuracy on dev, by noise level")
    for t, said, overall in zip(accuracy.t, accuracy.said, accuracy.overall, strict=True):
        table.add_row(f"{t:.2f}", f"{said:.1%}", f"{overall:.1%}")
    return table
