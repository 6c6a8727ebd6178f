"""The tests run on the checkout; this one looks at what `pip install` would bring."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import diffusion_lm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "diffusion_lm"


def test_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr

    (wheel,) = tmp_path.glob(f"diffusion_lm-{diffusion_lm.__version__}-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {path.relative_to(ROOT).as_posix() for path in files} <= packed
    assert any(name.startswith("diffusion_lm/models/") and name.endswith(".safetensors") for name in packed)
