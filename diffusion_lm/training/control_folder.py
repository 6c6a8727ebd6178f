"""Where what a control has learned is put: whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)


class Savable(Protocol):
    """Anything that writes itself into a folder."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""


def save_control(part: Savable, out: Path) -> None:
    """Put a control's folder in its place whole; what stood there before goes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    part.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    logger.info("Saved in %s.", out)
