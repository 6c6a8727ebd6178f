"""The command line: which commands there are, and what an error looks like."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from diffusion_lm import __doc__ as about
from diffusion_lm import __version__
from diffusion_lm.common import UserError

logger = logging.getLogger(__name__)

INTERRUPTED, PIPE_CLOSED = 128 + 2, 128 + 13
"""Exit codes of a process that SIGINT or SIGPIPE ends, as a shell reports them."""


class Command(NamedTuple):
    """A command; `commands.run_NAME` does it, and nothing is imported before it is chosen."""

    config: str
    """ "module:name" of the dataclass that holds the flags."""
    help: str
    """What it does."""


COMMANDS = {
    "train": Command(
        "training.lm:TrainConfig", "train a language model; without flags, one on the built-in toy corpus"
    ),
    "train-control attribute": Command(
        "training.classifiers:AttributeTrainConfig", "train the classifier behind --attribute"
    ),
    "train-control pos": Command("training.tables:TagTrainConfig", "count the tags of words behind --pos"),
    "train-control tree": Command(
        "training.tables:TreeTrainConfig",
        "count what the trees of sentences say of their words, behind --tree and --span",
    ),
    "train-control syntax": Command(
        "training.classifiers:SyntaxTrainConfig",
        "train the classifiers of tags and constituents behind --syntax_by classifier",
    ),
    "annotate": Command("annotate.labels:AnnotateConfig", "give the sentences of a corpus their tags and trees"),
    "train-parser": Command("training.parser:ParserTrainConfig", "train the parser that finds the trees of sentences"),
    "train-judge": Command("commands:TrainJudgeConfig", "train the judge that measures fluency"),
    "train-baseline ft": Command(
        "baselines.fine_tuned:FineTuneConfig", "fine-tune an autoregressive model to one control, to compare with"
    ),
    "train-baseline fudge": Command(
        "baselines.fudge:FudgeConfig", "train what reweights an autoregressive model's words (FUDGE), to compare with"
    ),
    "train-baseline pplm": Command(
        "baselines.pplm:PplmConfig", "train what an autoregressive model's activations follow (PPLM), to compare with"
    ),
    "generate": Command("commands:GenerateConfig", "write sentences, free or held to controls"),
    "evaluate": Command("evaluation.tasks:EvaluateConfig", "measure fluency, success and diversity beside human text"),
    "report": Command(
        "report.page:ReportConfig", "put evaluations together: the paper's tables and figures on one page"
    ),
    "make-targets": Command(
        "evaluation.targets:MakeTargetsConfig", "draw targets of tags, trees and spans from an annotated corpus"
    ),
    "info": Command("commands:InfoConfig", "say what a model is and what it can be held to"),
}
"""The commands by name, which may be of two words."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code: 0, 2 for bad input, 130 or 141 where somebody had enough.

    Args:
        words: the arguments; those of the process if not given.
    """
    try:
        try:
            _run(list(sys.argv[1:] if words is None else words))
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"diffusion-lm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader; without this, Python would complain about it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
    elif words[0] == "--version":
        print(f"diffusion-lm {__version__}")
    else:
        _start(*choose(words))


def _start(name: str, words: list[str]) -> None:
    from diffusion_lm.flags import help_of, read  # the help of the program needs none of it

    config_class, about = load(COMMANDS[name].config), COMMANDS[name].help
    if {"-h", "--help"} & set(words):
        print(help_of(name, about, config_class))
        return
    config, verbose = read(config_class, words)
    logging.basicConfig(format="diffusion-lm: %(message)s")
    logging.getLogger("diffusion_lm").setLevel(logging.INFO if verbose else logging.WARNING)
    logger.info("%s", config)
    load(f"commands:run_{name.replace('-', '_').replace(' ', '_')}")(config)


def load(path: str) -> Any:
    """What "module:name" in diffusion_lm stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"diffusion_lm.{module}"), name)


def choose(words: list[str]) -> tuple[str, list[str]]:
    """The name of the command, which may be of two words, and what follows it."""
    for count in (1, 2):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    kinds = [name.split()[1] for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if kinds and words[1:2] in ([], ["-h"], ["--help"]):
        raise UserError(f"{words[0]} needs a second word: {', '.join(kinds)}.")
    if kinds:
        raise UserError(f"{words[0]} knows no {words[1]!r}; give one of: {', '.join(kinds)}.")
    near = get_close_matches(words[0], {name.split()[0] for name in COMMANDS}, n=1)
    hint = f"did you mean {near[0]}?" if near else f"give one of: {', '.join(COMMANDS)}."
    raise UserError(f"There is no command {words[0]!r}; {hint}")


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    usage = "usage: diffusion-lm COMMAND [options]\n       diffusion-lm COMMAND --help\n       diffusion-lm --version"
    commands = [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join([usage, "", about or "", "", "commands:", *commands])
