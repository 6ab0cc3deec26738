"""Bad input by the thousand, from one seed: each ends in one line and leaves nothing behind, or turns out to be fine.

`python -m tests.end_to_end.fuzz [COUNT] [SEED] [KIND ...]` prints what went wrong and exits with 1 where anything did.
"""

import contextlib
import io
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from tests.end_to_end.test_cli import CASE
from tests.worlds import facts, network, small_llama, word_tokenizer
from unrecall.cli import app as cli
from unrecall.disk import weights
from unrecall.disk.files import UNFINISHED
from unrecall.record.schema import load
from unrecall.training.session import Session

WHO = ["--scenario", "case.py:make", "--device", "cpu"]
FINETUNE = ["--method", "finetune:epochs=1"]
RUN = ["run", *WHO, *FINETUNE, "--suite", "loss", "--out", "out"]
NEW = ["run", *WHO, *FINETUNE, "--suite", "loss", "--out", "new"]
TOLD = re.compile(r": done in|^(un|null|attack|tun|not given|  )|has no strength to tune|^interrupted: ")
"""What is said on the way, before any error."""
NASTY = (
    "", " ", "-1", "0", "1.5", "nan", "-nan", "inf", "-inf", "1e400", "None", "null", "true", "[]", "{}", "{0}", "%s",
    "\x1b[31m", "\u202e", "a" * 5000, "9" * 5000, "../../../evil", "/dev/null", "/", ".", "\udcff", "\n", "\t", "é",
    "=", ":", ",", "(", ")", "+", "class:", "share:", "half:99", "case.py", "case.py:", "case.py:make", "rurk(rurk)",
)  # fmt: skip
METHODS = (
    "rurk:tau=0.05,epochs=1", "scrub:epochs=1", "salun:epochs=1", "spotter(salun):epochs=1", "ssd", "neggrad_plus:lr=0.01,epochs=1",
    "retrain:epochs=1", "eu_k:blocks=1,epochs=1", "lora(finetune):r=4", "roka", "grad_ascent:epochs=1,batchnorm=frozen",
    "case.py:make", "delete:epochs=1", "task_vector:epochs=1", "finetune:epochs=1,lr=0.1,optimizer=adamw,schedule=cosine",
)  # fmt: skip
SUITES = (
    "loss",
    "rmia:gamma=1",
    "loss rmia",
    "svc",
    "recalibration:counts=16",
    "quick",
    "standard",
    "all",
    "lira",
    "case.py:make",
)
SCENARIOS = (
    "digits:train=60,epochs=1,references=0", "digits:forget=idx.txt,train=60,epochs=1,references=0", "cifar10:data=.",
    "digits:forget=class:3,train=60,epochs=1,references=0", "digits:forget=half:3,train=60,epochs=1,references=0",
    "texts:model=lm,forget=f.jsonl,retain=r.jsonl", "tofu:data=.", "emoji:data=.", "pairs:model=lm,forget=f.jsonl",
    "small-cifar5:data=.,weights=bad.safetensors,arch=resnet20", "case.py:make", "case.py:DATA", "tinystories:data=.",
    "knowundo:data=.", "restor:data=.", "llama2c:data=.", "clip-backdoor:data=.", "cifar10-indirect:data=.",
)  # fmt: skip


def same(text: str, rng: random.Random) -> str:
    """The text as it is."""
    return text


def characters(text: str, rng: random.Random) -> str:
    """Some characters left out, doubled, or put in."""
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(text) + 1)
        text = rng.choice((text[:i] + text[i + 1 :], text[:i] + rng.choice(NASTY) + text[i:], text[:i] + text[i - 1 :]))
    return text


def values(text: str, rng: random.Random) -> str:
    """A value, or a whole parameter, that is not what it should be."""
    parts = re.split(r"(?<=[=:,+ ])", text)
    parts[rng.randrange(len(parts))] = rng.choice(NASTY) + rng.choice(("", ",", "=", ":"))
    return "".join(parts)


def spoiled(text: str, rng: random.Random) -> str:
    return rng.choice((characters, values))(text, rng)


def spec_lines(rng: random.Random, folder: Path) -> list[str]:
    """Lines that name methods, suites, scenarios, and the other options of all commands."""
    (folder / "idx.txt").write_text("\n".join(str(i) for i in range(12)))
    which = rng.choice(("method", "suite", "scenario", "option"))
    lines = {"method": FINETUNE[1], "suite": "loss", "scenario": "case.py:make"}
    if which != "option":
        lines[which] = spoiled(rng.choice({"method": METHODS, "suite": SUITES, "scenario": SCENARIOS}[which]), rng)
    command = rng.choice(("run", "bench", "unlearn", "audit"))
    words = [command, "--scenario", lines["scenario"], "--device", "cpu", "--out", "new"]
    words += {"audit": ["--unlearned", "good.safetensors"], "bench": ["--methods", lines["method"]]}.get(
        command, ["--method", lines["method"]]
    )
    words += [] if command == "unlearn" else ["--suite", lines["suite"]]
    if which == "option":
        option = rng.choice(("--device", "--out", "--seeds", "--seed", "--fail-on", "--tune", "--lora", "--ray", "--x"))
        words += [option, rng.choice(NASTY)] if option != "--ray" else ["--ray=\0"]
    return words


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut off, changed, put in, or all others."""
    i, early = rng.randrange(len(data) + 1), rng.randrange(min(200, len(data) + 1))
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: data[:i],
        lambda: data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :],
        lambda: data[:i] + rng.randbytes(rng.randint(1, 40)) + data[i:],
        lambda: b"",
        lambda: rng.randbytes(rng.randint(1, 300)),
        lambda: data[:i] + bytes(min(64, len(data) - i)) + data[i + 64 :],
        lambda: data[:early] + bytes([rng.randrange(256)]) + data[early + 1 :],
    )
    return rng.choice(changes)()


def misplaced(path: Path, rng: random.Random) -> None:
    """Something else at the place of a file, or damage to it."""
    content = path.read_bytes()
    kind = rng.randrange(8)
    if kind > 3:
        path.write_bytes(damaged(content, rng))
        return
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to("nowhere")
    elif kind == 2:
        path.symlink_to(path.name)
    else:
        path.mkdir()
        (path / "file").write_bytes(content)


def tensors(rng: random.Random, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that are well written and don't fit, or hold what no weight should."""
    key = rng.choice(sorted(state))
    value = state[key]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: state.pop(key),
        lambda: state.update({key + rng.choice(NASTY[:14]): state.pop(key)}),
        lambda: state.update({rng.choice(("module.", "_orig_mod.", "model.")) + k: state.pop(k) for k in list(state)}),
        lambda: state.update({"extra": torch.zeros(rng.randrange(3))}),
        lambda: state.update({key: value.to(rng.choice(DTYPES))}),
        lambda: state.update({k: v.to(torch.float16) for k, v in state.items()}),
        lambda: state.update({key: torch.zeros(rng.choice(((), (0,), (1,), (3, 0, 2), (*value.shape, 1))))}),
        lambda: (
            state.update({key: torch.full_like(value, rng.choice((float("nan"), float("inf"), 3e38, -1e38)))})
            if value.is_floating_point()
            else state.clear()
        ),
        state.clear,
    )
    rng.choice(changes)()
    return state


DTYPES = (torch.int8, torch.bool, torch.int64, torch.float64, torch.bfloat16, torch.uint8, torch.complex64)


def checkpoints(rng: random.Random, folder: Path) -> list[str]:
    """Checkpoints that an auditor may be handed."""
    path, good = folder / "bad.safetensors", folder / "good.safetensors"
    shutil.copy(good, path)
    kind = rng.randrange(6)
    if kind < 3:
        save_file(tensors(rng, load_file(good)), path)
    elif kind == 3:
        misplaced(path, rng)
    elif kind == 4:
        header = rng.choice(
            (b"{}", b'{"a":{}}', b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"[" * 9999)
        )
        path.write_bytes(struct.pack("<Q", rng.choice((len(header), 2**63, 0, 10**6))) + header + bytes(8))
    else:
        torch.save(rng.choice((network().state_dict(), network(), [1], "text")), path)
    role = rng.choice(("--unlearned", "--original", "--retrained"))
    given = {"--unlearned": "good.safetensors"} | {role: "bad.safetensors"}
    return ["audit", *WHO, *(word for pair in given.items() for word in pair), "--suite", "loss", "--out", "new"]


def json_lines(rng: random.Random, folder: Path) -> list[str]:
    """Texts of one's own, in files that are not quite JSON Lines."""
    name = rng.choice(("f.jsonl", "r.jsonl", "h.jsonl", "t.jsonl"))
    path = folder / name
    if rng.random() < 0.3:
        misplaced(path, rng)
    else:
        rows: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
        for _ in range(rng.randint(1, 2)):
            spoil_json(rows, rng)
        texts = [json.dumps(row) for row in rows]
        if rng.random() < 0.4:
            texts[rng.randrange(len(texts))] = characters(rng.choice(texts), rng)
        path.write_text("\n".join(texts), encoding="utf-8", errors="surrogatepass")
    sets = [
        word
        for n, key in (("h", "holdout"), ("t", "test"))
        if rng.random() < 0.8
        for word in (f"--{key}", f"{n}.jsonl")
    ]
    own = ["--model", "lm", "--forget", "f.jsonl", "--retain", "r.jsonl", "--anyway", *sets]
    return ["run", *own, "--device", "cpu", "--method", "grad_ascent:epochs=1", "--suite", "loss", "--out", "new"]


LEAVES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, "", " ", "x", "\ud800", "\x00", "\x1b[1m", [], {}, [None], {"": ""}, [[]], float("nan"),
    float("inf"), "é" * 3, ["a", 1], {"question": {}},
)  # fmt: skip


def spoil_json(value: Any, rng: random.Random) -> None:
    """Somewhere inside a value, in place: another value, a key or an entry less or more."""
    inner = [v for v in (value.values() if isinstance(value, dict) else value) if isinstance(v, dict | list) and v]
    if inner and rng.random() < 0.85:
        spoil_json(rng.choice(inner), rng)
        return
    if not value:
        return
    key = rng.choice(sorted(value)) if isinstance(value, dict) else rng.randrange(len(value))
    kind = rng.randrange(5)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[rng.choice(("extra", "", "input", "system", "wrong", "schema_version"))] = rng.choice(LEAVES)
    elif kind == 1:
        value.append(rng.choice(LEAVES))
    elif kind == 2 and isinstance(value, list):
        value.insert(0, value[key])
    else:
        value[key] = rng.choice(LEAVES)


def indices(rng: random.Random, folder: Path) -> list[str]:
    """Files of indices, and other ways to say what is to be forgotten."""
    rows = [str(i) for i in rng.sample(range(60), 10)]
    for _ in range(rng.randint(1, 3)):
        rows.insert(
            rng.randrange(len(rows)), rng.choice((*NASTY, "60", "59", "0x3", "1_0", "٣", "3 4", "3,4", "# 3", rows[0]))
        )
    path = folder / "idx.txt"
    path.write_bytes(rng.choice(("\n", "\r\n", " ")).join(rows).encode("utf-8", "surrogateescape"))
    if rng.random() < 0.3:
        misplaced(path, rng)
    line = rng.choice(("idx.txt", "idx.txt", "idx.txt", "share:" + rng.choice(NASTY), "class:" + rng.choice(NASTY)))
    who = ["--scenario", f"digits:forget={line},train=60,epochs=1,references=0", "--device", "cpu"]
    return ["run", *who, *FINETUNE, "--suite", "loss", "--out", "new"]


def records(rng: random.Random, folder: Path) -> list[str]:
    """Records, to be checked, shown, or believed by the run that made them."""
    path = folder / "out" / "seed-0" / "record.json"
    kind = rng.randrange(6)
    if kind < 4:
        data = json.loads(path.read_text())
        for _ in range(rng.choice((1, 1, 2, 5))):
            spoil_json(data, rng)
        path.write_text(json.dumps(data), encoding="utf-8")
    elif kind == 4:
        misplaced(path, rng)
    else:
        deep = "[" * 100_000 if rng.random() < 0.5 else '{"schema_version":' + "9" * 5000 + "}"
        path.write_text(
            rng.choice((deep, "null", "3", '"x"', "[]", "{}", '{"schema_version":null}', '{"schema_version":2}'))
        )
    return rng.choice((["check", str(path)], ["check", "out"], ["report", "out", "--out", "page.html"], RUN))


EXPRESSIONS = (
    "None", "3", "-1", "0", "'x'", "''", "[]", "{}", "[None]", "[3]", "[()]", "object()", "lambda *_: 1 / 0", "lambda: 0",
    "lambda *_: None", "lambda *_: 3", "lambda s, _: network(seed=s)[:-1]", "lambda s, _: network(5, s)", "network()",
    "lambda s, _: nn.Identity()", "[(torch.zeros(1, 4, 4), 'a')]", "[(torch.zeros(1, 4, 4), None)]", "DATA", "UNSEEN",
    "[(torch.zeros(1, 4, 4), 0, 0)]", "[(torch.zeros(1, 4, 4), 0.5)]", "[('a', 0)]", "[(None, 0)]", "[(torch.zeros(0), 0)]",
    "[(torch.zeros(1, 4, 4, dtype=torch.complex64), 0)]", "[(torch.zeros(1, 4, 4, dtype=torch.int64), 0)]", "range(3)",
    "iter(DATA)", "(x for x in DATA)", "{'a': 1}", "torch.zeros(3)", "float('nan')", "10**30", "True", "b'x'", "int",
    "Classification", "Fit()", "Fit", "Request", "Broken()", "Broken", "'../../evil'", "'a\\0b'", "'\\ud800'", "'a' * 5000",
    "nn.Sequential()", "nn.ModuleList()", "nn.Linear(1, 1)", "[network()]", "(network(), network())", "(network(), 3)",
    "torch.jit.script(network())", "network().half()", "network().double()", "torch.compile",
)  # fmt: skip
FIELDS = (
    "name", "summary", "task", "request", "original", "build", "recipe", "retraining_recipe", "references", "retrained", "reported",
    "forget", "retain", "holdout", "test", "validation", "kind", "masked",
)  # fmt: skip
STATEMENTS = (
    "raise ValueError('no')", "raise KeyError('k')", "raise Exception", "raise RuntimeError('a\\nb\\nc')", "assert False",
    "import nowhere", "from unrecall import nothing", "def f(:", "  x = 1", "return 3", "1 / 0", "raise MemoryError",
    "raise NotImplementedError", "raise StopIteration", "raise OSError(28, 'full')", "raise UnicodeError('u')", "open('gone')",
    "raise RecursionError", "def g(): g()\ng()", "int('9' * 5000)", "raise Broken()", "raise AttributeError('torch')",
    "sys.exit(0)", "sys.exit(3)", "sys.exit('bye')", "quit()", "raise SystemExit", "raise GeneratorExit", "\0", "\ufeff",
    "torch.zeros(10**15)", "torch.ones(2) @ torch.ones(3)", "json.loads('{')", "os.kill", "warnings.warn('careful')",
    "raise BaseException('base')", "print('hello')", "raise subprocess.CalledProcessError(1, 'x')", "raise ImportError",
    "raise torch.cuda.OutOfMemoryError('CUDA out of memory')", "del case", "make = 3", "make = None", "def make(x): pass",
    "def make(): raise IndexError('list index out of range')", "async def make(): pass", "def make(): yield 3",
    "class make: pass", "make = lambda: make()", "def make(): return make", "def make(): import nowhere", "# é",
)  # fmt: skip
OWN = """
import json, os, subprocess, sys, warnings
class Broken(Exception):
    def __str__(self): raise ValueError("str")
    def __repr__(self): raise ValueError("repr")
    def __len__(self): return 3
    def __getitem__(self, i): raise RuntimeError("item")
    def __call__(self, *_): raise KeyError("called")
"""


def case_files(rng: random.Random, folder: Path) -> list[str]:
    """A user's own file: fields of the wrong kind, functions that raise, lines that are damaged."""
    path = folder / "case.py"
    text = path.read_text() + OWN
    kind = rng.randrange(10)
    if kind < 6:
        fields = ", ".join(f"{f}={rng.choice(EXPRESSIONS)}" for f in rng.sample(FIELDS, rng.choice((1, 1, 1, 2))))
        path.write_text(f"{text}\ndef make(): return case({fields})\n", encoding="utf-8")
    elif kind < 8:
        statement = rng.choice(STATEMENTS)
        inside = f"def make():\n    {statement}\n    return case()\n"
        path.write_text(f"{text}\n" + rng.choice((statement, inside)) + "\n", encoding="utf-8")
    elif kind == 8:
        rows = text.split("\n")
        i = rng.randrange(30)
        rows[i] = rng.choice(("", characters(rows[i] or " ", rng).encode("utf-8", "replace").decode()))
        path.write_text("\n".join(rows), encoding="utf-8")
    else:
        misplaced(path, rng)
    command = rng.choice(("run", "run", "bench", "unlearn", "audit"))
    given = {"audit": ["--unlearned", "good.safetensors"], "bench": ["--methods", FINETUNE[1]]}.get(command, FINETUNE)
    return [command, *WHO, *given, *([] if command == "unlearn" else ["--suite", "loss"]), "--out", "new"]


def caches(rng: random.Random, folder: Path) -> list[str]:
    """Damage to what the cache holds: it is made anew."""
    whole = sorted(path for path in (folder.parent / "cache").rglob("*") if path.is_file())
    for path in rng.sample(whole, rng.choice((1, 1, 2, 6))):
        misplaced(path, rng)
    return NEW


def states(rng: random.Random, folder: Path) -> list[str]:
    """Damage to the states and parts that an interrupted run left behind: they are made anew."""
    left = sorted(path for path in (folder / "half").rglob("*") if path.is_file() and path.name != "run.json")
    for path in rng.sample(left, min(len(left), rng.choice((1, 1, 2)))):
        misplaced(path, rng)
    return [*NEW[:-1], "half"]


def folders(rng: random.Random, folder: Path) -> list[str]:
    """The folder of a run, in which something is not as it should be."""
    kind = rng.randrange(5)
    if kind < 3:
        files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
        misplaced(rng.choice(files), rng)
        return rng.choice((RUN, RUN, ["check", "out"], ["report", "out", "--out", "page.html"]))
    if kind == 3:
        name = rng.choice(
            (*NASTY, "case.py", "case.py/x", "lm", "out/seed-0", "out/run.json", "a" * 300, "x/" * 2000, "a\0b")
        )
        return rng.choice(([*RUN[:-1], name], ["report", "out", "--out", name], ["check", name], ["report", name]))
    target = folder / "new"
    rng.choice((
        lambda: target.symlink_to("nowhere"), lambda: target.symlink_to("new"), lambda: target.symlink_to("/dev/null"),
        lambda: os.mkfifo(target), lambda: target.write_text(""), lambda: (target / "run.json").mkdir(parents=True),
        lambda: shutil.copytree(folder / "lm", target), lambda: (target / "seed-0").mkdir(parents=True),
    ))()  # fmt: skip
    return NEW


KINDS: dict[str, Callable[[random.Random, Path], list[str]]] = {
    made.__name__: made
    for made in (spec_lines, checkpoints, json_lines, indices, records, case_files, caches, states, folders)
}
MUST_WORK = {"caches", "states"}
"""Damage to files of our own stops nobody: the run ends well, with the same record."""


class Outcome(NamedTuple):
    """What one command did: its exit code, its output, and what escaped from it."""

    code: int
    out: str
    err: str
    escaped: str


def called(arguments: list[str]) -> Outcome:
    """The command line, in this process."""
    out, err, escaped, code = io.StringIO(), io.StringIO(), "", -1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli.main(list(arguments))
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else -1
        except BaseException:
            escaped = traceback.format_exc()
    return Outcome(code, out.getvalue(), err.getvalue(), escaped)


def tree(folder: Path) -> dict[str, bytes | str]:
    """All that lies in a folder, with contents."""
    found: dict[str, bytes | str] = {}
    for home, inner, files in os.walk(folder):
        for name in (*inner, *files):
            path = Path(home, name)
            key = str(path.relative_to(folder))
            found[key] = f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes() if path.is_file() else "/"
    return found


def faults(arguments: list[str], outcome: Outcome, before: dict[str, bytes | str], folder: Path) -> Iterator[str]:
    """All that is wrong with what a command did."""
    if outcome.escaped:
        yield outcome.escaped.splitlines()[-1][:300] + "\n" + outcome.escaped
        return
    if outcome.code not in (0, 1, 2):
        yield f"exit code {outcome.code}"
    if "Traceback" in outcome.err + outcome.out:
        yield "a traceback was printed"
    after = tree(folder)
    yield from (f"left behind: {name}" for name in after if Path(name).name.endswith(UNFINISHED))
    if outcome.code != 2:
        return
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    many = arguments[0] in ("bench", "report")
    if not errors or not lines[-1].startswith("error: ") or (len(errors) > 1 and not many):
        yield f"expected one line of error, got {outcome.err[-600:]!r}"
    if others := [line for line in lines if line not in errors and not TOLD.search(line)]:
        yield f"not one line: {others[:3]}"
    if any(len(line) > 20_000 for line in errors):
        yield f"a line of {max(map(len, errors))} characters: {errors[0][:200]}"
    if any(not character.isprintable() for line in errors for character in line):
        yield f"not printable: {errors[-1][:300]!r}"
    goes_on = "out" in arguments or "half" in arguments or (arguments[0] == "report" and outcome.out)
    if not goes_on and (new := sorted(after.keys() - before.keys())):
        yield f"left behind: {new[:5]}"
    if changed := sorted(name for name in before if name in after and before[name] != after[name]):
        yield f"changed: {changed[:3]}"
    if gone := sorted(before.keys() - after.keys()):
        yield f"gone: {gone[:3]}"


def prepared(folder: Path) -> None:
    """A folder with a case of one's own, a language model, checkpoints, texts, a finished run and one that is not."""
    (folder / "case.py").write_text(CASE)
    weights.save(network(seed=3), folder / "good.safetensors")
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(folder / "lm")
    small_llama(len(tokenizer)).save_pretrained(folder / "lm")
    data = [{"question": fact["prompt"], "answer": fact["answer"]} for fact in facts()]
    for name, part in (("f", data[:6]), ("r", data[6:20]), ("h", data[20:28]), ("t", data[28:34])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    with standing(folder):
        assert called(RUN).code == 0
        half_done()


def half_done() -> None:
    """A run that was interrupted while its method trained, with a state of it."""
    real, keep = Session.drop_states, Session.__dataclass_fields__["every"].default
    defaults = Session.__init__.__defaults__ or ()

    def stop(_: Session) -> None:
        raise KeyboardInterrupt

    Session.__init__.__defaults__ = tuple(0.0 if value == keep else value for value in defaults)
    Session.drop_states = stop  # type: ignore[method-assign]
    try:
        assert called([*NEW[:-1], "half"]).code == 130
    finally:
        Session.drop_states = real  # type: ignore[method-assign]
        Session.__init__.__defaults__ = defaults


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[None]:
    """In that folder, with a cache beside it."""
    home, cache = Path.cwd(), os.environ.get("UNRECALL_CACHE")
    os.chdir(folder)
    os.environ["UNRECALL_CACHE"] = str(folder.parent / "cache")
    try:
        yield
    finally:
        os.chdir(home)
        del os.environ["UNRECALL_CACHE"]
        os.environ |= {"UNRECALL_CACHE": cache} if cache is not None else {}


def tried(kind: str, seed: int, template: Path, place: Path) -> tuple[list[str], list[str]]:
    """One bad input of a kind: the command, and what was wrong."""
    rng = random.Random(f"{kind} {seed}")
    home = place / f"{kind}-{seed}"
    shutil.copytree(template / "work", home / "work")
    shutil.copytree(template / "cache", home / "cache")
    folder = home / "work"
    arguments = KINDS[kind](rng, folder)
    before = tree(home)
    with standing(folder):
        outcome = called(arguments)
    work_before = {name[5:]: value for name, value in before.items() if name.startswith("work/")}
    wrong = list(faults(arguments, outcome, work_before, folder))
    wrong += [f"left in the cache: {path.name}" for path in (home / "cache").rglob(f".*{UNFINISHED}")]
    wrong += [f"outside: {name}" for name in tree(home) if not name.startswith(("work", "cache"))]
    if kind in MUST_WORK and not wrong:
        wrong += unlike(outcome, Path(arguments[-1]), template, folder)
    shutil.rmtree(home)
    return arguments, wrong


def unlike(outcome: Outcome, out: Path, template: Path, folder: Path) -> list[str]:
    """What is wrong with a run over damaged files of our own."""
    if outcome.code != 0:
        return [f"expected the run to end well, got exit code {outcome.code}: {outcome.err[-400:]}"]
    record, whole = (load(home / "seed-0" / "record.json") for home in (folder / out, template / "work" / "out"))
    return [] if record.comparable() == whole.comparable() else ["the record is another"]


def main(arguments: list[str]) -> int:
    """Tries that many bad inputs, all kinds alike, and prints what went wrong."""
    numbers = [int(word) for word in arguments if word.isdigit()]
    count, seed = (*numbers, *(2000, 0)[len(numbers) :])
    kinds = [word for word in arguments if word in KINDS] or list(KINDS)
    wrong = Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        template, place = Path(name, "template"), Path(name, "tries")
        (template / "work").mkdir(parents=True)
        prepared(template / "work")
        for i in range(count):
            kind = kinds[i % len(kinds)]
            given, found = tried(kind, seed + i // len(kinds), template, place)
            wrong[kind] += bool(found)
            for fault in found:
                print(f"{kind} {seed + i // len(kinds)}: unrecall {given}\n  {fault}", flush=True)
    print(f"{count} bad inputs, {sum(wrong.values())} of them wrong: {dict(wrong)}")
    return 1 if sum(wrong.values()) else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
