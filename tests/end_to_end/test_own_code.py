"""Whatever a user's code does, the command line says it in one line with that code's own file and line."""

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import CASE, METHOD, RUN, WHO, call, case, one_line, with_
from unrecall.experiment import cell, parallel
from unrecall.harness import audit as auditing

__all__ = ["case"]

HOW = {
    "an exception": "raise KeyError('broken')",
    "an assertion": "assert False, 'broken'",
    "a stop": "raise StopIteration('broken')",
    "an end of file": "raise EOFError('broken')",
    "sys.exit(0)": "import sys; sys.exit(0)  # broken",
    "quit()": "quit()  # broken",
    "a base exception": "raise BaseException('broken')",
    "a way out of typer": "import typer; raise typer.Exit(0)  # broken",
    "an error that has no text": "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()  # broken",
    "endless depth": "return (lambda f: f(f))(lambda f: f(f))  # broken",
    "several lines": "raise ValueError('broken\\nand\\nmore')",
}
"""What code may do in place of what it should."""

WHERE = {
    "file": "{how}\n",
    "function": "def make():\n    {how}\n",
    "build": "def build(seed, session):\n    {how}\ndef make(): return case(build=build)\n",
    "data set": (
        "class Data:\n    def __len__(self): return 24\n"
        "    def __getitem__(self, i):\n        {how}\ndef make(): return case(holdout=Data())\n"
    ),
    "model": (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.net = network()\n"
        "    def forward(self, x):\n        {how}\ndef make(): return case(build=lambda s, _: Net())\n"
    ),
    "method": (
        "from dataclasses import dataclass\nfrom unrecall.methods.base import Method\n"
        "@dataclass(frozen=True)\nclass Mine(Method):\n    title = 'Mine'\n"
        "    def unlearn(self, model, job):\n        {how}\n"
    ),
    "attack": (
        "from dataclasses import dataclass\nfrom unrecall.attacks import Loss\n"
        "@dataclass(frozen=True)\nclass Mine(Loss):\n    def score(self, evidence, split):\n        {how}\n"
    ),
}
"""Where it may do it."""


def broken(where: str, how: str) -> tuple[list[str], int]:
    """Writes a case with such code in it; the command that meets it, and on which line."""
    text = CASE + WHERE[where].format(how=HOW[how])
    Path("case.py").write_text(text)
    line = next(i for i, line in enumerate(text.splitlines(), 1) if "broken" in line or "quit()" in line)
    if where == "method":
        return with_(RUN, method="case.py:Mine"), line
    return (with_(RUN, suite="case.py:Mine") if where == "attack" else RUN), line


PAIRS = [("function", how) for how in HOW] + [(where, "an exception") for where in WHERE if where != "function"]
PAIRS += [(where, "sys.exit(0)") for where in WHERE if where != "function"] + [("file", "an end of file")]


@pytest.mark.parametrize(("where", "how"), PAIRS)
def test_whatever_a_users_code_does_is_one_line_with_its_place(
    where: str, how: str, case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, line = broken(where, how)
    before = tree(case)
    assert call(*command) == 2
    told = one_line(capsys)
    assert told.startswith("error: ")
    assert f"case.py:{line}" in told, told
    if where not in ("method", "attack"):  # by then models are trained, and kept for the next try
        assert tree(case) == before


def test_each_cell_of_a_bench_has_its_own_line(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken("method", "sys.exit(0)")
    assert call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", f"case.py:Mine {METHOD}") == 2
    told = capsys.readouterr()
    assert re.search(r"^error: case\.py:Mine, seed 0: case\.py:\d+: expected code .* SystemExit: 0", told.err, re.M)
    assert "error: 1 of 2 runs failed." in told.err
    assert re.search(r"^neggrad_plus:.*, seed 0: [A-Z]", told.out, re.MULTILINE)


def test_a_cell_that_raises_something_unforeseen_has_its_line_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cell.run_cell

    def run_cell(one: cell.Cell) -> object:
        if one.method == "ssd":
            raise ZeroDivisionError("by what?")
        return real(one)

    monkeypatch.setattr(parallel, "run_cell", run_cell)
    assert call("bench", *WHO, "--suite", "rmia", "--out", "grid", "--methods", f"ssd {METHOD}") == 2
    told = capsys.readouterr()
    assert re.search(r"^error: ssd, seed 0: .*ZeroDivisionError: by what\?", told.err, re.MULTILINE)
    assert "Traceback" not in told.err
    assert re.search(r"^neggrad_plus:.*, seed 0: [A-Z]", told.out, re.MULTILINE)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), OSError(12, "Cannot allocate memory")]
)
def test_too_little_memory_is_one_line(
    error: Exception, case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cell, "experiment", full)
    before = tree(case)
    assert call(*RUN) == 2
    assert re.match(r"error: memory: expected enough of it, got none left", one_line(capsys))
    assert tree(case) == before


def test_a_fault_of_our_own_is_one_line_and_its_traceback_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auditing, "judge_all", divmod)
    for wanted in (False, True):
        if wanted:
            monkeypatch.setenv("UNRECALL_TRACEBACK", "1")
        assert call(*with_(RUN, suite="rmia")) == 2
        told = capsys.readouterr().err
        assert "error: unrecall: expected an answer, got TypeError: divmod expected 2 arguments, got 3" in told
        assert ("Traceback" in told) == wanted


def test_a_judged_attack_of_ones_own_is_checked_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    Path("at.py").write_text(
        "from dataclasses import dataclass\nfrom unrecall.attacks import Loss\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Loss):\n    judged = 'auc'\n"
    )
    command = with_(RUN, suite="at.py:Mine rmia")
    assert call(*command) == 0
    path = Path("out/seed-0/record.json")
    before = path.read_bytes()
    assert call("check", str(path)) == 0
    assert "not checked: Mine_auc: only the code of these attacks" in capsys.readouterr().out
    assert call(*command) == 0
    assert path.read_bytes() == before
    assert call("report", "out", "-o", "page.html") == 0
    assert "other measurements are judged" not in Path("page.html").read_text(encoding="utf-8")
    for name, told in (("rmia_auc", "rmia_auc: the record has it judged"), ("Mine_auc", "Mine_auc: the record has it")):
        data = json.loads(before)
        (row,) = (m for m in data["measurements"] if m["name"] == name)
        row["judged"] = True
        if name == "Mine_auc":  # one whose scores were left out
            data["scores"] = {"loss": "0" * 64}
        path.write_text(json.dumps(data))
        assert call("check", str(path)) == 1
        assert told in capsys.readouterr().out


KEEPING = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        {how}
        return self.net(x)

def make(): return case(build=lambda s, _: Net())
"""


def test_a_model_that_keeps_a_gradient_says_so(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("case.py").write_text(CASE + KEEPING.format(how="self.last = self.net[0](x)"))
    assert call(*RUN) == 2
    assert one_line(capsys) == (
        "error: model: expected one that can be copied, got one that keeps a tensor with its gradient in an attribute. "
        "Let it keep the detached value, or nothing."
    )


def test_a_model_that_counts_its_calls_leaves_a_record_and_says_that_no_checkpoint(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("case.py").write_text(CASE + KEEPING.format(how="self.calls += 1"))
    assert call(*RUN) == 0
    assert "no checkpoint: the model's buffers change as it answers" in capsys.readouterr().err
    assert call(*RUN) == 0, "and takes up its own record"
    assert call("check", "out") == 0
