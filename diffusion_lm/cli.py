"""The command line: which commands there are, and what an error looks like."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from diffusion_lm import __doc__ as about
from diffusion_lm import __version__
from diffusion_lm.common import UserError

logger = logging.getLogger(__name__)

HELP, HELP_ALL = ("-h", "--help"), ("--help_all", "--help-all")
INTERRUPTED, PIPE_CLOSED = 128 + 2, 128 + 13
"""Exit codes of a process that SIGINT or SIGPIPE ends, as a shell reports them."""


class Command(NamedTuple):
    """A command; `commands.run_NAME` does it, and nothing is imported before it is chosen."""

    config: str
    """ "module:name" of the dataclass that holds its flags; of a command of two words, of a table by the second word of what
    has a `Config` and says `about` itself; or of a function that gives either."""
    help: str
    """What it does."""


COMMANDS = {
    "train": Command("training.lm:TrainConfig", "train a language model; without flags, on the built-in toy corpus"),
    "distill": Command(
        "commands:DistillConfig", "make a student of a model, one pass of which says what two of it say"
    ),
    "train-control": Command("control:ASSETS", "NAME: count or train what a control has to know of a language model"),
    "annotate": Command("annotate.labels:AnnotateConfig", "give the sentences of a corpus their tags and trees"),
    "train-parser": Command("training.parser:ParserTrainConfig", "train the parser that finds the trees of sentences"),
    "train-judge": Command("commands:TrainJudgeConfig", "train the judge that measures fluency"),
    "train-baseline": Command("baselines:BASELINES", "NAME: train an autoregressive model to compare with"),
    "generate": Command("commands:generate_config", "write sentences, free or held to controls"),
    "demo": Command("app.serve:DemoConfig", "serve a page on which anybody can ask for sentences and watch them come"),
    "evaluate": Command("evaluation.tasks:EvaluateConfig", "measure fluency, success and diversity beside human text"),
    "report": Command("report.page:ReportConfig", "put the paper's tables and figures of evaluations on one page"),
    "card": Command("report.card:CardConfig", "write the card of a model, with what was measured of it"),
    "make-targets": Command("evaluation.targets:MakeTargetsConfig", "draw targets from an annotated corpus"),
    "info": Command("commands:InfoConfig", "say what a model is and what it can be held to"),
}
"""The commands by name."""


class Call(NamedTuple):
    """A command that was chosen, and the words that follow its name."""

    name: str
    about: str
    config: type[Any] | dict[str, Any]
    run: Callable[[Any], None]
    words: list[str]


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, the process's own if none is given; 0, or 2 for bad input, 130 or 141 where somebody had enough."""
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
    if not words or words[0] in HELP:
        print(_help())
    elif words[0] == "--version":
        print(f"diffusion-lm {__version__}")
    else:
        from diffusion_lm.flags import help_of, read  # the help of the program needs none of it

        call = choose(words)
        if {*HELP, *HELP_ALL} & set(call.words):
            if isinstance(call.config, dict):
                head = f"usage: diffusion-lm {call.name} NAME [options]\n"
                print(_listed(head, {name: kind.about for name, kind in call.config.items()}))
            else:
                print(help_of(call.name, call.about, call.config, every=bool(set(HELP_ALL) & set(call.words))))
            return
        assert not isinstance(call.config, dict)
        config, verbose = read(call.config, call.words)
        logging.basicConfig(format="diffusion-lm: %(message)s")
        logging.getLogger("diffusion_lm").setLevel(logging.INFO if verbose else logging.WARNING)
        logger.info("%s", config)
        call.run(config)


def choose(words: Sequence[str]) -> Call:
    """The command that a line calls; a `UserError` if there is none of that name."""
    name, *words = words
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of: {', '.join(COMMANDS)}."
        raise UserError(f"There is no command {name!r}; {hint}")
    found, run = load(COMMANDS[name].config), load(f"commands:run_{name.replace('-', '_')}")
    found = found if isinstance(found, type | dict) else found()
    if isinstance(found, type):
        return Call(name, COMMANDS[name].help, found, run, words)
    if not words:
        raise UserError(f"{name} needs a second word: {', '.join(found)}.")
    second, *words = words
    if second in (*HELP, *HELP_ALL):
        return Call(name, COMMANDS[name].help, found, run, [second])
    if second not in found:
        raise UserError(f"{name} knows no {second!r}; give one of: {', '.join(found)}.")
    kind = found[second]
    return Call(f"{name} {second}", kind.about, kind.Config, partial(run, kind=kind), words)


def load(path: str) -> Any:
    """What "module:name" in diffusion_lm stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"diffusion_lm.{module}"), name)


def _help() -> str:
    usage = "usage: diffusion-lm COMMAND [options]\n       diffusion-lm COMMAND --help\n       diffusion-lm --version"
    return _listed(f"{usage}\n\n{about}\n\ncommands:", {name: command.help for name, command in COMMANDS.items()})


def _listed(head: str, names: Mapping[str, str]) -> str:
    """Names and what they do, below a head."""
    width = max(map(len, names)) + 2
    return "\n".join([head, *(f"  {name:<{width}}{text}" for name, text in names.items())])
