"""Code that stands in no file, as in a notebook, has another key once anything of it or that it names differs."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrecall.disk import numbers
from unrecall.disk.code_key import code_key
from unrecall.disk.notebook_code import _say, is_loose
from unrecall.disk.numbers import numbers_in

HEAD = """
import functools
import numpy as np
import torch
from dataclasses import dataclass, field
from unrecall.attacks import Loss
from unrecall.methods import MUDMAN
from unrecall.methods.base import Method

unread = {n}
"""
ONE = "class Mine:\n    def run(self): return "
CELLS = {
    "a method": ONE + "{n}",
    "the unlearning of a method": "class Mine(Method):\n    def unlearn(self, model, job): return {n}",
    "a static method": ONE + "self.own()\n    @staticmethod\n    def own(): return {n}",
    "a class method": ONE + "self.own()\n    @classmethod\n    def own(cls): return {n}",
    "a property": ONE + "self.own\n    @property\n    def own(self): return {n}",
    "a cached property": ONE + "self.own\n    @functools.cached_property\n    def own(self): return {n}",
    "a cached method": ONE + "self.own()\n    @functools.cache\n    def own(self): return {n}",
    "a method without gradients": ONE + "self.own()\n    @torch.no_grad()\n    def own(self): return {n}",
    "an attribute": ONE + "self.own\n    own = {n}",
    "a list of attributes": ONE + "self.own\n    own = [1, {n}]",
    "a default": "class Mine:\n    def run(self, own={n}): return own",
    "a keyword's default": "class Mine:\n    def run(self, *, own={n}): return own",
    "a field": "@dataclass(frozen=True)\nclass Mine(Loss):\n    own: int = {n}",
    "a field that is made": "@dataclass\nclass Mine:\n    own: list = field(default_factory=lambda: [{n}])",
    "a base class": "class Base:\n    def run(self): return {n}\nclass Mine(Base): pass",
    "a function": "def own(): return {n}\n" + ONE + "own()",
    "a function of a function": "def own(): return {n}\ndef other(): return own()\n" + ONE + "other()",
    "functions that call each other": "def own(): return other()\ndef other(): return own() + {n}\n" + ONE + "own()",
    "a function inside": "def own(): return {n}\n" + ONE + "[own() for _ in range(3)]",
    "a cached function": "@functools.cache\ndef own(): return {n}\n" + ONE + "own()",
    "a function with an argument": "own = functools.partial(max, {n})\n" + ONE + "own(1)",
    "a class": "class Own:\n    def size(self): return {n}\n" + ONE + "Own().size()",
    "an object": "class Own:\n    def __init__(self): self.size = {n}\nown = Own()\n" + ONE + "own.size",
    "an object's code": "class Own:\n    def size(self): return {n}\nown = [Own()]\n" + ONE + "own[0].size()",
    "an object of unrecall": "own = MUDMAN(fork={n})\n" + ONE + "own",
    "a number": "own = {n}\n" + ONE + "own",
    "a set": "own = {'a', {n}}\n" + ONE + "own",
    "a set of sets": "own = [{frozenset(['a', {n}]), 'b'}]\n" + ONE + "own",
    "a kind of set": "class Own(set): pass\nown = Own()\nown.size = {n}\n" + ONE + "own",
    "code in a set": "class Own:\n    def size(self): return {n}\nown = {Own()}\n" + ONE + "own",
    "a mapping": "own = dict(a=[{n}])\n" + ONE + "own",
    "an array": "own = np.ones(3000)\nown[1500] = {n}\n" + ONE + "own",
    "an array of dates": "own = np.array([{n}, 2], dtype='M8[D]')\n" + ONE + "own",
    "an array of objects": "own = np.array([{n}, 'a'], dtype=object)\n" + ONE + "own",
    "a masked array": "own = np.ma.masked_equal([1, 2, 3], {n})\n" + ONE + "own",
    "an array's shape": "own = np.zeros(({n}, 2 // {n}))\n" + ONE + "own",
    "a table": "own = np.array([(1, {n})], dtype=[('a', 'i4'), ('b', 'f8')])\n" + ONE + "own",
    "a part of a tensor": "own = torch.arange(12).reshape(3, 4).T[::{n}]\n" + ONE + "own",
    "a conjugate": "own = torch.tensor([{n} + 1j]).conj()\n" + ONE + "own",
    "a single number": "own = [torch.tensor({n} > 1), np.array({n})]\n" + ONE + "own",
    "a large tensor": "own = torch.zeros(70, 2**20, dtype=torch.uint8)\nown[-1, -1] = {n}\n" + ONE + "own",
    "a large view": "own = np.zeros((2**18, 300), np.uint8).T[::-1]\nown[-1, -1] = {n}\n" + ONE + "own",
    "a tensor": "own = torch.full((2, 2), {n}, dtype=torch.bfloat16)\n" + ONE + "own",
    "weights": "own = torch.nn.Linear(1, 1, bias=False)\nown.weight.data.fill_({n})\n" + ONE + "own",
    "what is closed over": "def around(own):\n    def run(): return own\n    return run\nMine = around([{n}])",
}


@pytest.fixture(autouse=True)
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, `__main__` has no file."""
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))


def key(cell: str, n: int, unread: int = 0) -> str:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(HEAD.replace("{n}", str(unread)) + cell.replace("{n}", str(n)), "<cell>", "exec"), space)
    return code_key(space["Mine"])


@pytest.mark.parametrize("cell", CELLS)
def test_what_code_in_no_file_holds_and_names_is_in_its_key(cell: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is there that can't be told
        assert key(CELLS[cell], 1) == key(CELLS[cell], 1, unread=5) != key(CELLS[cell], 2)


@pytest.mark.parametrize(
    ("line", "name"),
    [("import beside", "beside"), ("from beside import own", "own"), ("import around.beside", "around")],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_it_imports_is_in_its_key(
    line: str, name: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "__init__.py").touch()
    cell = (
        f"class Mine:\n    def run(self):\n        {line}\n        return {name}" if inside else f"{line}\n{ONE}{name}"
    )
    keys = []
    for number in (1, 1, 2):
        for file in ("beside.py", "around/beside.py"):
            (tmp_path / file).write_text(f"def own(): return {number}")
        for module in ("beside", "around", "around.beside"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        keys.append(key(cell, 0))
    assert keys[0] == keys[1] != keys[2]


def test_what_can_not_be_told_is_never_taken_from_the_cache_and_is_said_once() -> None:
    cell = "own = (number for number in range(3))\n" + ONE + "next(own)"
    _say.cache_clear()
    with pytest.warns(
        UserWarning, match=r"Mine\.run: nothing that hangs on it is taken .* since own can't be told"
    ) as said:
        assert len({key(cell, 0) for _ in range(3)}) == 3
    assert len(said) == 1


def test_it_counts_wherever_it_is_run_again() -> None:
    """A cell's number, and the lines above it, say nothing."""
    keys = list[str]()
    for place in ("<cell 1>", "<cell 2>"):
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile("\n" * len(keys) + "def own(n):\n    return [n for _ in range(n)]", place, "exec"), space)
        keys.append(code_key(space["own"]))
    assert keys[0] == keys[1]


def run(code: str, **variables: str) -> str:
    """What another Python prints that is given its program as standard input."""
    known = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables
    made = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=True, env=known)
    return made.stdout


def test_code_from_standard_input_stands_in_no_file() -> None:
    """Although Python calls it the file <stdin>."""
    program = (
        "from unrecall.disk.code_key import code_key\nFACTOR = {n}\ndef helper(p): return p * FACTOR\n"
        "class Mine:\n    def run(self, p): return helper(p)\nprint(code_key(Mine))"
    )
    one, again, two = (run(program.replace("{n}", n)) for n in "112")
    assert one == again != two


@pytest.mark.parametrize("prompt", [False, True])
def test_a_cell_that_a_debugger_wrote_to_a_file_stands_in_none(
    prompt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    if not prompt:
        monkeypatch.delattr(sys, "ps1")
    keys = list[str]()
    for number in "112":
        space: dict[str, Any] = {"__name__": "__main__"}
        for name, cell in (("1.py", f"own = {number}"), ("2.py", "def run(): return own")):
            file = tmp_path / name
            file.write_text(cell)
            exec(compile(cell, str(file), "exec"), space)
        keys.append(code_key(space["run"]))
    assert keys[0] == keys[1] != keys[2]


def test_what_a_file_runs_by_exec_stands_in_none_but_what_is_generated_there_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "filed.py"
    file.write_text(
        "from dataclasses import dataclass\nexec('def text(): return 1')\ndef plain(): return 1\n"
        "@dataclass\nclass Own:\n    own: int = 1"
    )
    filed = types.ModuleType("filed")
    filed.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "filed", filed)
    exec(compile(file.read_text(), str(file), "exec"), vars(filed))
    assert is_loose(filed.text)
    assert not any(map(is_loose, (filed.plain, filed.Own, filed.Own.__init__, Path, os.path.join, code_key)))


def test_a_set_of_texts_has_one_key_in_all_processes() -> None:
    program = """
from dataclasses import dataclass, field
from unrecall.disk.code_key import code_key
WORDS = set("abcdefgh")
class Kind(frozenset): pass
@dataclass
class Own:
    words: list = field(default_factory=lambda: [WORDS, {"a": frozenset([frozenset("xyz"), "b"])}, Kind("abcdef")])
own = Own()
print([code_key(function) for function in (lambda: WORDS, lambda: own, lambda words=WORDS: words)])
"""
    assert run(program, PYTHONHASHSEED="1") == run(program, PYTHONHASHSEED="2")


def test_a_set_that_holds_itself_can_not_be_told() -> None:
    cell = "class Own: pass\nown = Own()\nown.all = {own}\n" + ONE + "own.all"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert key(cell, 0) != key(cell, 0)


def test_all_of_an_array_or_tensor_is_read_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        total = 0

        def __init__(self) -> None:
            self.state = hashlib.sha256()

        def update(self, data: Any) -> None:
            Counted.total += memoryview(data).nbytes
            self.state.update(data)

        def digest(self) -> bytes:
            return self.state.digest()

    monkeypatch.setattr(numbers, "hashlib", types.SimpleNamespace(sha256=Counted))
    array = np.ones((48, 2**20), np.uint8)
    for value in (array, array.T, array[::-1], torch.from_numpy(array), torch.from_numpy(array).T):
        Counted.total = 0
        tracemalloc.start()
        before = numbers_in(value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert Counted.total == array.nbytes
        assert peak < 32 * 2**20
        array[17, 17] += 1
        assert numbers_in(value) != before, "one number of 50 million"


def test_the_file_of_a_mapped_array_counts_by_its_time(tmp_path: Path) -> None:
    file = tmp_path / "own.npy"
    np.lib.format.open_memmap(file, "w+", np.uint8, (64,)).flush()
    keys = list[tuple[str, str]]()
    for time in (1, 1, 2):
        os.utime(file, (time, time))
        mapped = np.load(str(file) if time == 1 else file, mmap_mode="r")
        keys.append((repr(numbers_in(mapped)), repr(numbers_in(np.asarray(mapped)))))
    assert keys[0] == keys[1]
    assert set(keys[0]).isdisjoint(keys[2])


def test_each_part_of_a_mapped_array_is_another_and_what_can_be_written_to_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.npy"
    np.lib.format.open_memmap(file, "w+", np.uint8, (8, 8)).flush()
    mapped = np.load(file, mmap_mode="r")
    parts = (mapped[:4], mapped[4:], mapped[1:5], mapped[::2], mapped[:4].T, mapped[4:][1:], np.asarray(mapped[:4]))
    assert len({repr(numbers_in(part)) for part in parts}) == len(parts)
    assert numbers_in(mapped[2:][2:]) == numbers_in(mapped[4:])
    for mode in ("r+", "c"):
        written = np.load(file, mmap_mode=mode)
        before = numbers_in(written)
        written[0, 0] += 1
        assert numbers_in(written) != before


def test_an_installed_package_is_not_walked_and_ones_own_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = list[Path]()
    rglob = Path.rglob

    def walk(folder: Path, pattern: str) -> Iterator[Path]:
        walked.append(folder)
        return rglob(folder, pattern)

    monkeypatch.setattr(Path, "rglob", walk)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "around", raising=False)
    for _ in range(2):
        key("import around\n" + ONE + "torch, np, around", 0)
    assert walked == [tmp_path / "around"]
