"""Files are whole or absent, and opening one never runs code."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unrecall.disk import files as storage
from unrecall.disk.files import sweep, write_text, writing, writing_folder
from unrecall.disk.json_files import write_json
from unrecall.errors import BadInput


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_while_writing_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(BadInput if error is OSError else error), writing(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_what_is_written_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "b.txt").stat().st_mode)


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BadInput, match=r"a\.json: expected to be able to write it, got: No space left.*Nothing was ch"):
        write_json(path, {"b": 2})
    assert list(contents(tmp_path)) == ["a.json"]
    assert "ä" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["weights.save(model, path)", "saved.keep(Progress(model, optimizer, optimizer, g))"])
def test_a_really_full_disk(what: str, tmp_path: Path) -> None:
    """The limit on file sizes makes writes fail as a full disk does, inside safetensors and torch too."""
    script = f"""
import resource, torch
from pathlib import Path
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.training.resume import Progress, Saved
from unrecall.training.session import Session
path = Path({str(tmp_path / "a.safetensors")!r})
model, g = torch.nn.Linear(100, 100), torch.Generator()
optimizer = torch.optim.SGD(model.parameters())
saved = Saved(Session(folder=path.parent, every=0, device="cpu"), "key")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    {what}
except BadInput as error:
    assert "expected to be able to write it, got:" in str(error), error
    assert not list(path.parent.glob("*")), list(path.parent.glob("*"))
    print("one clear error")
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "one clear error\n", done.stderr


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", Path("/proc/nothing/here"), tmp_path / ("n" * 300)):
        with pytest.raises(BadInput, match="expected to be able to write it"):
            write_text(path, "y")
    assert contents(tmp_path) == {"file": b"x"}


def test_unreadable_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"ab\xff")
    with pytest.raises(BadInput, match="got other bytes at position 2"):
        storage.read_text(tmp_path / "binary")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput, match="expected a readable file, got: "):
            storage.read_text(path)


def test_keys_are_of_content() -> None:
    assert storage.content_key("a", "b") == storage.content_key("a", "b")
    assert len({storage.content_key(*parts) for parts in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"))}) == 4


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "whole") as alive:
        orphan = tmp_path / "a" / ".lost.x1.part"
        orphan.write_text("half")
        sweep(tmp_path)
        assert alive.exists()
        assert not orphan.exists()
    assert (tmp_path / "a" / "whole").exists()


def test_a_folder_is_whole_or_absent_and_what_a_killed_process_left_of_it_goes(tmp_path: Path) -> None:
    left = tmp_path / ".model.x1.part"
    left.mkdir()
    (left / "half").write_text("x")
    (tmp_path / "model").mkdir()
    write_text(tmp_path / "model" / "old", "x")
    with writing_folder(tmp_path / "model") as first, writing_folder(tmp_path / "model") as second:
        assert first != second
        assert not left.exists()
        sweep(tmp_path)
        write_text(first / "new", "1")
        write_text(second / "new", "2")
    assert contents(tmp_path) == {"model/new": b"1"}
    mode = stat.S_IMODE((tmp_path / "model").stat().st_mode)
    (tmp_path / "other").mkdir()
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    with pytest.raises(RuntimeError), writing_folder(tmp_path / "model") as third:
        write_text(third / "new", "half")
        raise RuntimeError
    assert contents(tmp_path) == {"model/new": b"1"}
    left.mkdir()
    sweep(tmp_path)
    assert not left.exists()


def test_a_disk_without_locks_is_written_to_and_nothing_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", unsupported)
    (tmp_path / ".a.txt.x1.part").write_text("of somebody")
    write_text(tmp_path / "a.txt", "whole")
    sweep(tmp_path)
    assert contents(tmp_path) == {"a.txt": b"whole", ".a.txt.x1.part": b"of somebody"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with writing(tmp_path / "file") as first, writing(tmp_path / "file") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_was_being_written_when_its_writer_was_killed_goes_with_the_next_writing(tmp_path: Path) -> None:
    (tmp_path / ".page.html.x1.part").write_text("half")
    (tmp_path / ".other.html.x1.part").write_text("half of another")
    write_text(tmp_path / "page.html", "whole")
    assert contents(tmp_path) == {"page.html": b"whole", ".other.html.x1.part": b"half of another"}


def test_a_private_file_is_its_owners_alone_and_so_is_its_new_folder(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    write_text(tmp_path / "a" / "b" / "secret.json", "{}", private=True)
    assert mode(tmp_path / "a" / "b" / "secret.json") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700
    write_text(tmp_path / "a" / "b" / "page.html", "")
    assert mode(tmp_path / "a" / "b" / "page.html") & 0o600 == 0o600
    assert mode(tmp_path / "a" / "b" / "page.html") != 0o600
