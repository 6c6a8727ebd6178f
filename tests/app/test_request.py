"""What a visitor asks: bounds, and the same as a control, as a command and as Python."""

from __future__ import annotations

import io
import shlex
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lm import commands, flags
from diffusion_lm.app.request import MOST_CHARACTERS, MOST_SENTENCES, MOST_STEPS, MOST_TEXTS, Request, clean, terms
from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Avoid, Infill, Keyword, Length, Pos, Prompt, Regex, Said, Span, Tree
from diffusion_lm.generation.settings import SamplingConfig

TREE = "(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ _))) (. .))"
EVERY: dict[str, tuple[str, ...]] = {
    "keyword": ("riverside", 'it\'s "here"', "[a]"),
    "avoid": ("-- pub", "--seed"),
    "attribute": ("food=Japanese", "area=riverside"),
    "length": ("12",),
    "infill": ("The Punter ___ riverside.",),
    "pos": ("PROPN AUX DET",),
    "tree": (TREE,),
    "span": ("1:5:PP", "6:7:VP"),
    "regex": (r"The .* £\d+ \.",),
    "data2text": ("name = The Punter, food = Italian",),
}


def command_of(request: Request) -> Any:
    """What the command line reads of a request's command."""
    program, command, *words = shlex.split(request.command())
    assert (program, command) == ("diffusion-lm", "generate")
    return flags.read(commands.generate_config(), words)[0]


def python_of(request: Request) -> dict[str, Any]:
    """What the Python of a request asks a model for."""
    asked: dict[str, Any] = {}

    class Model:
        @staticmethod
        def from_pretrained(name: str) -> Model:
            asked["model"] = name
            return Model()

        def generate(self, n: int, control: Any = None, **options: Any) -> list[str]:
            asked.update(n=n, control=control, **options)
            return []

    program = request.python().replace("from diffusion_lm import DiffusionLM\n", "")
    with redirect_stdout(io.StringIO()):
        exec(program, {"DiffusionLM": Model})
    return asked


def assert_the_same(request: Request) -> None:
    config = command_of(request)
    control, task = commands.asked_of(config)
    assert control == request.control()
    assert (config.model, config.n, config.seed) == (request.model, request.n, request.settings.seed)
    assert config.decoding(task) == request.settings.decoding(task)
    asked, control = python_of(request), request.control()
    assert terms(asked.pop("control")) == terms(control)
    assert asked == {"model": request.model, "n": request.n, "seed": request.settings.seed, **request.decoding()}


def test_a_request_means_its_controls() -> None:
    texts = {name: EVERY[name] for name in ("keyword", "avoid", "attribute", "length")}
    by_words = Request("e2e-small", texts=texts, settings=SamplingConfig(attribute_by="words")).control()
    assert by_words is not None and set(by_words.parts()) == {
        *map(Keyword, EVERY["keyword"]), *map(Avoid, EVERY["avoid"]), Length(12),
        Said("food", "Japanese"), Said("area", "riverside"),
    }  # fmt: skip
    assert Request("e2e-small").control() is None
    assert Request("e2e-small", texts={"attribute": ("food=Thai",)}).control() == Attribute("food", "Thai")


@pytest.mark.parametrize("name", EVERY)
def test_each_control_is_the_same_as_a_command_and_as_python(name: str) -> None:
    kinds = (Keyword, Avoid, Attribute, Length, Infill, Pos, Tree, Span, Regex, Prompt)
    request = Request("e2e-small", texts={name: EVERY[name]})
    control = request.control()
    assert control is not None and all(isinstance(part, kinds) for part in control.parts())
    assert_the_same(request)


def test_all_controls_and_settings_are_the_same_as_a_command_and_as_python() -> None:
    ways = SamplingConfig(
        quality="fast", steps=7, temperature=0.5, seed=3, attribute_by="words", syntax_by="classifier", must_say=True
    )
    request = Request("e2e-given", 2, EVERY, ways)
    assert_the_same(request)
    assert "clamp=SampledClamp(temperature=0.5)" in request.python() and "steps=7" in request.python()
    assert_the_same(Request("e2e-small"))


@settings(max_examples=30)
@given(st.lists(st.text(max_size=30).map(clean).filter(bool), min_size=1, max_size=3), st.integers(0, 9))
def test_any_text_is_the_same_as_a_command_and_as_python(texts: list[str], seed: int) -> None:
    asked = {"keyword": tuple(texts), "infill": (texts[0],)}
    assert_the_same(Request("e2e-small", 1, asked, SamplingConfig(seed=seed)))


def test_text_is_one_line_without_odd_signs() -> None:
    assert clean(" a\n\tb \0\u202e\ud800 c ") == "a b c"
    assert clean(None) == "" and clean(3) == "3"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"n": MOST_SENTENCES + 1}, "n must be at most 8, not 9"),
        ({"n": 0}, "n must be at least 1"),
        ({"settings": SamplingConfig(steps=MOST_STEPS + 1)}, "at most 200 steps, not 201"),
        ({"texts": {"keyword": ("a",) * (MOST_TEXTS + 1)}}, "at most 8 values of 600 characters together for keyword"),
        ({"texts": {"tree": ("a" * (MOST_CHARACTERS + 1),)}}, "for tree; ask for less"),
        ({"texts": {"magic": ("a",)}}, "There is no control 'magic'"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_sentence(what: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Request("e2e-small", **what)
