"""Files that are whole or absent: everything is written to a temporary name and renamed."""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unrecall.disk import locks
from unrecall.errors import BadInput

UNFINISHED = ".part"
"""How a file ends that was being written; one that is left over belongs to a process that was killed."""

BRIEF = 1.0
"""Seconds for which somebody else's work is waited for without a word."""


@contextmanager
def writing(path: Path, *, sealed: bool = False, private: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once the block ends well, and vanishes if it does not.

    It is locked for as long as the block lasts, so that `sweep` of another process leaves it alone. `sealed`: the name
    gets the start of the file's sha256 before its suffix, so that damage shows; `sealed_as` finds it again. `private`:
    for what holds people's data, or hangs on it: its owner alone may read it, and its folder where that is new.
    """
    try:
        str(path).encode()  # ValueError for a name that is no text, which not every library can write
        _make_folder(path.parent, private=private)
        if not path.is_file() and path.exists():
            raise OSError("something else than a file is there")
        temporary, lock = _temporary(path, private=private)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        temporary.replace(path.with_name(f"{path.stem}.{_seal(temporary)}{path.suffix}") if sealed else path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place once the block ends well; else as `writing`."""
    try:
        temporary, lock = _temporary(path, folder=True)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        discard(path)
        temporary.rename(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


@contextmanager
def held(path: Path, waits: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes out of their own blocks of this path, until the block ends or this process dies.

    `waits`: is told who holds it, as "process 123", where that lasts (`BRIEF`). Where there are no locks nobody waits.
    """
    if not locks.SUPPORTED:
        yield
        return
    lock = path.with_name(f".{path.name}{UNFINISHED}")
    while True:
        try:
            _make_folder(path.parent, private=True)
            number = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise unwritable(path, error) from error
        if not locks.lock_within(number, BRIEF):
            holder = os.pread(number, 20, 0).decode("ascii", "replace")
            waits(f"process {holder}" if holder.isdigit() else "another process")
            locks.wait_for_lock(number)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), lock.stat()):
                break
        os.close(number)  # its holder was done, and has taken it away
    try:
        os.pwrite(number, str(os.getpid()).encode(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(number)


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process until the block ends; BadInput where another process has it.

    Where there are no locks nobody is kept out.
    """
    if not locks.SUPPORTED:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        if locks.lock(number) is False:
            raise BadInput(
                f"{folder}: expected a folder that nobody else is writing to, got one that another process is. Wait "
                "until it is done, or choose another --out."
            )
        yield
    finally:
        os.close(number)


def check_writable(*paths: Path, private: bool = False) -> None:
    """BadInput where one of these files could not be written; nothing is changed. For before the work is done.

    `private`: as in `writing`.
    """

    class Done(Exception):
        pass

    for path in paths:
        with suppress(Done), writing(path, private=private):
            raise Done


def _make_folder(folder: Path, *, private: bool) -> None:
    """Makes a folder and those around it that are missing; the innermost for its owner alone where it is `private`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def _temporary(path: Path, *, folder: bool = False, private: bool = False) -> tuple[Path, int]:
    """An empty file or folder beside `path` whose name nobody else has, and the open descriptor that locks it.

    What killed processes left of earlier ones goes.
    """
    start = f".{path.name[:80]}."
    _remove_left(path.parent.glob(f"{glob.escape(start)}*{UNFINISHED}"))
    while True:
        if folder:
            name = tempfile.mkdtemp(UNFINISHED, start, path.parent)
            number = os.open(name if locks.SUPPORTED else os.devnull, os.O_RDONLY)  # Windows opens no folders
        else:
            number, name = tempfile.mkstemp(UNFINISHED, start, path.parent)
        if not private:
            Path(name).chmod((0o777 if folder else 0o666) & ~_umask())
        if locks.lock(number) is not False and Path(name).exists():
            return Path(name), number
        os.close(number)


def _umask() -> int:
    """What the user's files may not be by default; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder and below; what is being written stays."""
    _remove_left(folder.rglob(f".*{UNFINISHED}"))


def _remove_left(paths: Iterable[Path]) -> None:
    """Removes those of the unfinished files and folders that nobody is writing; none where there are no locks."""
    for path in list(paths):
        with suppress(OSError, BadInput):
            number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            try:
                if locks.lock(number):
                    discard(path)
            finally:
                os.close(number)


def _seal(path: Path) -> str:
    return file_key(path)[:16]


def sealed_as(path: Path) -> list[Path]:
    """The files that were written as `path`, with their seals in their names; the newest first."""
    written: dict[Path, int] = {}
    for file in path.parent.glob(f"{glob.escape(path.stem)}.{'[0-9a-f]' * 16}{glob.escape(path.suffix)}"):
        with suppress(OSError):  # another process of the same run has just taken it away, or it is a link to nothing
            written[file] = file.stat().st_mtime_ns
    return sorted(written, key=lambda file: written[file], reverse=True)


def intact(path: Path) -> bool:
    """Whether a sealed file is, byte for byte, as it was written; what is no file that can be read isn't.

    FileNotFoundError where nothing is there, since another process has taken it away.
    """
    try:
        return path.stem.rpartition(".")[2] == _seal(path)
    except FileNotFoundError:
        raise
    except OSError:
        return False


def discard(path: Path) -> None:
    """Removes a damaged file of our own, or whatever stands in its place."""
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> BadInput:
    """The one-line error for a disk that is full, a folder that is read-only, and the like."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return BadInput(f"{path}: expected to be able to write it, got: {reason}. Nothing was changed.")


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Writes `text` as UTF-8, all of it or nothing. `private`: as in `writing`."""
    with writing(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")


def exists(text: str) -> bool:
    """Whether a text is the path of a file or folder that is there; one that can be no path isn't."""
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long, or a character that no path has
        return False


def is_folder_of_files(path: Path) -> bool:
    """Whether it is a folder that people made, and not one that `datasets` wrote."""
    return path.is_dir() and not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def read_text(path: Path) -> str:
    """The text of a file that the user named; BadInput where it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, got other bytes at position {error.start}.") from error
    except OSError as error:
        raise BadInput(f"{path}: expected a readable file, got: {error.strerror}. Check the path.") from error


def file_key(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(*parts: str) -> str:
    """A short name for whatever the parts describe: the first 16 hex digits of their sha256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
