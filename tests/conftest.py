"""Makes every test repeatable and hermetic: fixed seeds, one thread, no network, no cache of the user's."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# One thread: results do not depend on the number of cores, and tiny tensors are faster for it.
# The variables reach the processes that tests start; the call sets this one.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

# No deadline, since a busy machine is not a wrong result; the same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# Set while conftest.py is imported: the Hugging Face libraries read it once, when a test first imports them.
_CACHE = Path(tempfile.mkdtemp(prefix="diffusion-lm-tests-"))
os.environ["HF_HOME"] = str(_CACHE)


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora that stands beside the checkout on a developer's machine."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real corpora are not beside this checkout")
    return folder
