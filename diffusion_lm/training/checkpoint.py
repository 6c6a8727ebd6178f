"""Checkpoints for resuming: whole or not at all, verified when read, never pickled."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.store import Kind, load, save

logger = logging.getLogger(__name__)

KIND = Kind("checkpoint", "diffusion-lm train")
KEEP = 2  # checkpoints on disk


class Checkpoint(NamedTuple):
    """The training state after a step: tokens seen, all that the weights depend on, and tensors by part and name."""

    step: int
    tokens: int
    settings: dict[str, Any]
    parts: dict[str, dict[str, Tensor]]

    def save(self, folder: Path) -> Path:
        """Write `step-00001000/` under a folder so that it is there whole or not at all.

        Of the others the newest `KEEP` - 1 stay. Those of later steps go too: a run takes up its newest intact
        checkpoint, so they are damaged.

        Raises:
            UserError: the disk is full; earlier checkpoints stay, and no part of this one does.
        """
        final = folder / f"step-{self.step:08d}"
        for left_over in folder.glob(".step-*"):  # of a process that was killed
            shutil.rmtree(left_over)
        tensors = {f"{part}/{name}": tensor for part, of in self.parts.items() for name, tensor in of.items()}
        state = {"step": self.step, "tokens": self.tokens, "settings": self.settings}
        save(final, KIND, {**state, "sha256": _digest(tensors)}, tensors)
        earlier = sorted(path for path in folder.glob("step-*") if path < final)
        for path in set(folder.glob("step-*")) - {final, *earlier[1 - KEEP :]}:
            shutil.rmtree(path)
        return final

    @classmethod
    def latest(cls, folder: Path) -> Checkpoint | None:
        """The newest intact checkpoint under a folder, or None; damaged ones are reported and passed over."""
        paths = sorted(folder.glob("step-*"), reverse=True)
        for path in paths:
            try:
                return load(path, KIND, partial(cls._built, path))
            except UserError as error:
                logger.warning("Passing over the damaged checkpoint %s: %s", path, error)
        if paths:
            logger.warning("No checkpoint in %s is intact; training starts afresh.", folder)
        return None

    @classmethod
    def _built(cls, path: Path, state: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
        if state.pop("sha256") != _digest(tensors) or path.name != f"step-{state['step']:08d}":
            raise ValueError("its tensors or its step are not those that were written")
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = tensor
        return cls(**state, parts=parts)


def optimizer_tensors(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of optimisers, which share a model's parameters, as `parameter/key` tensors."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put a saved state back."""
    parameters = dict(model.named_parameters())
    owner = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        # The fused optimiser keeps the count of steps on the parameter's device too.
        # A copy, because the tensors of a checkpoint are maps of its files.
        owner[parameter].state[parameter][key] = value.to(parameter.device, copy=True)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
