"""`diffusion-lm generate`."""

from __future__ import annotations

import json
import math
import operator
import sys
from functools import reduce
from types import TracebackType

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lm.commands.configs import GenerateConfig
from diffusion_lm.control import Avoid, Control, Infill, Keyword, Length, Regex
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.sampling import (
    attribute_of,
    clamp_of,
    guidance_of,
    pos_of,
    sampler_of,
    span_of,
    tree_of,
)
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.model.generate import Generation, Step

Verdicts = dict[str, Tensor]
"""How far each text does what each control wants: control to [n], in [0, 1]."""


def run(config: GenerateConfig) -> None:
    """Write sentences to standard output; progress goes to standard error."""
    control = controls_of(config)
    lm = DiffusionLM.from_pretrained(config.model, _device(config))
    # Bound here and not only by `generate`: a bound control names and counts words as the model does.
    control = control.bind(lm) if control is not None else None
    with _Watch(config, lm) as watch:
        generation = lm.generate(
            config.n,
            control,
            steps=config.steps,
            sampler=sampler_of(config),
            clamp=clamp_of(config),
            guidance=guidance_of(config, guided_as(config)),
            seed=config.seed,
            batch_size=config.batch_size,
            callback=watch,
        )
    parts = control.parts() if control is not None else []
    verdicts = {str(part): part.success(generation.texts) for part in parts}
    if config.json:
        _write_json(generation, verdicts)
    else:
        _write_text(generation, verdicts)


def controls_of(config: GenerateConfig) -> Control | None:
    """All that the flags ask for, joined by `&`; None where they ask for nothing.

    Raises:
        UserError: if an attribute is not FIELD=VALUE.
    """
    controls: list[Control] = []
    kind = attribute_of(config)
    for pair in config.attribute:
        name, _, value = (part.strip() for part in pair.partition("="))
        if not (name and value):
            raise UserError(f"An attribute is FIELD=VALUE, such as food=Japanese, not {pair!r}.")
        controls.append(kind(name, value))
    controls += map(Keyword, config.keyword)
    controls += map(Avoid, config.avoid)
    if config.regex is not None:
        controls.append(Regex(config.regex))
    if config.length is not None:
        controls.append(Length(config.length))
    if config.pos is not None:
        controls.append(pos_of(config, config.pos))
    if config.tree is not None:
        controls.append(tree_of(config, config.tree))
    if config.span:
        controls.append(span_of(config, " ".join(config.span)))
    if config.infill is not None:
        controls.append(Infill(config.infill))
    return reduce(operator.and_, controls) if controls else None


def guided_as(config: GenerateConfig) -> str:
    """The name under which `Guidance.paper` has numbers for what is asked."""
    syntax = {"pos": config.pos, "tree": config.tree, "span": config.span}
    asked = ["attribute"] * len(config.attribute) + [name for name, value in syntax.items() if value]
    return COMPOSITION if len(asked) > 1 else (asked or ["length"])[0]


def _device(config: GenerateConfig) -> str | None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; take --device auto or --device cpu.")
    return None if config.device == "auto" else config.device


class _Watch:
    """The callback of a generation: a bar on standard error, and the trace of the first sentence."""

    def __init__(self, config: GenerateConfig, lm: DiffusionLM) -> None:
        self.total = config.steps * -(-config.n // config.batch_size)
        self.bar: tqdm | None = None
        self.out = sys.stderr if config.json else sys.stdout
        self.tokenizer = lm.tokenizer
        self.shown = spread(config.trace or 0, config.steps)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, step: Step) -> None:
        # Made at the first step: a request that is refused before it shows its error and no bar.
        self.bar = self.bar or tqdm(total=self.total, desc="denoising", leave=False, dynamic_ncols=True)
        self.bar.update()
        if step.index in self.shown and 0 in step.rows:
            number = f"{step.index + 1:>{len(str(step.steps))}}"
            text = self._text(step.ids[step.rows.index(0)])
            tqdm.write(f"step {number}  t = {step.t:.3f}  {text}", file=self.out)

    def _text(self, ids: Tensor) -> str:
        """The words so far; an END that is not yet at its place does not cut them short."""
        marks = (self.tokenizer.start_id, self.tokenizer.end_id, self.tokenizer.pad_id)
        return self.tokenizer.decode(i for i in ids.tolist() if i not in marks)


def spread(count: int, steps: int) -> set[int]:
    """The indices of `count` of the steps, evenly spread; the last is among them."""
    return {round(steps - 1 - i * (steps - 1) / max(1, count - 1)) for i in range(count)}


def _write_json(generation: Generation, verdicts: Verdicts) -> None:
    for i, text in enumerate(generation.texts):
        controls = [{"control": name, "success": float(success[i])} for name, success in verdicts.items()]
        record = {
            "text": text,
            "words": generation.words[i],
            "controls": controls,
            "seed": generation.seed,
            "seconds": round(generation.seconds, 3),
        }
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_text(generation: Generation, verdicts: Verdicts) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for i, text in enumerate(generation.texts):
        console.print(Text(text))
        if verdicts:
            marks = (_mark(name, float(success[i])) for name, success in verdicts.items())
            console.print(Text("  ") + Text("  ").join(marks))
    summary = [f"{len(generation)} sentences in {generation.seconds:.1f} s with seed {generation.seed}"]
    summary += [f"{name}: {_in_all(success)}" for name, success in verdicts.items()]
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text("; ".join(summary), style="dim"))


def _mark(name: str, success: float) -> Text:
    if success in (0.0, 1.0):
        return Text(f"✓ {name}", style="green") if success else Text(f"✗ {name}", style="red")
    return Text(f"{_share(success)} {name}", style="yellow")


def _in_all(success: Tensor) -> str:
    """How many of the texts do what is wanted, or the mean where some do it in part."""
    if bool(((success == 0) | (success == 1)).all()):
        return f"{int(success.sum())} of {len(success)}"
    return f"{_share(float(success.mean()))} on average"


def _share(success: float) -> str:
    # Rounded down: what is not all of it is no 100 %.
    return f"{math.floor(100 * success)} %"
