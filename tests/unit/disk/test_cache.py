"""What was computed once comes again under its own key, in memory and in files."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrecall.disk import files as storage
from unrecall.disk.cache import ARRAYS, JSON, Cache, cache_folder, environment, model_form, shared
from unrecall.errors import BadInput
from unrecall.record.schema import Cost

COST = Cost(seconds=1.5, passes=3, steps=2, peak_mib=0.0)
VALUES = {
    "arrays": (ARRAYS, {"a": np.arange(3.0), "b": np.array(["x", "y"])}),
    "json": (JSON, {"texts": ["ä", "\n"], "number": 0.1}),
    "model": (model_form(Cost), COST),
}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)
    return bool(first == second)


def counted(value: Any) -> tuple[Callable[[], Any], list[int]]:
    """What gives the value, and a list that grows each time it is asked."""
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return value

    return compute, calls


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_second_time_nothing_is_computed(name: str, on_disk: bool, tmp_path: Path) -> None:
    form, value = VALUES[name]
    cache = Cache(tmp_path if on_disk else None)
    compute, calls = counted(value)
    for _ in range(3):
        assert same(cache.get("what", ("a", "b"), form, compute), value)
    assert len(calls) == 1
    files = [path.name for path in tmp_path.iterdir()]
    assert len(files) == on_disk
    assert all(name.startswith("what-") and name.endswith(form.suffix) for name in files)


def test_what_another_is_computing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BRIEF", 0.01)
    begun, go_on, told, values = threading.Event(), threading.Event(), list[str](), list[Any]()

    def compute() -> str:
        begun.set()
        go_on.wait(10)
        return "value"

    def waits(line: str) -> None:
        told.append(line)
        go_on.set()

    def get() -> None:
        values.append(Cache(tmp_path).get("model", ("key",), JSON, compute))

    first = threading.Thread(target=get)
    first.start()
    begun.wait(10)
    second, calls = counted("another")
    values.append(Cache(tmp_path, say=waits).get("model", ("key",), JSON, second))
    first.join()
    assert (values, calls) == (["value"] * 2, [])
    assert told == [f"model: waits for process {os.getpid()}, which is making it"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_what_a_killed_process_was_computing_is_not_waited_for(tmp_path: Path) -> None:
    killed = "import os, signal, sys; from pathlib import Path; from unrecall.disk.files import held\n"
    killed += f"with held(Path({str(tmp_path)!r}) / 'value', print): os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    told: list[str] = []
    with storage.held(tmp_path / "value", told.append):
        assert told == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_name_and_each_part_of_the_key_decide(on_disk: bool, tmp_path: Path) -> None:
    cache = Cache(tmp_path if on_disk else None)
    compute, calls = counted([1])
    keys = [("what", ("a", "b")), ("what", ("a", "c")), ("what", ("ab",)), ("what", ("b", "a")), ("other", ("a", "b"))]
    for what, key in [*keys, *keys]:
        cache.get(what, key, JSON, compute)
    assert len(calls) == len(keys)


def test_files_outlive_a_cache_and_memory_does_not(tmp_path: Path) -> None:
    for folder, expected in ((tmp_path, 1), (None, 2)):
        compute, calls = counted([1])
        for cache in (Cache(folder), Cache(folder)):
            cache.get("what", ("a",), JSON, compute)
        assert len(calls) == expected


def test_the_folder_that_all_runs_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "here"))
    assert shared(on_disk=True).folder == cache_folder() == tmp_path / "here"
    assert shared(on_disk=False).folder is None
    monkeypatch.delenv("UNRECALL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "unrecall"


def test_nothing_is_left_of_a_value_that_could_not_be_computed(tmp_path: Path) -> None:
    def fail() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get("what", ("a",), JSON, fail)
    assert not list(tmp_path.iterdir())
    assert Cache(tmp_path).get("what", ("a",), JSON, lambda: [2]) == [2]


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"hello"])
def test_a_damaged_file_is_named_and_made_anew(name: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    form, value = VALUES[name]
    cache = Cache(tmp_path)
    cache.get("what", ("a",), form, lambda: value)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"{path.name}: damaged, so it is made anew"):
        assert same(cache.get("what", ("a",), form, lambda: value), value)
    assert same(cache.get("what", ("a",), form, lambda: 1 / 0), value), "and kept"


def test_a_warning_shows_what_would_steer_a_terminal(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a\x1b[31m")
    cache.get("what", ("a",), JSON, lambda: 1)
    next((tmp_path / "a\x1b[31m").iterdir()).write_text("x")
    with pytest.warns(UserWarning, match=r"a<U\+001B>\[31m.*damaged"):
        cache.get("what", ("a",), JSON, lambda: 1)


def test_one_turned_bit_is_noticed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get("what", ("a",), ARRAYS, lambda: {"a": np.zeros(100)})
    path = next(tmp_path.glob("*.npz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=path.name):
        assert same(cache.get("what", ("a",), ARRAYS, lambda: {"a": np.ones(100)}), {"a": np.ones(100)})


def test_the_environment_is_part_of_every_key(tmp_path: Path) -> None:
    cache, threads = Cache(tmp_path), torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert cache.get("what", ("a",), JSON, lambda number=number: number) == number  # type: ignore[misc]
    finally:
        torch.set_num_threads(threads)
    assert {"python", "torch", "numpy", "processor", "threads"} <= environment().keys()


def test_what_can_not_be_written_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="expected to be able to write it"):
        Cache(tmp_path / "file").get("what", ("a",), JSON, lambda: 1 / 0)


def test_a_pickle_among_the_arrays_is_not_opened(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get("what", ("a",), ARRAYS, lambda: {"a": np.zeros(1)})
    path = next(tmp_path.glob("*.npz"))
    np.savez(path, a=np.array([{}], dtype=object))
    path.rename(path.with_name(f"{path.name[:-21]}.{storage._seal(path)}.npz"))
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get("what", ("a",), ARRAYS, lambda: {"a": np.ones(1)})["a"][0] == 1


# Which code is in a key.


def test_clearing_takes_the_values_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("first", "second-original"):
        cache.get(name, ("key",), JSON, lambda: [1, 2])
    mine = tmp_path / "cache" / "mine-0123456789abcdef.json"
    mine.write_text("{}")
    assert len(cache.files()) == 2
    assert mine not in cache.files()
    cache.clear()
    assert list((tmp_path / "cache").iterdir()) == [mine]
    mine.unlink()
    cache.clear()
    assert not (tmp_path / "cache").exists()
    cache.clear()
    assert cache.files() == Cache().files() == []
