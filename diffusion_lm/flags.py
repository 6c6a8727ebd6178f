"""A dataclass from a command line and YAML files: a field is a flag, a key of the file, and its docstring the help.

Words and scalars stay text until the field's type hint says what they mean, so nothing is guessed: `no` is a word, and
`1e3` a whole number where one is wanted. No name from a flag or a file is ever imported.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from diffusion_lm.common import UserError

ALONE = "alone"
"""Key of a field's metadata: the value that the flag has when none follows it. A bool's is true."""
HELP = "help"
"""Key of a field's metadata: what the field means, where there is no docstring below it."""

FIRST = "FIRST"
"""Attribute of a config: names of the flags that its help shows first."""

T = TypeVar("T")
MISSING = dataclasses.MISSING
BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


class Key(NamedTuple):
    """A field of a config (`steps`), of a config in it (`run.steps`), or such a config as a whole (`run`)."""

    hint: Any
    default: Any = MISSING
    alone: str | None = None
    help: str = ""

    @property
    def group(self) -> bool:
        """Whether it is a config in the config."""
        return dataclasses.is_dataclass(self.hint)

    @property
    def many(self) -> bool:
        """Whether its flag repeats."""
        return get_origin(self.hint) in (list, tuple)

    @property
    def named(self) -> bool:
        """Whether it holds a text for each of some names, `targets.pos`, a flag each."""
        return get_origin(self.hint) is dict

    @property
    def required(self) -> bool:
        """Whether it has to be given; it can be without its name."""
        return self.default is MISSING and not self.group


class Keys(dict[str, Key]):
    """The keys by name, an entry of a `Key.named` among them once it is asked for."""

    def __missing__(self, name: str) -> Key:
        whole, _, entry = name.partition(".")
        if not (entry and whole in self and self[whole].named):
            raise KeyError(name)
        return Key(get_args(self[whole].hint)[1])

    def knows(self, name: str) -> bool:
        """Whether there is such a key or entry."""
        with suppress(KeyError):
            return bool(self[name])
        return False


OWN = {
    "config": Key(str, "", help="YAML file of options; flags beat it."),
    "verbose": Key(bool, False, "true", "Say more on standard error; -v for short."),
}
"""The flags of every command."""
SHORT = {"v": "verbose", "o": "out"}
"""Flags of one letter that are not so named."""


def keys_of(config: type, prefix: str = "", instance: Any = None) -> Iterator[tuple[str, Key]]:
    """The keys of a dataclass by name; `instance` has their defaults if it is given."""
    hints, docs = get_type_hints(config), _docstrings(config)
    for field in dataclasses.fields(config):
        name, hint, default = prefix + field.name, hints[field.name], field.default
        if instance is not None:
            default = getattr(instance, field.name)
        elif field.default_factory is not MISSING:
            default = field.default_factory()
        alone = field.metadata.get(ALONE, "true" if hint is bool else None)
        yield name, Key(hint, default, alone, field.metadata.get(HELP) or docs.get(field.name, ""))
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from keys_of(hint, f"{name}.", None if default is MISSING else default)


@cache
def _docstrings(config: type) -> dict[str, str]:
    """What stands below each field of a class in its source; a class that was made at run time has none."""
    docs = {}
    for parent in reversed(config.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0].body  # type: ignore[attr-defined]
        except (OSError, TypeError):
            continue
        for pair in pairwise(body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def read(config: type[T], words: Sequence[str]) -> tuple[T, bool]:
    """The config that the flags of a command and the files of its --config make, and whether --verbose was given.

    Raises:
        UserError: a flag, a key or a value is none that the config has, or a file is unreadable.
    """
    keys = Keys({**OWN, **dict(keys_of(config))})
    files, flags = dict[str, Any](), dict[str, Any]()
    for name, text in _pairs(words, keys):
        if name == "config":
            files.update(_flat(_load(text), keys))
        elif keys[name].many:
            flags[name] = flags.get(name, []) + _items(text)
        else:
            flags[name] = text
    values = {name: convert(name, keys[name].hint, value) for name, value in (files | flags).items()}
    verbose = values.pop("verbose", False)
    for name, key in keys.items():
        if key.required and name not in values:
            raise UserError(f"{name} has to be given: {describe(key.hint)}.")
    return _build(config, MISSING, keys, values), verbose


def _build(config: type[T], default: Any, keys: Keys, values: Mapping[str, Any], prefix: str = "") -> T:
    given = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        name, key = prefix + field.name, keys[prefix + field.name]
        if name in values:
            given[field.name] = values[name]
        elif inner := [other for other in values if other.startswith(f"{name}.")]:
            if key.named:
                given[field.name] = {other.removeprefix(f"{name}."): values[other] for other in inner}
            else:
                given[field.name] = _build(key.hint, key.default, keys, values, f"{name}.")
    return config(**given) if default is MISSING else dataclasses.replace(default, **given)


def _pairs(words: Sequence[str], keys: Keys) -> Iterator[tuple[str, str]]:
    """The keys that are named, or meant by a word without a name, each with its text."""
    queue = deque(words)
    bare = deque(name for name, key in keys.items() if key.required)
    while queue:
        word = queue.popleft()
        _, equals, text = word.partition("=")
        name = _named(word, keys)
        if name is None:
            if word.startswith("-"):
                raise _unknown(word, keys)
            if not bare:
                raise UserError(f"{word!r} belongs to no option; see --help.")
            name, text = bare[0] if keys[bare[0]].many else bare.popleft(), word
        elif not equals and (alone := keys[name].alone) is not None:
            text = queue.popleft() if queue and _fits(keys[name].hint, queue[0]) else alone
        elif not equals and (not queue or _named(queue[0], keys)):
            otherwise = f"; if it is {queue[0]!r}, write --{name}={queue[0]}" if queue else ""
            raise UserError(f"--{name} needs a value, {describe(keys[name].hint)}{otherwise}.")
        elif not equals:
            text = queue.popleft()
        yield name, text


def _named(word: str, keys: Keys) -> str | None:
    """The key that a word names, `--batch-size`, `--batch_size=3` or `-n`, if it is a flag."""
    match = re.fullmatch(r"--([^=]+)|-(\w)", word.partition("=")[0])
    name = "" if match is None else (match[1] or SHORT.get(match[2], match[2])).replace("-", "_")
    return name if keys.knows(name) else None


def _fits(hint: Any, text: str) -> bool:
    try:
        convert("", hint, text)
    except UserError:
        return False
    return True


def _unknown(word: str, keys: Keys) -> UserError:
    """The error for a word that is no flag, or a name that is no key of a file, with the one that is most like it."""
    dashes = "--" if word.startswith("-") else ""
    name = word.partition("=")[0].lstrip("-").replace("-", "_")
    near = get_close_matches(name, keys, n=1)
    if not near:  # `--size` for `--model.size`
        near = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    hint = f"did you mean {dashes}{near[0]}?" if near else "see --help for those that there are."
    return UserError(f"There is no {'option' if dashes else 'key'} {dashes}{name}; {hint}")


class _Null(str):
    """A scalar that YAML reads as null; among the items of a list it is text as any other."""


class _Loader(yaml.SafeLoader):
    """Leaves scalars as they are written, and knows no tags of its own."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":str", ":seq", ":map"))
    }


_Loader.add_constructor("tag:yaml.org,2002:null", lambda loader, node: _Null(node.value or "null"))


def _load(path: str) -> dict[Any, Any]:
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf8"), _Loader)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config {path} is no YAML file of options ({error}).") from None
    except ValueError:  # of the file's name, or of its bytes
        raise UserError(f"--config {path!a} is not text; give a YAML file.") from None
    if not isinstance(tree, dict):
        raise UserError(f"--config {path} is no YAML file of options, such as `steps: 50` on a line.")
    return tree


def _flat(tree: Mapping[Any, Any], keys: Keys, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = prefix + str(key).replace("-", "_")
        if isinstance(value, dict) and (keys[name].group or keys[name].named if name in keys else value):
            yield from _flat(value, keys, f"{name}.")
        elif keys.knows(name) and name not in OWN:
            yield name, value
        else:
            raise _unknown(name, keys)


def _items(text: str) -> list[Any]:
    """The items of a list on the command line: several in brackets, or one as it is."""
    if text.startswith("[") and text.endswith("]"):
        with suppress(yaml.YAMLError, RecursionError):
            return yaml.load(text, _Loader)
    return [text]


def convert(name: str, hint: Any, value: Any) -> Any:
    """What a word, or a value of a YAML file, means where a type hint stands; a `UserError` that names both if nothing."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    null = isinstance(value, _Null)
    if NoneType in kinds and (null or (value == "null" and str not in kinds)):
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (list, tuple) and not null:
        items = value if isinstance(value, list) else [value]
        items = [str(item) if isinstance(item, str) else item for item in items]
        if origin is list or len(items) == len(arguments):
            return origin(convert(name, arguments[0], item) for item in items)
    elif isinstance(value, str) and not null:
        if not value.strip():
            raise UserError(f"{name} is empty; give it a value or leave it out.")
        if odd := re.search("[\0\ud800-\udfff]", value):
            raise UserError(f"{name} has the character {odd[0]!a}, which is no text; leave it out.")
        with suppress(ValueError, KeyError):
            return _scalar(kind, value)
    raise UserError(f"{name} must be {describe(hint)}, not {'null' if null else value}.")


def _scalar(kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[text]
    if kind is bool:
        return BOOLS[text.lower()]
    if kind is int:  # 1e3 is one
        if not float(text).is_integer():
            raise ValueError(text)
        return int(float(text))
    return {float: float, str: str}[kind](text)


def describe(hint: Any) -> str:
    """What a type hint takes, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (list, tuple):
        return "a list such as [a, b]" if str in arguments else "a list such as [1, 2]"
    if origin is dict:
        return "a value for each name"
    if dataclasses.is_dataclass(hint):
        return f"a set of keys ({', '.join(field.name for field in dataclasses.fields(hint))})"
    if not arguments:
        return NAMES[hint]
    *others, last = map(str if origin is Literal else describe, arguments)
    return f"{', '.join(others)} or {last}" if others else last


def help_of(command: str, about: str, config: type, *, every: bool = False) -> str:
    """The page of a command: how it is called, and its flags with their meaning, what they take and their default.

    Where the config says which come `FIRST`, only these are shown, unless `every` one is wanted.
    """
    keys, first = OWN | dict(keys_of(config)), () if every else getattr(config, FIRST, ())
    bare = [name.upper() + "..." * key.many for name, key in keys.items() if key.required and name not in OWN]
    shown = {name: keys[name] for name in first or keys}
    page = [" ".join(["usage: diffusion-lm", command, *bare, "[options]"]), "", f"{about[0].upper()}{about[1:]}.", ""]
    fill = partial(textwrap.fill, width=min(shutil.get_terminal_size().columns, 120))
    for name, key in shown.items():
        if key.group:
            page += ["", fill(f"{name}: {key.help}")]
        else:
            default = "" if key.default in (MISSING, None, "", [], {}) else f"; default: {key.default}"
            text = f"{key.help} [{describe(key.hint)}{default}]"
            page += [f"  --{name}{'.NAME' * key.named}", fill(text, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    if first:
        number = sum(not key.group for key in keys.values())
        page += ["", f"These are the options that matter first; diffusion-lm {command} --help_all shows all {number}."]
    return "\n".join(page)
