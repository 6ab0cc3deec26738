"""What can't be written is said before anything is trained, and nothing but a page is overwritten by a page."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import METHOD, RUN, WHO, call, case, one_line, with_
from tests.worlds import blobs, network
from tests.worlds.records import full
from unrecall import Fit, Request, Scenario
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.experiment import parallel
from unrecall.report import page, write
from unrecall.tasks import Classification

__all__ = ["case"]

QUICK = with_(RUN, suite="rmia")


# What a page may take the place of.


@pytest.mark.parametrize(
    "there", ["record.json", "case.py", "model.safetensors", "other.html", "folder", "pipe", "link"]
)
def test_a_page_is_written_over_nothing_else(there: str, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full().save("records/record.json")
    place = Path("records/record.json" if there == "record.json" else there)
    if there == "folder":
        place.mkdir()
    elif there == "pipe":
        os.mkfifo(place)
    elif there == "link":
        place.symlink_to("case.py")
    elif not place.exists():
        place.write_text("<!doctype html>\n<title>Thesis</title>")
    before = set(case.rglob("*")), Path("case.py").read_bytes(), Path("records/record.json").read_bytes()
    assert call("report", "records", "-o", str(place)) == 2
    refusal = one_line(capsys)
    if there in ("case.py", "model.safetensors"):
        assert f"expected a name that ends in .html, .md, .csv, .json, .tex, got '{place}'" in refusal
    else:
        assert f"error: {place}: expected" in refusal
    after = set(case.rglob("*")), Path("case.py").read_bytes(), Path("records/record.json").read_bytes()
    assert after == before
    if there != "pipe":
        with pytest.raises(BadInput):
            write([full()], place)


def test_a_page_takes_the_place_of_a_page_and_of_an_empty_file(case: Path) -> None:
    full().save("records/record.json")
    Path("page.html").touch()
    for _ in range(2):
        assert call("report", "records", "-o", "page.html") == 0
    assert full().method_title in Path("page.html").read_text(encoding="utf-8")


# What can't be written.


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training may begin."""

    def begin(*_: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(Scenario, "train_original", begin)


def blocked(path: str) -> None:
    Path(path).mkdir(parents=True)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("file", ["report.html", "seed-0/record.json", "seed-0/unlearned.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_said_before_training(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "run_cell", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(*QUICK) == 130
    blocked(f"out/{file}")
    capsys.readouterr()
    assert call(*QUICK) == 2
    assert f"out/{file}: expected " in one_line(capsys)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("command", ["run", "unlearn", "audit"])
def test_a_cache_that_cant_be_written_is_said_before_training(
    command: str, case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.save(network(), Path("x.safetensors"))
    monkeypatch.setenv("UNRECALL_CACHE", "case.py/cache")
    before = tree(case)
    commands = {
        "run": QUICK,
        "unlearn": ["unlearn", *WHO, "--method", METHOD, "--out", "out"],
        "audit": ["audit", *WHO, "--unlearned", "x.safetensors", "--suite", "rmia", "--out", "out"],
    }
    assert call(*commands[command]) == 2
    assert "case.py/cache" in one_line(capsys)
    assert tree(case) == before


@pytest.mark.usefixtures("untrained")
def test_bytes_that_are_no_text_are_refused_before_training(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(case)
    for command in (
        with_(QUICK, out="o\udcff"),
        with_(QUICK, scenario="digits:forget=\udcff.txt"),
        ["check", "\udc80"],
    ):
        assert call(*command) == 2
        assert "expected UTF-8 text, got other bytes" in one_line(capsys)
    assert tree(case) == before


@pytest.mark.usefixtures("untrained")
def test_a_user_without_a_home_is_told_to_name_a_cache(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("UNRECALL_CACHE")
    monkeypatch.setattr(Path, "home", nowhere)
    before = tree(case)
    assert call(*QUICK) == 2
    assert "got neither. Set UNRECALL_CACHE." in one_line(capsys)
    assert tree(case) == before


# Scenarios.

DATA, UNSEEN = blobs(20, 4, 1), blobs(20, 4, 2)
GOOD: dict[str, Any] = {
    "name": "tiny",
    "summary": "blobs",
    "task": Classification(),
    "request": Request(DATA[:5], DATA[5:], UNSEEN[:5], UNSEEN[5:]),
    "build": lambda seed, _: network(seed=seed),
    "recipe": Fit(),
}
WRONG: list[tuple[str, Any]] = [
    *(("name", value) for value in (None, "", 3, "../../evil", "a/b", "a\\b", ".hidden", " ", "x" * 200)),
    *(("name", value) for value in ("a\x1b", "\ud800", "a\n")),
    *(("summary", value) for value in (None, 3)),
    *(("task", value) for value in (None, Classification)),
    ("request", {"forget": DATA}),
    ("build", (network()[:0] and 3) or 3),
    ("recipe", {"lr": 0.1}),
    ("retraining_recipe", 3),
    ("original", {"weights": 1}),
    *(("retrained", value) for value in (network(), [3], (None,))),
    *(("references", value) for value in (-1, 2.5, "2", True, None)),
    ("reported", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{field}-{i}" for i, (field, _) in enumerate(WRONG)])
def test_a_scenario_refuses_what_it_cant_use(field: str, value: Any) -> None:
    Scenario(**GOOD)
    with pytest.raises(BadInput, match=f"Scenario: expected {field} to be "):
        Scenario(**GOOD | {field: value})


def test_a_scenario_takes_retrained_models_as_a_list() -> None:
    models: Any = [network(), nn.Sequential(network(seed=1))]
    assert Scenario(**GOOD | {"retrained": models}).retrained == tuple(models)


# Records that nobody should write.


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"schema_version": ' + "9" * 5000 + "}", "{" + '"n": 1' + "0" * 5000 + "}"],
    ids=["lists", "objects", "version", "number"],
)
@pytest.mark.parametrize("command", ["check", "report"])
def test_json_that_cant_be_held_is_one_line(text: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").mkdir()
    Path("many/record.json").write_text(text)
    assert call(command, "many") == 2
    told = capsys.readouterr().err
    assert "error: many/record.json: expected an unrecall record (JSON), got " in told
    assert "Traceback" not in told


@pytest.mark.parametrize("change", [10**7, 10**9, 10**300], ids=["7", "9", "300"])
def test_a_record_of_any_size_is_checked_at_once(change: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*QUICK) == 0
    path = Path("out/seed-0/record.json")
    data = json.loads(path.read_text())
    for split in data["sizes"]:
        data["sizes"][split] = change
    path.write_text(json.dumps(data))
    capsys.readouterr()
    assert call("check", str(path)) in (0, 1)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("change", [{"n": 10**300}, {"value": 1e308, "low": 1e308, "high": 1e308}], ids=["n", "value"])
def test_figures_of_any_size_are_checked_in_silence(change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*QUICK) == 0
    path = Path("out/seed-0/record.json")
    data = json.loads(path.read_text())
    for measurement in data["measurements"]:
        for estimate in (measurement["unlearned"], *measurement["references"]):
            estimate.update({key: value for key, value in change.items() if estimate["value"] is not None})
    path.write_text(json.dumps(data))
    capsys.readouterr()
    code, told = call("check", str(path)), capsys.readouterr().err.splitlines()
    assert (code, told) == (1, []) or (code == 2 and len(told) == 1 and "n" in told[0])


# Control characters.

STEERING = "\x1b[31mred\x07\x9b\u202e"
SHOWN = "<U+001B>[31mred<U+0007><U+009B><U+202E>"


def test_control_characters_are_shown_as_code_points(capsys: pytest.CaptureFixture[str]) -> None:
    record = full()
    record = record.model_copy(update={"scenario": STEERING, "method_title": STEERING})
    record.save("many/record.json")
    call("check", "many/record.json")
    assert call("report", "many", "-o", "page.html") == 0
    assert call("check", f"no{STEERING}") == 2
    assert call("run", "-s", "digits", "-m", STEERING) == 2
    told = capsys.readouterr()
    for text in (told.out, told.err, page([record])):
        assert SHOWN in text.replace("&lt;", "<").replace("&gt;", ">")
        assert not set(STEERING) & set(text) & set("\x1b\x07\x9b\u202e")
