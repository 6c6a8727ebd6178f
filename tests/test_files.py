"""What is kept in folders."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.store import Kind, append_line, load, read_json, save, write_whole

KIND = Kind("table", "make table", format=2)


def both(config, tensors):
    return config, tensors


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_as_it_was_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "é\n")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"

    def fail(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "third")
    assert path.read_bytes() == b"second" and entries(tmp_path) == ["a.json"]


def test_a_line_is_one_record_of_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    append_line(path, {"name": "café"})
    append_line(path, {"note": "a\nb"})
    assert [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()] == [
        {"name": "café"},
        {"note": "a\nb"},
    ]
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(path, {"x": float("nan")})
    assert len(path.read_text(encoding="utf8").splitlines()) == 2


def test_a_folder_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "table"
    tensors = {"a": torch.arange(6.0).view(2, 3).T}
    save(folder, KIND, {"words": ["é"], "lm": "x"}, tensors, extra=lambda partial: write_whole(partial / "more", "m"))
    config, found = load(folder, KIND, both, "x")
    assert config == {"words": ["é"], "lm": "x"}
    assert torch.equal(found["a"], tensors["a"])
    assert entries(tmp_path) == ["config.json", "deep", "model.safetensors", "more", "table"]


def test_saving_over_a_folder_leaves_what_is_not_written_anew(tmp_path: Path) -> None:
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "old").touch()
    (tmp_path / "thesis.tex").write_text("years of work")

    def extra(partial: Path) -> None:
        (partial / "tags").mkdir()
        (partial / "tags" / "new").touch()

    for value in (0.0, 1.0):
        save(tmp_path, KIND, {}, {"a": torch.tensor(value)}, extra)
    assert load(tmp_path, KIND, both)[1]["a"] == 1
    assert entries(tmp_path) == ["config.json", "model.safetensors", "new", "tags", "thesis.tex"]


def test_a_folder_is_as_it_was_where_saving_fails(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    save(folder, KIND, {"n": 1}, {"a": torch.ones(1)})

    def fail(partial: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="The disk is full"):
        save(folder, KIND, {"n": 2}, {"a": torch.zeros(1)}, fail)
    config, tensors = load(folder, KIND, both)
    assert config == {"n": 1} and tensors["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written to"):
            save(place, KIND, {}, {})


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, r"holds no table; make one with: make table\."),
        ("config.json", b"{", "truncated or foreign"),
        ("config.json", b"\xff", "truncated or foreign"),
        ("config.json", b"[" * 100_000, "truncated or foreign"),
        ("config.json", b"[1]", "truncated or foreign"),
        ("config.json", b'{"kind": "parser", "format": 2}', "a parser"),
        ("config.json", b'{"format": 1, "lm": "x"}', "not of format 2; make it anew with: make table"),
        ("config.json", b'{"format": 2}', "'lm'"),
        ("config.json", b'{"format": 2, "lm": "y"}', "another language model"),
        ("model.safetensors", None, "truncated or foreign"),
        ("model.safetensors", b"short", "truncated or foreign"),
    ],
)
def test_a_folder_that_is_damaged_or_foreign_is_refused(
    tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    save(tmp_path, KIND, {"lm": "x"}, {"a": torch.ones(1)})
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        load(tmp_path, KIND, both, "x")


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json cannot be read \(No such file"):
        read_json(path)
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json is no JSON"):
            read_json(path)


def test_a_process_that_is_killed_leaves_no_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, KIND, {"n": 1}, {"a": torch.ones(1)})
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "config.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, KIND, {"n": 2}, {"a": torch.zeros(1)})
    with pytest.raises(UserError, match="holds no table"):
        load(tmp_path, KIND, both)
