from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.targets import AttributeTarget, read_attribute_targets

FIELDS = {"food": ["Thai", "Fast food"], "price": ["cheap", "£20-25"]}


def write(folder: Path, *lines: str) -> Path:
    path = folder / "targets.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_tokens_are_put_together_as_the_corpus_writes_them(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '["price", ":", "\\u00a3", "20", "-", "25"]',
        "",
        '["food", ":", "fast", "Food"]',
        '["priceRange", ":", "cheap"]',
    )
    assert read_attribute_targets(path, FIELDS) == [
        AttributeTarget("price", "£20-25"),
        AttributeTarget("food", "Fast food"),
        AttributeTarget("price", "cheap"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["food", ":"', "not JSON"),
        ('"food"', "not a list of strings"),
        ('["food", ":", 3]', "not a list of strings"),
        ('["food", "Thai"]', "not a field"),
        ('["food", ":"]', "not a field"),
        ('["colour", ":", "red"]', "no field 'colour'; the known fields are food, price"),
        ('["food", ":", "Klingon"]', "no value 'Klingon'; the known values are Thai, Fast food"),
        ('["food", ":", "thai"]', "repeats line 1"),
    ],
)
def test_a_bad_line_of_the_targets_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, '["food", ":", "Thai"]', line)
    with pytest.raises(UserError, match=f"Line 2 of .*{message}"):
        read_attribute_targets(path, FIELDS)


def test_a_file_without_targets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no target"):
        read_attribute_targets(write(tmp_path, ""), FIELDS)


def test_the_papers_targets_are_all_values_of_the_corpus(shared_data: Path) -> None:
    path = shared_data / "control_targets" / "attribute.jsonl"
    fields: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        tokens = json.loads(line)
        colon = tokens.index(":")
        fields.setdefault(" ".join(tokens[:colon]), []).append("".join(tokens[colon + 1 :]))
    assert len(read_attribute_targets(path, fields)) == 79
