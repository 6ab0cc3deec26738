"""A file that grows: torn lines are set aside, a full disk changes nothing, two writers wait for each other."""

import errno
import os
from pathlib import Path

import pytest

from unrecall.disk.append_only import append_only, split_torn
from unrecall.errors import BadInput


def test_lines_are_appended_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file"
    with append_only(path) as file:
        assert (file.whole, file.torn) == (b"", b"")
        assert file.append(b"one") is None
    with append_only(path) as file:
        assert file.whole == b"one\n"
        file.append(b"two")
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_line_torn_anywhere_is_set_aside(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first\nsecond\n"[:-cut])
    with append_only(path) as file:
        aside = file.append(b"third")
    torn = b"second\n"[:-cut]
    assert path.read_bytes() == b"first\nthird\n"
    assert (aside.read_bytes() if aside else b"") == torn
    assert sorted(tmp_path.iterdir()) == sorted([path, *([aside] if aside else [])])


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first\n")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with append_only(path) as file, pytest.raises(BadInput, match=r"file: .* No space left on device"):
        file.append(b"second")
    assert path.read_bytes() == b"first\n"


def test_another_writer_waits_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        append_only(path),
        pytest.raises(BadInput, match="another process that has been writing"),
        append_only(path, 0.05),
    ):
        pass
    with append_only(path) as file:
        file.append(b"free again")


def test_what_can_not_be_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected to be able to write it"), append_only(tmp_path):
        pass


def test_split_torn() -> None:
    assert split_torn(b"a\nb") == (b"a\n", b"b")
    assert split_torn(b"a\n") == (b"a\n", b"")
    assert split_torn(b"a") == (b"", b"a")
