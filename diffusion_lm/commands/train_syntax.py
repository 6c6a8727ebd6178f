"""`diffusion-lm train-control syntax`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffusion_lm.commands.progress import Bar
from diffusion_lm.training.syntax import SyntaxAccuracy, train_syntax
from diffusion_lm.training.syntax_config import SyntaxTrainConfig


def run(config: SyntaxTrainConfig) -> None:
    """Train the classifiers of syntax of a language model and show what they know at which noise."""
    with Bar("classifier", "steps") as bar:
        accuracy = train_syntax(config, lambda step, loss: bar(step, config.steps, loss=f"{loss:.3f}"))
    Console().print(_table(accuracy))


def _table(accuracy: SyntaxAccuracy) -> Table:
    table = Table("t", "tags", "constituents (F1)", title="Accuracy on dev, by noise level")
    for t, tags, spans in zip(accuracy.t, accuracy.tags, accuracy.spans, strict=True):
        table.add_row(f"{t:.2f}", f"{tags:.1%}", f"{spans:.1%}")
    return table
