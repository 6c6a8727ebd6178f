"""A full disk as one clear sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_lm.errors import UserError

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_TEXTS = ("No space left", *(f"os error {number}" for number in _NUMBERS))


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn an exception that comes from a full disk or a spent quota into a UserError.

    Args:
        folder: what was written to, for the message.

    Raises:
        UserError: in place of that exception; others pass.
    """
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # safetensors and TensorBoard wrap the operating system's error in one of their own
        full = getattr(error, "errno", None) in _NUMBERS or any(text in str(error) for text in _TEXTS)
        if not full:
            raise
        raise UserError(
            f"The disk is full and {folder} could not be written; earlier checkpoints are intact, so free "
            "some space and start the same command again."
        ) from None
