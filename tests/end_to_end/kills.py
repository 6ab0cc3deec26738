"""`kill -9` at random operations on files: the same command then ends with the same record, and leaves nothing else.

`python -m tests.end_to_end.kills [COUNT] [SEED]` prints what went wrong and exits with 1 where anything did. Each
try is a process of its own, which kills itself before an operation on a file; half of the time the file that is about
to get its name is cut in half first, as if it had been killed while it wrote.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.end_to_end.fuzz import called, standing
from tests.end_to_end.test_cli import CASE, FAST, METHOD, WHO
from tests.worlds import network
from unrecall.cli import app as cli
from unrecall.disk import weights
from unrecall.disk.files import UNFINISHED, intact
from unrecall.record.schema import load
from unrecall.training.session import Session

COMMANDS: dict[str, list[str]] = {
    "run": ["run", *WHO, "--method", METHOD, "--suite", FAST, "--out", "out"],
    "tuned": ["run", *WHO, "--method", METHOD, "--suite", "loss", "--tune", "--out", "out"],
    "unlearn": ["unlearn", *WHO, "--method", METHOD, "--out", "out"],
    "bench": ["bench", *WHO, "--suite", "rmia", "--methods", f"{METHOD} ssd", "--out", "out"],
    "audit": ["audit", *WHO, "--suite", FAST, "--unlearned", "theirs.safetensors", "--out", "out"],
}
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.rmtree", "open"}
"""The operations before which a process may be killed, as Python's audit hooks call them."""
KILL, CUT, COUNT = "UNRECALL_TEST_KILL_AT", "UNRECALL_TEST_CUT", "UNRECALL_TEST_COUNT"


def watch(home: Path) -> None:
    """Counts operations on files below `home`; before number $UNRECALL_TEST_KILL_AT, this process dies."""
    at, cut, counted = int(os.environ[KILL]), bool(os.environ.get(CUT)), os.environ.get(COUNT)
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event not in CHANGES or not isinstance(arguments[0], str | Path):
            return
        path = Path(arguments[0]) if Path(arguments[0]).is_absolute() else Path.cwd() / arguments[0]
        if not path.is_relative_to(home) or path.suffix in (".py", ".pyc"):
            return
        done += 1
        if counted:
            os.truncate(number, 0)
            os.pwrite(number, str(done).encode(), 0)
        if done == at:
            if cut and event == "os.rename":
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    number = os.open(counted, os.O_RDWR | os.O_CREAT) if counted else -1
    sys.addaudithook(hook)


def in_a_process(arguments: Sequence[str], home: Path, kill_at: int = 0, **more: str) -> int:
    """The exit code of a command in a child, minus the signal's number where one ended it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 70
    try:
        os.chdir(home / "work")
        os.environ |= {"UNRECALL_CACHE": str(home / "cache"), KILL: str(kill_at), **more}
        with (home / "told").open("w") as told, contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            watch(home)
            cli.main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        (home / "told").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def placed(home: Path) -> Path:
    """An empty home with a case of one's own, somebody's checkpoint, and an empty cache."""
    (home / "work").mkdir(parents=True)
    (home / "work" / "case.py").write_text(CASE)
    weights.save(network(seed=5), home / "work" / "theirs.safetensors")
    return home


class Whole(NamedTuple):
    """What a command leaves where nothing kills it, and how many operations on files that takes."""

    names: set[str]
    results: dict[str, Any]
    operations: int


def results(home: Path) -> dict[str, Any]:
    """All records by name, without clocks, and the digest of each checkpoint."""
    out = home / "work" / "out"
    found: dict[str, Any] = {str(path.relative_to(out)): load(path).comparable() for path in out.rglob("record.json")}
    checkpoints = out.rglob("unlearned.safetensors")
    return found | {str(path.relative_to(out)): weights.digest_of_file(path) for path in checkpoints}


def unsealed(home: Path) -> set[str]:
    """The names of all files without their seals, which hold how long a training took."""
    return {
        f"{path.parent.relative_to(home)}/{path.name.split('.')[0]}{path.suffix}"
        for path in home.rglob("*")
        if path.is_file() and path.name != "told"
    }


def whole(name: str, place: Path) -> Whole:
    """The command of that name, uninterrupted."""
    home, count = placed(place / f"{name}-whole"), place / "count"
    code = in_a_process(COMMANDS[name], home, **{COUNT: str(count)})
    assert code == 0, (home / "told").read_text()
    return Whole(unsealed(home), results(home), int(count.read_text()))


def faults(home: Path, expected: Whole) -> Iterator[str]:
    """All that is wrong with what a killed command and the same command again have left."""
    if (found := results(home)) != expected.results:
        yield f"other results: {[key for key in expected.results if found.get(key) != expected.results[key]]}"
    names = unsealed(home)
    yield from (f"orphan: {name}" for name in sorted(names - expected.names))
    yield from (f"missing: {name}" for name in sorted(expected.names - names))
    for path in (path for path in home.rglob("*") if path.is_file()):
        if path.name.endswith(UNFINISHED) or path.suffix == ".ckpt":
            yield f"orphan: {path.name}"
        sealed = len(path.stem.rpartition(".")[2]) == 16 and path.suffix != ".html"
        if sealed and not intact(path):
            yield f"damaged: {path.name}"
        if path.suffix == ".json":
            json.loads(path.read_text())


def tried(name: str, expected: Whole, rng: random.Random, home: Path) -> list[str]:
    """What went wrong when the command was killed once or twice and then called again."""
    placed(home)
    for _ in range(rng.choice((1, 1, 2))):
        cut = {CUT: "1"} if rng.random() < 0.5 else {}
        code = in_a_process(COMMANDS[name], home, rng.randint(1, expected.operations), **cut)
        if code not in (-signal.SIGKILL, 0):
            return [f"exit code {code} where it was killed: {(home / 'told').read_text()[-800:]}"]
    code = in_a_process(COMMANDS[name], home)
    wrong = [f"exit code {code}: {(home / 'told').read_text()[-1500:]}"] if code else list(faults(home, expected))
    if not wrong and (code := in_a_process(COMMANDS[name], home)):
        wrong = [f"exit code {code} the next time: {(home / 'told').read_text()[-1500:]}"]
    return wrong


@contextlib.contextmanager
def saving_always() -> Iterator[None]:
    """Every epoch leaves a state, whatever the clock says."""
    defaults = Session.__init__.__defaults__ or ()
    Session.__init__.__defaults__ = tuple(0.0 if value == 20.0 else value for value in defaults)
    try:
        yield
    finally:
        Session.__init__.__defaults__ = defaults


def warm_up(home: Path) -> None:
    """Runs a command here, so that each child finds loaded and parsed what it needs."""
    with standing(placed(home) / "work"):
        assert called(COMMANDS["run"]).code == 0


def main(arguments: list[str], say: Callable[[str], None] = print) -> int:
    """Kills that many commands, all kinds alike, and says what went wrong."""
    numbers = [int(word) for word in arguments]
    count, seed = (*numbers, *(100, 0)[len(numbers) :])
    bad = 0
    with tempfile.TemporaryDirectory() as folder, saving_always():
        place = Path(folder)
        names = list(COMMANDS)[:count]
        warm_up(place / "first")
        expected = {name: whole(name, place) for name in names}
        for i in range(count):
            name, home = names[i % len(names)], place / "try"
            wrong = tried(name, expected[name], random.Random(f"{seed} {i}"), home)
            bad += bool(wrong)
            for fault in wrong:
                say(f"{name}, kill {i}: {fault}")
            shutil.rmtree(home)
    say(f"{count} kills, after {bad} of which something was wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:], lambda line: print(line, flush=True)))
