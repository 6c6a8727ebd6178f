from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_lm.store import write_whole


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
    assert path.read_bytes() == b"second" and [each.name for each in tmp_path.iterdir()] == ["a.json"]
