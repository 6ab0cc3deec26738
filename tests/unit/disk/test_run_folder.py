"""A run's folder belongs to one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.disk.test_files import contents
from unrecall.disk.files import write_text
from unrecall.disk.run_folder import ASKED, claim, claimed, content_keys, file_name, records_in
from unrecall.errors import BadInput

HOLD = """
import sys
from pathlib import Path
from unrecall.disk.run_folder import claimed
with claimed(Path("out"), {"command": "run"}):
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_a_folder_that_another_process_fills_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "mine\n"
    refused = pytest.raises(BadInput, match="out: expected a folder that nobody else is writing to")
    with refused, claimed(Path("out"), {"command": "run"}):
        raise AssertionError("both have it")
    assert [path.name for path in Path("out").iterdir()] == ["run.json"]
    first.communicate("done\n", timeout=60)
    with claimed(Path("out"), {"command": "run"}) as folder:
        assert folder == Path("out")


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    asked = {"command": "run", "method": "rurk"}
    folder = claim(tmp_path / "a" / "b", asked)
    assert claim(folder, asked) == folder
    with pytest.raises(BadInput, match=r"got another run \(other method\)"):
        claim(folder, asked | {"method": "ssd"})
    assert json.loads((folder / ASKED).read_text()) == asked
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    with pytest.raises(BadInput, match="got files that are no run's"):
        claim(tmp_path / "own", asked)
    with pytest.raises(BadInput, match="expected a folder, got a file"):
        claim(tmp_path / "own" / "thesis.txt", asked)
    with pytest.raises(BadInput, match="got a damaged file"):
        (folder / ASKED).write_text("{")
        claim(folder, asked)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / f".{ASKED}.123.part").write_text("{")
    assert claim(tmp_path / "killed", asked), "a claim that was killed can be made again"


def test_bad_input_leaves_the_disk_as_it_was(tmp_path: Path) -> None:
    for folder, new in ((tmp_path / "new", True), (tmp_path / "mine", False)):
        if not new:
            folder.mkdir()
        with pytest.raises(BadInput), claimed(folder, {"command": "run"}):
            (folder / "parts" / "deep").mkdir(parents=True)
            raise BadInput("no")
        assert folder.exists() != new
    with pytest.raises(BadInput), claimed(tmp_path / "new", {"command": "run"}):
        write_text(tmp_path / "new" / "parts" / "done.json", "{}")
        raise BadInput("later")
    assert sorted(contents(tmp_path)) == ["new/parts/done.json", f"new/{ASKED}"], "what was done is not lost"
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "stopped", {"command": "run"}):
        raise KeyboardInterrupt
    assert (tmp_path / "stopped" / ASKED).exists()


def test_files_that_a_run_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.py").write_text("1")
    Path("indices.txt").write_text("2")
    Path("my idx.txt").write_text("2")
    named = content_keys("case.py", "indices.txt", "my idx.txt", "share:0.25", "")
    assert list(named) == ["case.py", "indices.txt", "my idx.txt"]
    Path("case.py").write_text("2")
    assert content_keys("case.py")["case.py"] == named["indices.txt"] != named["case.py"]


def test_a_python_file_counts_with_what_it_imports_and_a_folder_with_all_that_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.py").write_text("import helper, torch")
    Path("model/deep").mkdir(parents=True)
    keys = []
    for number in range(2):
        Path("helper.py").write_text(f"SCALE = {number}")
        Path("model/deep/weights").write_text(str(number))
        os.utime("model/deep/weights", (0, 0))
        keys.append(content_keys("case.py", "model"))
    assert all(keys[0][name] != keys[1][name] for name in ("case.py", "model"))


def test_names_of_folders_differ_where_the_texts_do() -> None:
    texts = ["finetune:lr=1e-1", "finetune:lr=1e+1", "spotter(salun):share=0.5", "spotter(salun:share=0.5)", "rurk"]
    names = [file_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[-1] == "rurk"
    assert len({file_name(text).lower() for text in ("ssd", "SSD", "Ssd", "ssd:lr=1E-1", "ssd:lr=1e-1")}) == 5
    long = "finetune:" + ",".join(f"lr={i}" for i in range(200))
    assert len(file_name(long)) < 150
    assert file_name(long) != file_name(long + "0")
    assert names[2].startswith("spotter-salun--share=0.5-")


def test_records_are_found_below_folders(tmp_path: Path) -> None:
    for name in ("b/record.json", "a/x/record.json", "a/other.json"):
        write_text(tmp_path / name, "{}")
    assert records_in([tmp_path]) == [tmp_path / "a/x/record.json", tmp_path / "b/record.json"]
    assert records_in([tmp_path / "a/other.json"]) == [tmp_path / "a/other.json"]
    for path, message in ((tmp_path / "c", "got nothing there"), (tmp_path / "a" / "x" / "y", "got nothing")):
        with pytest.raises(BadInput, match=message):
            records_in([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"expected at least one record\.json below it"):
        records_in([tmp_path / "empty"])


def test_records_are_found_behind_links_to_folders_and_each_once(tmp_path: Path) -> None:
    write_text(tmp_path / "runs/a/record.json", "{}")
    links = tmp_path / "links"
    links.mkdir()
    (links / "there").symlink_to(tmp_path / "runs")
    assert records_in([links]) == [links / "there/a/record.json"]
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs/a")
    (tmp_path / "runs/round").symlink_to(tmp_path / "runs")
    assert records_in([tmp_path / "runs"]) == [tmp_path / "runs/a/record.json"]


def test_a_run_that_was_killed_while_it_claimed_its_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / ".run.json.x1.part").write_text("{")
    assert claim(tmp_path, {"command": "run"}) == tmp_path
    assert list(contents(tmp_path)) == [ASKED]


@pytest.mark.parametrize("damage", ["", "hello", "[1]"])
def test_a_damaged_note_of_what_was_asked_is_named_with_the_way_out(damage: str, tmp_path: Path) -> None:
    claim(tmp_path, {"command": "run"})
    (tmp_path / ASKED).write_text(damage)
    with pytest.raises(
        BadInput, match=r"run\.json: expected what this run .* got a damaged file. Choose another --out"
    ):
        claim(tmp_path, {"command": "run"})
    assert contents(tmp_path) == {ASKED: damage.encode()}
