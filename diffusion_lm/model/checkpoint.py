"""A model on disk: config.json, tokenizer.json, model.safetensors (the averaged weights), controls/, README.md."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.errors import UserError
from diffusion_lm.model.config import ModelConfig
from diffusion_lm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
BUNDLED = Path(__file__).resolve().parents[1] / "models"


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def find_model(name: str | Path) -> Path:
    """The folder of a bundled model, a folder, or a hub id.

    Raises:
        UserError: if there is no such model.
    """
    if (BUNDLED / str(name) / CONFIG).exists():
        return BUNDLED / str(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        for candidate in (folder, folder / "model"):  # a training run keeps its model in a folder of its own
            if (candidate / CONFIG).exists():
                return candidate
        raise UserError(
            f"{folder} is not a model: it has no {CONFIG}; the bundled models are {bundled_models()}."
        )
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_hub(str(name))
    raise UserError(
        f"There is no model {str(name)!r}; the bundled ones are {bundled_models()}, else give a folder."
    )


def _from_hub(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.md"]  # nothing that could be a pickle
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{repo} is neither a folder nor a model that the hub gives ({reason}).") from None


def save_lm(lm: DiffusionLM, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's three files; counts of lengths keep their digits whatever the dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(lm.named_parameters())
    tensors = {k: (v.to(dtype) if k in parameters else v).contiguous() for k, v in lm.state_dict().items()}
    partial = folder / f".{WEIGHTS}.partial"
    save_file(tensors, partial)
    lm.tokenizer.save(folder)
    config = folder / f".{CONFIG}.partial"
    config.write_text(json.dumps({"format": FORMAT, "model": asdict(lm.config)}, indent=2) + "\n")
    partial.replace(folder / WEIGHTS)
    config.replace(folder / CONFIG)


def read_lm(folder: Path) -> tuple[ModelConfig, Tokenizer, dict[str, Tensor]]:
    """The three files of a model.

    Raises:
        UserError: if one is missing, truncated or foreign.
    """
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        settings = values["model"]
        if values["format"] != FORMAT:
            raise UserError(
                f"{folder} has format {values['format']}; this version of the package reads {FORMAT}."
            )
        unknown = set(settings) - {f.name for f in fields(ModelConfig)}
        if unknown:
            raise UserError(
                f"{folder / CONFIG} has settings that this version does not know: {', '.join(unknown)}."
            )
        config = ModelConfig(**settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder} is not a model of this package: its {CONFIG} is damaged or foreign."
        ) from None
    tokenizer = Tokenizer.load(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS} is missing; copy the whole folder of the model.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} is truncated or damaged ({error}).") from None
    if "length_counts" not in tensors:
        raise UserError(f"{folder / WEIGHTS} belongs to another kind of model.")
    return config, tokenizer, tensors


def fill(lm: DiffusionLM, tensors: dict[str, Tensor], folder: Path) -> None:
    """Put the weights into a model, in float32.

    Raises:
        UserError: if they do not fit its config.
    """
    try:
        lm.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise UserError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
        ) from None
