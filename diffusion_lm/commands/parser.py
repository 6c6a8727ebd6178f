"""From words to a dataclass: its fields are a command's flags and the keys of its YAML file.

A flag beats the file, whichever comes first. Beyond what jsonargparse reads, a flag may have `-` for `_`, a
list's flag may be repeated, and a bool's flag, or one whose field says so, may stand alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from diffusion_lm.errors import UserError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

ALONE = "alone"
"""Key of a field's metadata: the value that the flag has when none follows it. A bool's is true."""

T = TypeVar("T")


class Key(NamedTuple):
    """A field of a config, or of a config in it."""

    hint: Any
    alone: str | None


def parse(
    name: str, about: str, config: type[T], words: list[str], *, positional: bool = False
) -> tuple[T, bool]:
    """Read a command line, and the files that its --config names.

    Args:
        name: of the command.
        about: what the command does, for the help.
        config: the dataclass to fill.
        words: what follows the command's name.
        positional: whether fields without a default are read without their names.

    Returns:
        The config, and whether --verbose was given.

    Raises:
        UserError: if a flag, a key or a value is none that the config has, or a file is unreadable.
    """
    keys = dict(_keys(config))
    parser = ArgumentParser(
        prog=f"diffusion-lm {name}",
        usage=" ".join(["diffusion-lm", name, *_placeholders(config, positional), "[options]"]),
        description=f"{about[0].upper()}{about[1:]}.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of options; flags beat it.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Say more on standard error.")
    parser.add_class_arguments(config, None, as_positional=positional)
    try:
        namespace = parser.parse_args(_spell_out(words, keys, _bare_list(config, positional)))
    except argparse.ArgumentError as error:
        raise UserError(_explain(str(error), keys)) from None
    except UnicodeDecodeError:
        raise UserError("The file given to --config is not text; give a YAML file.") from None
    _refuse_null(namespace, keys)
    values = vars(parser.instantiate(namespace))
    verbose = values.pop("verbose")
    values.pop("config")
    return config(**values), verbose


def _bare(config: type, positional: bool) -> dict[str, Any]:
    """The fields that are given without their names, and what they take."""
    missing = dataclasses.MISSING
    fields = [f for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing]
    return {field.name: get_type_hints(config)[field.name] for field in fields} if positional else {}


def _placeholders(config: type, positional: bool) -> list[str]:
    """How the usage names them; of a list there may be several."""
    bare = _bare(config, positional).items()
    return [
        f"{name.upper().rstrip('S')}..." if get_origin(hint) is list else name.upper() for name, hint in bare
    ]


def _bare_list(config: type, positional: bool) -> bool:
    """Whether what is given without a name is one list."""
    return [get_origin(hint) for hint in _bare(config, positional).values()] == [list]


def _keys(config: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key of a dataclass, `run` and `run.steps` alike, with what it takes."""
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        hint, name = hints[field.name], prefix + field.name
        yield name, Key(hint, field.metadata.get(ALONE, "true" if hint is bool else None))
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _keys(hint, f"{name}.")


def _spell_out(words: list[str], keys: Mapping[str, Key], bare_list: bool = False) -> list[str]:
    """The words as jsonargparse reads them: --config first, a list's values together, no flag alone.

    With `bare_list` the words that belong to no flag are the values of one list.
    """
    files: list[str] = []
    bare: list[str] = []
    flags: list[str] = []
    lists: dict[str, list[str]] = {}
    queue = list(words)
    while queue:
        flag, equals, value = queue.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
        key = keys.get(name)
        follows = bool(queue) and not queue[0].startswith(("--", "-v", "-h"))
        if bare_list and not flag.startswith("-"):
            bare.append(flag + equals + value)
        elif key is None and name != "config":
            flags.append(flag + equals + value)
        elif not equals and not follows and key is not None and key.alone is not None:
            flags.append(f"--{name}={key.alone}")
        elif not equals and not follows:
            raise UserError(f"--{name} needs a value{'' if key is None else f', {describe(key.hint)}'}.")
        else:
            value = value if equals else queue.pop(0)
            if key is None:
                files.append(f"--config={value}")
            elif get_origin(key.hint) is list and not value.startswith("["):
                lists.setdefault(name, []).append(value)
            else:
                flags.append(f"--{name}={value}")
    together = [json.dumps(bare)] if bare else []
    return [*files, *together, *flags, *(f"--{name}={json.dumps(values)}" for name, values in lists.items())]


def _refuse_null(namespace: Namespace, keys: Mapping[str, Key]) -> None:
    """Refuse what jsonargparse takes from a file: null for any key, anything for a set of keys."""
    for name, key in keys.items():
        value, nested = namespace.get(name), dataclasses.is_dataclass(key.hint)
        if (nested and not isinstance(value, Namespace)) or (
            value is None and NoneType not in get_args(key.hint)
        ):
            raise UserError(f"{name} must be {describe(key.hint)}, not {'null' if value is None else value}.")


def describe(hint: Any) -> str:
    """What a type hint takes, in words."""
    *others, last = _describe(hint)
    return f"{', '.join(others)} or {last}" if others else last


def _describe(hint: Any) -> Iterator[str]:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for argument in arguments:
            yield from _describe(argument)
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin in (list, tuple):
        yield "a list such as [a, b]" if str in arguments else "a list such as [1, 2]"
    else:
        yield names.get(hint, "a set of keys")


def _explain(message: str, keys: Mapping[str, Key]) -> str:
    """One sentence for a person out of jsonargparse's message, which may be a page."""
    message = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        word = match[1].partition("=")[0]
        if not word.startswith("--"):
            return f"{word!r} belongs to no option; see --help."
        return _unknown("option", "--", word.removeprefix("--"), keys)
    if match := re.search(
        r"Option '(.+)' is not accepted|Group '(.+)' does not accept option '(.+)'", message
    ):
        return _unknown("key", "", match[1] or f"{match[2]}.{match[3]}", keys)
    if match := re.search(r'Parser key "([^"]+)": (.*)', message):
        name, problem = match.groups()
        value = re.search(r"(?:Got value|Given value): (.*)", problem)
        if name in keys and value:
            return f"{name} must be {describe(keys[name].hint)}, not {value[1]}."
        if name in keys:
            return f"{name} must be {describe(keys[name].hint)}: {problem}."
        return f"--{name}: {problem}."
    if re.search(r"Problems parsing config|Unexpected config", message):
        return f"The file given to --config is no YAML file of options ({message})."
    return f"{message[:1].upper()}{message[1:]}."


def _unknown(kind: str, dashes: str, word: str, keys: Mapping[str, Key]) -> str:
    """An unknown name, with the known one that is most like it."""
    word = word.replace("-", "_")
    near = get_close_matches(word, keys, n=1)
    if not near:  # `--size` for `--model.size`
        near = [name for name in keys if name.rpartition(".")[2] == word.rpartition(".")[2]][:1]
    hint = f"did you mean {dashes}{near[0]}?" if near else "see --help for those that there are."
    return f"There is no {kind} {dashes}{word}; {hint}"
