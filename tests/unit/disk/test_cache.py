"""What was computed once comes again under its own key, in memory and in files; a key holds the code that decides."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrecall.attacks.loss import Loss
from unrecall.data.signals import Signals
from unrecall.disk import cache as room
from unrecall.disk import files as storage
from unrecall.disk.cache import ARRAYS, JSON, Cache, cache_folder, code_key, model_form, shared
from unrecall.errors import BadInput
from unrecall.methods.mudman import MUDMAN
from unrecall.record.schema import Cost
from unrecall.spec.lines import parse
from unrecall.tasks import CausalLM, Classification
from unrecall.training.terms import Terms

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
    assert {"python", "torch", "numpy", "processor", "threads"} <= room.environment().keys()


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


def files_of(*owners: Any) -> set[str]:
    """The files of unrecall in the key of these owners, by their paths below the package."""
    kinds = [kind for owner in owners for kind in (owner if isinstance(owner, type) else type(owner)).__mro__]
    sources = {source for kind in kinds if (source := room._source(kind)) is not None}
    needed = {path for source in sources for path in room._needed(source)}
    return {str(path.relative_to(room.PACKAGE)) for path in needed if path.is_relative_to(room.PACKAGE)}


def test_the_key_of_an_attack_holds_what_it_imports_and_nothing_else() -> None:
    files = files_of(Loss)
    assert {"attacks/loss.py", "attacks/base.py", "data/signals.py", "tasks/base.py", "training/loop.py"} <= files
    beside = {f"attacks/{path.name}" for path in (room.PACKAGE / "attacks").glob("*.py")}
    assert files & beside == {"attacks/loss.py", "attacks/base.py"}
    assert not any(name.startswith(("methods/", "metrics/", "report/", "harness/", "cli/")) for name in files)


def test_the_key_of_a_task_holds_no_other_task() -> None:
    files = files_of(Classification)
    assert {"tasks/classification.py", "tasks/base.py", "tasks/pictures.py"} <= files
    assert not {"tasks/causal_lm.py", "tasks/contrastive.py", "tasks/__init__.py"} & files
    assert code_key(Classification) == code_key(Classification()) == code_key(Classification(head_name="x"))
    assert code_key(Classification) != code_key(CausalLM)
    assert code_key(Classification().rows) == code_key(Classification), "a method is its object's"


def test_a_function_s_key_stays_while_it_runs() -> None:
    def measured(rows: list[int]) -> str:
        return ", ".join(f"{row} of {len(rows)}" for row in rows)

    before, code = code_key(measured), measured.__code__
    held = [*code.co_consts, *code.co_names, code.co_code, code.co_linetable, code.co_exceptiontable]
    for _ in range(1000):
        measured([1, 2])
    assert code_key(measured) == before, f"though somebody holds {len(held)} of its parts"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package whose files may be edited; the key reads it in place of the installed one."""
    copied = tmp_path / "package" / "unrecall"
    shutil.copytree(room.PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(room, "PACKAGE", copied)
    source = room._source

    def moved(part: Any) -> Path | None:
        path = source(part)
        inside = path is not None and path.is_relative_to(ORIGINAL)
        return copied / path.relative_to(ORIGINAL) if inside and path is not None else path

    monkeypatch.setattr(room, "_source", moved)
    return copied


ORIGINAL = room.PACKAGE


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("attacks/loss.py", True),
        ("attacks/base.py", True),
        ("data/signals.py", True),
        ("nn/functional.py", True),
        ("attacks/rmia.py", False),
        ("attacks/__init__.py", False),
        ("methods/rurk.py", False),
        ("report/page.py", False),
    ],
)
def test_an_edited_file_changes_the_keys_that_it_decides(package: Path, file: str, decides: bool) -> None:
    before = code_key(Loss)
    forget_files()
    assert code_key(Loss) == before, "the same files give the same key"
    (package / file).write_text((package / file).read_text() + "\nEDITED = True\n")
    forget_files()
    assert (code_key(Loss) != before) == decides


def forget_files() -> None:
    """Lets the next key read all files again, as another process does."""
    room._READ.clear()


def test_a_file_counts_as_it_was_loaded_and_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is edited doesn't run before it is reloaded: under another key its values would be the new code's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    texts = {
        "edited_mine": "import edited_helper\n\n\nclass Mine:\n    def size(self):\n        return {}\n",
        "edited_helper": "SCALE = {}\n",
    }

    def write(name: str, number: int) -> None:
        (tmp_path / f"{name}.py").write_text(texts[name].format(number))

    for name in texts:
        write(name, 1)
    mine = importlib.import_module("edited_mine")
    for name in texts:
        first = code_key(mine.Mine)
        write(name, 2)
        assert code_key(mine.Mine) == first
        importlib.reload(sys.modules[name])
        assert code_key(mine.Mine) != first
        write(name, 1)
        importlib.reload(sys.modules[name])
        assert code_key(mine.Mine) == first


def test_a_class_from_before_a_reload_is_not_what_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from unrecall.methods.base import Method\n\n\nclass Kept(Method):\n"
    text += "    def unlearn(self, model, job):\n        return {}\n"
    (tmp_path / "reloaded_kept.py").write_text(text.format(1))
    module = importlib.import_module("reloaded_kept")
    kept, first = module.Kept, code_key(module.Kept)
    (tmp_path / "reloaded_kept.py").write_text(text.format(2))
    importlib.reload(module)
    assert len({first, code_key(kept), code_key(module.Kept)}) == 3


def test_a_file_that_is_not_loaded_counts_as_it_stands(tmp_path: Path) -> None:
    keys = []
    for number in (1, 2):
        (tmp_path / "own.py").write_text(f"import beside  # {number}")
        (tmp_path / "beside.py").write_text("SCALE = 1")
        keys.append(room.path_key(tmp_path / "own.py"))
    (tmp_path / "beside.py").write_text("SCALE = 10")
    assert len({*keys, room.path_key(tmp_path / "own.py")}) == 3


CASE = """
from dataclasses import dataclass
import unrecall.nn.functional as F
from unrecall.attacks import Loss
from unrecall.attacks.base import MembershipAttack

@dataclass(frozen=True)
class Mine(Loss):
    weight: float = {weight}
"""


def test_a_class_of_the_users_own_file_hangs_on_that_file(tmp_path: Path) -> None:
    keys = []
    for i, weight in enumerate((1.0, 2.0, 1.0)):
        path = tmp_path / f"{i}.py"
        path.write_text(CASE.format(weight=weight))
        kind = type(parse(f"{path}:Mine", "attacks"))
        assert room._source(kind) == path
        assert path in room._needed(path), "the file itself"
        assert room.PACKAGE / "nn" / "functional.py" in room._needed(path), "and what it imports, by any form"
        assert room.PACKAGE / "attacks" / "__init__.py" in room._needed(path)
        keys.append(code_key(kind))
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("home", ["nowhere", "__main__"])
def test_a_class_of_no_file_hangs_on_its_functions(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, where `__main__` has no file."""
    monkeypatch.setitem(sys.modules, home, types.ModuleType(home))

    def made(body: str) -> type:
        space: dict[str, Any] = {"__name__": home, "Loss": Loss}
        exec(f"class Mine(Loss):\n    def score(self, evidence, split):\n        return {body}\n", space)
        kind: type = space["Mine"]
        return kind

    assert room._source(made("1")) is None
    assert code_key(made("1")) == code_key(made("1"))
    assert len({code_key(made("1")), code_key(made("2")), code_key(Loss)}) == 3


def test_plain_values_have_no_code() -> None:
    assert code_key(1) == code_key("text") == code_key()


def test_a_dataclass_without_methods_hangs_on_its_file() -> None:
    @dataclass(frozen=True)
    class Here:
        value: int = 0

    assert code_key(Here) == code_key(Here(3)) != code_key(Signals)


def test_two_functions_of_one_file_have_keys_of_their_own() -> None:
    assert code_key(counted) == code_key(counted) != code_key(same)


def test_a_function_hangs_on_the_functions_that_it_closes_over() -> None:
    def around(inner: Callable[[int], int]) -> Callable[[int], int]:
        def outer(n: int) -> int:
            return inner(n) if n else outer(n + 1)  # closes over itself too

        return outer

    def first(n: int) -> int:
        return n

    def second(n: int) -> int:
        return n + 1

    def never(n: int) -> int:
        return missing(n) if n < 0 else n

    if bool(os.environ.get("NEVER")):
        missing = first

    def with_value(value: object) -> Callable[[], object]:
        return lambda: value

    assert code_key(never) == code_key(never), "a name without a value is passed over"
    assert code_key(around(first)) == code_key(around(first)) != code_key(around(second))
    assert code_key(with_value(1)) == code_key(with_value(1)) != code_key(with_value(3))
    assert code_key(with_value(MUDMAN())) == code_key(with_value(MUDMAN())) != code_key(with_value(MUDMAN(fork=3)))
    assert code_key(with_value(object())) == code_key(with_value(object())), "whose text is its address"
    assert code_key(Terms({"forget": first})) == code_key(Terms({"forget": first}))  # type: ignore[dict-item]
    assert code_key(Terms({"forget": first})) != code_key(Terms({"forget": second}))  # type: ignore[dict-item]


def test_the_key_of_a_users_file_holds_the_files_beside_it_that_it_imports(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import helper\n\n\nclass Mine:\n    pass\n")
    (tmp_path / "helper.py").write_text("SCALE = 1\n")
    needed = set(room._needed(tmp_path / "mine.py"))
    assert needed == {tmp_path / "mine.py", tmp_path / "helper.py"}


def test_the_key_of_a_users_file_holds_packages_relative_imports_and_what_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "mine.py": "import elsewhere\nfrom own.deep.first import thing\nimport own.other as o\nimport numpy, json\n",
        "own/__init__.py": "SCALE = 1\n",
        "own/other.py": "",
        "own/deep/__init__.py": "",
        "own/deep/first.py": "from . import second\nfrom ..up import x\nfrom own.side import y\n",
        "own/deep/second.py": "",
        "own/up.py": "",
        "own/side.py": "",
        "lib/elsewhere.py": "",
        "lib/site-packages/numpy.py": "",
        "own/unneeded.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in (tmp_path, tmp_path / "lib"):
        monkeypatch.syspath_prepend(str(folder))
    needed = {str(path.relative_to(tmp_path)) for path in room._needed(tmp_path / "mine.py")}
    assert needed == {*files} - {"lib/site-packages/numpy.py", "own/unneeded.py"}


def test_the_key_of_an_object_holds_the_files_that_its_parameters_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom unrecall.methods import Finetune\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Finetune):\n    where: str = 's.txt'\n    parts: tuple[str, ...] = ()\n"
    )
    lines = ("mine.py:Mine", "lora(mine.py:Mine)", "mine.py:Mine:parts=a+b", "pgu:stored=s.txt", "finetune")
    for name in ("a", "b", "s.txt", "sgd"):
        Path(name).write_text("1")
    keys = {line: code_key(parse(line, "methods")) for line in lines}

    def changed(name: str) -> set[str]:
        Path(name).write_text("2")
        forget_files()
        found = {line for line in lines if code_key(parse(line, "methods")) != keys[line]}
        Path(name).write_text("1")
        return found

    assert changed("s.txt") == {*lines} - {"finetune"}
    assert changed("b") == {"mine.py:Mine:parts=a+b"}
    assert changed("sgd") == set(), "a choice is no file"
    Path("mine.py").write_text(Path("mine.py").read_text() + "EDITED = True\n")
    forget_files()
    assert {line for line in lines if code_key(parse(line, "methods")) != keys[line]} == {
        line for line in lines if "mine" in line
    }


@dataclass(frozen=True)
class Directed:
    """What holds an array, of whose text the middle is left out."""

    w: Any = None


def test_the_key_of_an_object_holds_the_whole_of_its_arrays() -> None:
    plain, bent = torch.ones(2000), torch.ones(2000)
    bent[1000] = -3
    assert repr(Directed(plain)) == repr(Directed(bent))
    assert code_key(Directed(plain)) != code_key(Directed(bent))
    assert code_key(Directed(plain.numpy())) == code_key(Directed(plain))


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
