"""The text files of a folder or a zip archive, read line by line; what is broken in them is a `UserError`."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from diffusion_lm.errors import UserError


class TextFiles(ABC):
    """Named text files that lie together."""

    def __init__(self, path: Path) -> None:
        """Remember where the files are."""
        self.path = path

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def _open(self, name: str) -> IO[bytes]:
        """Open a file for reading bytes."""

    def lines(self, name: str) -> Iterator[str]:
        r"""The lines of a file, line ends kept; bytes that are not UTF-8 become lone surrogates.

        Raises:
            UserError: While reading, if the file is binary or damaged, or cannot be opened.
        """
        with self._reading(name), self._open_text(name) as file:
            for line in file:
                if "\0" in line:
                    raise UserError(f"{self.path / name} is a binary or UTF-16 file; give UTF-8 text.")
                yield line

    def content_hash(self, name: str) -> str:
        """A hash of a file's bytes.

        Raises:
            UserError: If the file is damaged or cannot be opened.
        """
        with self._reading(name), self._open(name) as file:
            digest = hashlib.blake2b(digest_size=16)
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def _open_text(self, name: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._open(name), "utf-8-sig", errors="surrogateescape", newline="")

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{name} in {self.path} is damaged ({error}); fetch it again.") from error
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{self.path / name} cannot be read: {error}.") from error


class FolderFiles(TextFiles):
    """The files of a folder."""

    def has(self, name: str) -> bool:
        """Whether the folder has a file of this name."""
        return (self.path / name).is_file()

    def _open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class ZipFiles(TextFiles):
    """The files of a zip archive, in whichever of its folders they are."""

    def __init__(self, path: Path) -> None:
        """Read the archive's directory.

        Raises:
            UserError: If the file is no complete zip archive.
        """
        super().__init__(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is not a complete zip archive ({error}); fetch it again.") from error
        # macOS adds a folder of attributes that repeats every name; the shallowest of equal names counts.
        members = [member for member in members if member.parts[0] != "__MACOSX"]
        members.sort(key=lambda member: len(member.parts), reverse=True)
        self._members = {member.name: str(member) for member in members}

    def has(self, name: str) -> bool:
        """Whether the archive has a file of this name."""
        return name in self._members

    def _open(self, name: str) -> IO[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            try:
                # The member keeps the underlying file open after the archive object is closed.
                return archive.open(self._members[name])
            except RuntimeError as error:
                message = f"{name} in {self.path} is encrypted; give an archive without a password."
                raise UserError(message) from error
