"""`diffusion-lm train-control attribute`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from diffusion_lm.training.attribute import NoiseLevelAccuracy, train_attribute
from diffusion_lm.training.attribute_config import AttributeTrainConfig


def run(config: AttributeTrainConfig) -> None:
    """Train the attribute classifier of a language model and show what it knows at which noise."""
    with tqdm(total=config.steps, desc="classifier", unit="step", dynamic_ncols=True) as bar:

        def progress(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        accuracy = train_attribute(config, progress)
    Console().print(_table(accuracy))


def _table(accuracy: NoiseLevelAccuracy) -> Table:
    table = Table("t", "fields that the text says", "all fields", title="Accuracy on dev, by noise level")
    for t, said, overall in zip(accuracy.t, accuracy.said, accuracy.overall, strict=True):
        table.add_row(f"{t:.2f}", f"{said:.1%}", f"{overall:.1%}")
    return table
