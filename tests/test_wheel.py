"""The tests run on the checkout; this one looks at what `pip install` would bring."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from diffusion_lm.generation.pipeline import bundled_models, find_model

ROOT = Path(__file__).resolve().parents[1]

MODELS = {
    "e2e-paper": "diffusion_lm_e2e_paper",
    "e2e-teacher": "diffusion_lm_e2e_teacher",
    "roc-gaps": "diffusion_lm_roc_gaps",
}
"""Models that are packages of their own, each with a module of this name."""
LARGEST = 40e6
"""Bytes that a package index takes without being asked."""


@pytest.mark.parametrize(
    ("project", "package"),
    [(ROOT, "diffusion_lm"), *((ROOT / "packages" / name, package) for name, package in MODELS.items())],
)
def test_a_wheel_holds_every_file_of_its_package(project: Path, package: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    build = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr

    (wheel,) = tmp_path.glob(f"{package}-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (project / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {path.relative_to(project).as_posix() for path in files} <= packed
    assert any(name.endswith(".safetensors") for name in packed)
    assert wheel.stat().st_size < LARGEST


@pytest.mark.parametrize(("name", "package"), MODELS.items())
def test_a_model_of_another_package_is_found_by_its_entry_point(name: str, package: str) -> None:
    folder = find_model(name)
    assert folder == ROOT / "packages" / name / package and name in bundled_models()
    assert any((folder / "controls").glob("*/config.json"))


def test_every_package_of_a_model_is_tested() -> None:
    assert {path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml")} == set(MODELS)
