"""A key of code: what decides the results of classes and functions, and nothing else."""

import importlib
import os
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from unrecall.attacks.loss import Loss
from unrecall.data.signals import Signals
from unrecall.disk import code_key as room
from unrecall.disk.code_key import code_key
from unrecall.methods.mudman import MUDMAN
from unrecall.spec.lines import parse
from unrecall.tasks import CausalLM, Classification
from unrecall.training.terms import Terms


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
    assert code_key(files_of) == code_key(files_of) != code_key(forget_files)


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
