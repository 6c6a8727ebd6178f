"""`diffusion-lm train-parser`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.training.parser import ParserProgress, train_parser
from diffusion_lm.training.parser_config import ParserTrainConfig


def run(config: ParserTrainConfig) -> None:
    """Train the constituency parser on treebanks and show each epoch."""
    console = Console(highlight=False, soft_wrap=True)
    best = train_parser(config, lambda done: console.print(_line(done, config.epochs)))
    score = "" if best is None else f" Its labelled bracket F1 on dev is {best:.2%}."
    console.print(f"The parser is in {config.out}.{score}")


def _line(done: ParserProgress, epochs: int) -> str:
    dev = "" if done.f1 is None else f", F1 {done.f1:.2%} on dev"
    return f"epoch {done.epoch} of {epochs}: loss {done.loss:.3f} a word{dev}, {done.seconds:.0f} s"
