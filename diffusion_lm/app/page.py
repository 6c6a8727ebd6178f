"""The page as blocks of Gradio: inputs on the left, sentences, steps and trees on the right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from diffusion_lm.app import board
from diffusion_lm.app.drawing import sketch
from diffusion_lm.app.offers import Offer, fields_of
from diffusion_lm.app.request import MOST_CHARACTERS, MOST_SENTENCES, MOST_STEPS
from diffusion_lm.app.writing import Result, write
from diffusion_lm.common import MOST_SEED, UserError
from diffusion_lm.control.control import CONTROLS
from diffusion_lm.control.tree import Tree
from diffusion_lm.diffusion.clamp import HOTTEST
from diffusion_lm.generation.decoding import QUALITIES
from diffusion_lm.generation.settings import SamplingConfig

HERE = Path(__file__).parent
TITLE = "Diffusion-LM"
ANY = "any"
FIRST = board.note("Ask for something, or for nothing, and write.")


class Line(NamedTuple):
    """How a control is asked for on the page."""

    group: str
    label: str
    example: str
    lines: int = 1


LINES = {
    "keyword": Line("Words", "Words to say", "riverside, kid friendly"),
    "avoid": Line("Words", "Words to avoid", "pub, restaurant"),
    "regex": Line("Words", "Pattern of the whole sentence", "The .* is (cheap|moderate) .* \\."),
    "length": Line("Shape", "Number of words", "12"),
    "infill": Line("Shape", "Sentence with gaps", "The Punter ___ riverside."),
    "pos": Line("Syntax", "Part of speech of each word", "PROPN AUX DET ADJ NOUN PUNCT"),
    "span": Line("Syntax", "Words that are a constituent", "1:5:PP"),
    "tree": Line("Syntax", "Tree", "(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ _))) (. .))", 3),
}
"""The controls that the page has words for; any other that is registered stands under its own name."""
OTHERS = "More"

STEP = "(step, frames) => frames ? frames[Math.min(step, frames.length) - 1] : ''"
TREE = "(number, trees) => trees && number ? trees[number - 1] || '' : ''"
REPLAY = (HERE / "replay.js").read_text(encoding="utf-8")
THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],  # of the visitor's machine: no font is fetched
    font_mono=["ui-monospace", "monospace"],
    radius_size="sm",
).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400")


def build(offers: Mapping[str, Offer], seconds: float, waiting: int) -> gr.Blocks:
    """The page of some models, with a time for each request and a number of requests that may wait."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML((HERE / "head.html").read_text(encoding="utf-8"), elem_id="head")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=320, elem_id="asked"):
                asked = _inputs(offers)
            with gr.Column(scale=3, min_width=320, elem_id="written"):
                shown = _outputs()
        _connect(offers, asked, shown, seconds)
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)
    return page


class Inputs(NamedTuple):
    """What a visitor sets."""

    model: gr.Radio
    about: gr.HTML
    menus: dict[str, gr.Dropdown]
    lines: dict[str, gr.Textbox]
    how: dict[str, Any]
    sketch: gr.HTML
    n: gr.Slider
    write: gr.Button
    stop: gr.Button


def _inputs(offers: Mapping[str, Offer]) -> Inputs:
    name, first = next(iter(offers.items()))
    model = gr.Radio(list(offers), value=name, label="Model")
    about = gr.HTML(board.note(first.about))
    with gr.Accordion("Meaning", open=True):
        with gr.Row(elem_classes="menus"):
            menus = {field: _menu(field, first) for field in fields_of(offers.values())}
        how: dict[str, Any] = {
            "exact": gr.Checkbox(
                True,
                label="Say each value in its own words",
                info="Never missed, and fast; else the classifier is followed, which knows more ways to say it.",
                visible=first.by_words,
            ),
            "must_say": gr.Checkbox(
                False,
                label="Promise to say every value",
                info="A sentence that leaves one out is written anew.",
                visible=first.writes_from,
            ),
        }
    offered = dict.fromkeys(each for offer in offers.values() for each in offer.lines)
    names = list(dict.fromkeys(each for each in (*LINES, *offered) if each in offered))
    lines, drawn = dict[str, gr.Textbox](), None
    for group in dict.fromkeys(_line(each).group for each in names):
        with gr.Accordion(group, open=group == "Words"):
            for each in [each for each in names if _line(each).group == group]:
                lines[each] = _textbox(each, visible=each in first.lines)
                if each == Tree.task:
                    drawn = gr.HTML("", elem_id="sketch")
    with gr.Accordion("How it is drawn", open=False):
        fits = "0: as many as fit what is asked, and the quality"
        how["quality"] = gr.Radio(list(QUALITIES), value=SamplingConfig.quality, label="Quality")
        how["steps"] = gr.Slider(
            0, MOST_STEPS, value=0, step=1, label="Steps", info=fits, buttons=[], elem_id="steps-asked"
        )
        how["temperature"] = gr.Slider(
            0, HOTTEST, value=0, step=0.1, label="Temperature", info="0: what fits; 1: as the model has it", buttons=[]
        )
        how["seed"] = gr.Number(1, minimum=0, maximum=MOST_SEED, precision=0, label="Seed")
    n = gr.Slider(1, MOST_SENTENCES, value=4, step=1, label="Sentences", buttons=[])
    with gr.Row(elem_id="buttons"):
        go = gr.Button("Write", variant="primary", elem_id="write")
        stop = gr.Button("Stop", elem_id="stop", min_width=80)
    return Inputs(model, about, menus, lines, how, drawn or gr.HTML(""), n, go, stop)


def _line(name: str) -> Line:
    return LINES.get(name) or Line(OTHERS, name, CONTROLS[name].example)


def _textbox(name: str, visible: bool) -> gr.Textbox:
    line, more = _line(name), " Several are divided by commas." if CONTROLS[name].repeats else ""
    return gr.Textbox(
        label=line.label,
        placeholder=line.example,
        info=None if name in LINES and not more else f"{'' if name in LINES else CONTROLS[name].help}{more}".strip(),
        lines=line.lines,
        max_lines=line.lines,
        max_length=MOST_CHARACTERS,
        visible=visible,
        elem_id=f"line-{name}",
    )


def _menu(field: str, offer: Offer) -> gr.Dropdown:
    values = [(ANY, ""), *((value, value) for value in offer.menus.get(field, ()))]
    # What is typed and no value gets the library's own sentence, which names what was perhaps meant.
    return gr.Dropdown(
        values, value="", label=field, allow_custom_value=True, min_width=130, visible=field in offer.menus
    )


class Outputs(NamedTuple):
    """What the page shows of what was written."""

    board: gr.HTML
    step: gr.Slider
    replay: gr.Button
    steps: gr.Row
    result: gr.Column
    chosen: gr.Radio
    tree: gr.HTML
    command: gr.Textbox
    python: gr.Textbox
    frames: gr.JSON
    trees: gr.JSON


def _outputs() -> Outputs:
    shown = gr.HTML(FIRST, elem_id="board")
    with gr.Row(visible=False, elem_id="steps") as steps:
        step = gr.Slider(1, 2, value=1, step=1, label="Step", elem_id="step", scale=4, buttons=[])
        replay = gr.Button("Replay", elem_id="replay", scale=1, min_width=80)
    with gr.Column(visible=False, elem_id="result") as result:
        chosen = gr.Radio([], label="Parse tree of sentence", elem_id="chosen")
        tree = gr.HTML("", elem_id="tree")
        with gr.Accordion("The same again", open=True):
            command = gr.Textbox(
                label="As a command", interactive=False, buttons=["copy"], elem_id="command", lines=1, max_lines=6
            )
            python = gr.Textbox(
                label="As Python", interactive=False, buttons=["copy"], elem_id="python", lines=5, max_lines=12
            )
    # What the visitor's browser needs to go back over the steps; the server keeps nothing.
    frames, trees = gr.JSON(visible=False), gr.JSON(visible=False)
    return Outputs(shown, step, replay, steps, result, chosen, tree, command, python, frames, trees)


def _connect(offers: Mapping[str, Offer], asked: Inputs, shown: Outputs, seconds: float) -> None:
    keys = [*asked.menus, *asked.lines, *asked.how]
    sources = [asked.model, asked.n, *asked.menus.values(), *asked.lines.values(), *asked.how.values()]

    def start(model: str, n: float, *values: Any) -> Iterator[dict[Any, Any]]:
        given = dict(zip(keys, values, strict=True))
        lines = {name: given[name] for name in asked.lines}
        menus = {name: given[name] for name in asked.menus}
        yield {shown.board: board.note("Out of the noise ..."), shown.steps: gr.update(visible=False)}
        try:
            if model not in offers:
                raise UserError(f"There is no model of that name here; the models are {', '.join(offers)}.")
            offer = offers[model]
            request = offer.request(model, n, menus, lines, **{name: given[name] for name in asked.how})
            code = {shown.command: request.command(), shown.python: request.python()}
            for item in write(offer.lm, request, seconds):
                yield {shown.board: item} if isinstance(item, str) else code | _end(item, shown)
        except UserError as error:
            yield {shown.board: board.problem(str(error)), shown.result: gr.update(visible=False)}

    every = list(shown)
    running = asked.write.click(
        start,
        sources,
        every,
        show_progress="minimal",
        show_progress_on=shown.board,
        scroll_to_output=True,
        api_visibility="private",
    )
    asked.stop.click(None, cancels=[running], api_visibility="private")
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    asked.lines["tree"].change(sketch_of, asked.lines["tree"], asked.sketch, trigger_mode="always_last", **quick)
    asked.model.change(
        lambda name: _changed(offers, asked, name),
        asked.model,
        [asked.about, *asked.menus.values(), *asked.lines.values(), asked.how["exact"], asked.how["must_say"]],
        **quick,
    )
    shown.step.change(None, [shown.step, shown.frames], shown.board, js=STEP)
    shown.chosen.change(None, [shown.chosen, shown.trees], shown.tree, js=TREE)
    shown.replay.click(None, None, None, js=REPLAY)


def sketch_of(brackets: str) -> str:
    """The drawing of what stands in the line of a tree."""
    return sketch(str(brackets)[:MOST_CHARACTERS])


def _end(result: Result, shown: Outputs) -> dict[Any, Any]:
    last, numbers = len(result.frames), [(str(i), i) for i in range(1, len(result.texts) + 1)]
    return {
        shown.frames: result.frames,
        shown.trees: result.trees,
        shown.board: result.frames[-1],
        shown.step: gr.update(maximum=max(2, last), value=last),
        shown.steps: gr.update(visible=last > 1),
        shown.result: gr.update(visible=True),
        shown.chosen: gr.update(choices=numbers, value=1),
        shown.tree: result.trees[0],
    }


def _changed(offers: Mapping[str, Offer], asked: Inputs, name: str) -> list[Any]:
    """The inputs as another model has them."""
    offer = offers.get(name) or next(iter(offers.values()))
    menus = [_menu(field, offer) for field in asked.menus]
    lines = [gr.update(visible=each in offer.lines) for each in asked.lines]
    ways = [gr.update(visible=offer.by_words), gr.update(visible=offer.writes_from)]
    return [board.note(offer.about), *menus, *lines, *ways]
