"""How a baseline is kept: `config.json`, `tokenizer.json` and `model.safetensors` in a folder that needs no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from diffusion_lm.errors import UserError
from diffusion_lm.files import write_whole
from diffusion_lm.text.tokenizer import Tokenizer

M = TypeVar("M", bound=nn.Module)

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What a missing, foreign or damaged file leads to."""


def save_baseline(
    folder: str | Path, kind: str, config: Mapping[str, Any], model: nn.Module, tokenizer: Tokenizer
) -> None:
    """Write the three files into `folder`, made if need be; each is whole or as it was before.

    Args:
        folder: where to.
        kind: what it is; `load_baseline` refuses another.
        config: what the model is built from.
        model: its weights.
        tokenizer: of its language model.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        write_whole(folder / "model.safetensors", save(weights))
        tokenizer.save(folder)
        text = json.dumps({"kind": kind, **config}, indent=2, ensure_ascii=False)
        write_whole(folder / "config.json", text + "\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None


def load_baseline(
    folder: str | Path, kind: str, build: Callable[[dict[str, Any], Tokenizer], M], command: str
) -> M:
    """Read what `save_baseline` wrote, in evaluation mode and without gradients.

    Args:
        folder: where it is.
        kind: what it has to be.
        build: makes the model, without its weights, of its config and its tokenizer.
        command: makes such a folder, for errors.

    Raises:
        UserError: the folder is missing, is of another kind, or is damaged.
    """
    try:
        config: dict[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        if (found := config.pop("kind", None)) != kind:
            raise ValueError(f"its kind is {found}")
        model = build(config, Tokenizer.load(folder))
        model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    except DAMAGE as error:
        raise UserError(
            f"{folder} holds no {kind} ({error}); make one with: diffusion-lm {command}."
        ) from error
    return model.eval().requires_grad_(False)


def kind_of(folder: str | Path) -> str:
    """What a folder says that it holds.

    Raises:
        UserError: if it is no folder of a baseline.
    """
    try:
        return str(json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["kind"])
    except DAMAGE:
        raise UserError(
            f"{folder} is no folder of a baseline; make one with diffusion-lm train-baseline."
        ) from None
