"""Files that only grow, a line at a time: what is written is on the disk, and one process writes at once."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unrecall.disk.files import unwritable
from unrecall.disk.locks import lock_within
from unrecall.errors import BadInput

PATIENCE = 60.0
"""How long another process may be writing, in seconds."""


class AppendOnlyFile:
    """An open, locked file: `whole`, its whole lines; `torn`, what stands after the last of them."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.whole, self.torn = split_torn(_bytes(number))

    def append(self, line: bytes) -> Path | None:
        """Writes a line and waits until it is on the disk; a torn line is first set aside, in the file that is given.

        BadInput, and the file as it was, where the disk refuses.
        """
        aside = self._set_aside() if self.torn else None
        size = len(self.whole)
        try:
            os.lseek(self.number, size, os.SEEK_SET)
            if os.write(self.number, line + b"\n") != len(line) + 1:
                raise OSError("the line did not fit")
            os.fsync(self.number)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.number, size)
            raise unwritable(self.path, error) from error
        self.whole += line + b"\n"
        return aside

    def _set_aside(self) -> Path:
        """Moves the torn line into a file of its own, which is on the disk before the line goes."""
        aside = self.path.with_name(f"{self.path.name}.torn-{hashlib.sha256(self.torn).hexdigest()[:8]}")
        try:
            with aside.open("wb") as file:
                file.write(self.torn)
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(self.number, len(self.whole))
        except OSError as error:
            raise unwritable(aside, error) from error
        self.torn = b""
        return aside


def split_torn(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines of a file, and what a killed process left of one after them."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


@contextmanager
def append_only(path: Path, patience: float = PATIENCE) -> Iterator[AppendOnlyFile]:
    """Opens a file to append to it, makes it where there is none, and keeps all others from writing meanwhile.

    BadInput where it can't be opened, or another process doesn't let go of it within `patience` seconds.
    """
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    try:
        if not lock_within(number, patience):
            raise BadInput(
                f"{path}: expected to write it alone, got another process that has been writing for "
                f"{patience:g} s. Try again once it is done."
            )
        if new:
            sync_folder(path.parent)
        yield AppendOnlyFile(path, number)
    finally:
        os.close(number)


def sync_folder(folder: Path) -> None:
    """Waits until the names of a folder are on the disk, where that can be waited for."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _bytes(number: int) -> bytes:
    """All that stands in an open file."""
    os.lseek(number, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(number, 2**20), b""))
