"""The ledger from the command line, over real audits: added, audited again, torn, chained, shown."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.end_to_end.fuzz import called, standing
from tests.end_to_end.test_cli import CASE
from unrecall.disk.files import file_key
from unrecall.experiment.ledger import EValue, e_value
from unrecall.record.betting import bet_on_scores, mean_bet, seed_of
from unrecall.record.ledger import read, salted, sealed
from unrecall.record.pool_scores import PoolScores
from unrecall.record.schema import load

RUN = ["run", "--scenario", "case.py:make", "--device", "cpu", "--method", "finetune:epochs=1", "--suite", "loss"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, of seeds 0 and 1, and one that is judged without retrained models."""
    folder = tmp_path_factory.mktemp("ledger") / "work"
    folder.mkdir()
    (folder / "case.py").write_text(CASE)
    with standing(folder):
        for options in (["--seeds", "2", "--out", "out"], ["--alone", "--out", "alone"]):
            outcome = called([*RUN, *options])
            assert outcome.code == 0, outcome
    return folder


@pytest.fixture
def work(runs: Path, tmp_path: Path) -> Iterator[Path]:
    """The same runs in a folder of one's own, with files of records."""
    folder = Path(shutil.copytree(runs, tmp_path / "work"))
    for name in ("f1", "f2", "h1", "h2"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"id": f"{name} {i}"}) + "\n" for i in range(3)))
    with standing(folder):
        yield folder


def add(record: str, request: str, *options: str, verb: str = "add") -> list[str]:
    return ["ledger", verb, "ledger.jsonl", record, "--request", request, *options]


def whole(work: Path) -> list[str]:
    """The hashes of a ledger of two requests, of which the first was audited again."""
    first, second = "out/seed-0/record.json", "out/seed-1"
    for arguments in (
        add(first, "anna", "--forget", "f1.jsonl", "--holdout", "h1.jsonl"),
        add(second, "ben", "--forget", "f2.jsonl", "--holdout", "h2.jsonl"),
        add(second, "anna", "--forget", "f1.jsonl", verb="reaudit"),
    ):
        outcome = called(arguments)
        assert outcome.code == 0, outcome
    return read(work / "ledger.jsonl").hashes


def test_requests_are_added_audited_again_and_shown(work: Path) -> None:
    hashes = whole(work)
    anna, ben, again = read(Path("ledger.jsonl")).entries
    assert (anna.kind, again.kind, again.request) == ("request", "reaudit", "anna")
    assert anna.record == "out/seed-0/record.json"
    assert anna.record_sha256 == file_key(Path("out/seed-0/record.json"))
    assert ben.weights == again.weights == load("out/seed-1/record.json").provenance.weights["unlearned"]
    assert ben.fingerprint == anna.fingerprint, "the same data, whatever their files of records say"
    assert ben.product == anna.e_value
    status = called(["ledger", "status", "ledger.jsonl", "--expect", hashes[1]])
    assert status.code == 0, status
    assert f"3 audits, a whole chain, head {hashes[-1]}" in status.out
    assert "due:" not in status.out
    page = called(["ledger", "page", "ledger.jsonl", "-o", "ledger.html"])
    assert page.code == 0, page
    html = Path("ledger.html").read_text(encoding="utf-8")
    assert "2 requests to forget, 3 audits" in html
    assert hashes[-1] in html


def test_a_request_whose_records_are_not_named_is_said_to_count_alone(work: Path) -> None:
    said = called(add("out/seed-0/record.json", "anna"))
    assert said.code == 0, said
    assert "not multiplied with other requests' e-values: its records were not named" in said.out


def test_the_e_value_is_that_of_the_kept_scores(work: Path) -> None:
    record, folder = load("out/seed-0/record.json"), Path("out/seed-0")
    scores = load_file(next(folder.rglob("scores/loss.safetensors")))
    seed = seed_of(record.provenance.fingerprint, record.provenance.weights["unlearned"])
    due = bet_on_scores(scores["unlearned/forget"][0], scores["unlearned/holdout"][0], seed).e_value
    assert e_value(record, folder).value == due
    assert e_value(record.model_copy(update={"scores": {}}), folder).value is None
    assert e_value(record, Path("nowhere")) == EValue(
        None, "no scores of forget and holdout are kept beside the record"
    )
    assert e_value(record.model_copy(update={"scores": {"loss": "0"}}), folder).note.startswith(
        "the scores of loss are not"
    )


def test_scores_beside_records_never_trained_on_come_first(work: Path) -> None:
    """Adjusted by hand: what is left after least squares on the columns that vary, where they are few enough."""
    record, folder = load("alone/seed-0/record.json"), Path("alone/seed-0")
    place = next(folder.rglob("scores/never_trained.safetensors"))
    arrays = load_file(place)
    forget = arrays["forget"].astype(bool)
    assert (forget.sum(), (~forget).sum()) == (10, 24)
    tested = record.never_trained
    assert tested is not None
    scores = PoolScores.from_arrays(arrays, [a.name for a in tested.attacks], list(tested.covariates.values()))
    seed = seed_of(record.provenance.fingerprint, record.provenance.weights["unlearned"])
    bets = []
    for row in scores.unlearned:
        design = np.column_stack([np.ones(len(row)), scores.columns])
        left = (row - design @ np.linalg.lstsq(design, row, rcond=None)[0]).round(9)
        bets.append(bet_on_scores(left[forget], left[~forget], seed))
    assert len(bets) > 2
    value, note, epsilon = e_value(record, folder)
    assert epsilon is not None
    assert 0 <= epsilon < 3
    assert value == pytest.approx(mean_bet(bets))
    assert note == f"never_trained: mean over {len(bets)} attacks of bets on 10 random pairs"
    assert called(add("alone/seed-0", "anna")).code == 0
    (anna,) = read(Path("ledger.jsonl")).entries
    assert (anna.e_value, anna.epsilon, anna.basis, anna.grade) == (value, epsilon, "never trained", tested.grade)
    plain = next(folder.rglob("scores/loss.safetensors"))
    save_file({name: of for name, of in load_file(plain).items() if name != "unlearned/forget"}, plain)
    lacking = record.model_copy(update={"scores": {"loss": file_key(plain)}})
    assert e_value(lacking, folder).note == (
        "the scores of loss can't be bet on: 'unlearned/forget' is not there, and scores of both forget and "
        "holdout are needed"
    )
    place.write_bytes(b"cut")
    cut = record.model_copy(update={"scores": {"never_trained": file_key(place)}})
    assert "can't be bet on" in e_value(cut, folder).note


def test_digests_are_salted_and_the_salt_lies_in_a_file_of_its_own(work: Path) -> None:
    whole(work)
    salt = bytes.fromhex(Path("ledger.jsonl.salt").read_text())
    (anna, *_) = read(Path("ledger.jsonl")).entries
    assert anna.forget == [salted(salt, json.dumps({"id": f"f1 {i}"})) for i in range(3)]
    assert Path("ledger.jsonl.salt").stat().st_mode & 0o077 == 0
    assert salt.hex() not in Path("ledger.jsonl").read_text()


def test_a_name_that_is_taken_or_unknown_and_other_records(work: Path) -> None:
    outcome = called(add("out/seed-0", "anna", verb="reaudit"))
    assert outcome.code == 2
    assert "expected a ledger with earlier requests" in outcome.err
    assert not Path("ledger.jsonl").exists()
    whole(work)
    before = Path("ledger.jsonl").read_bytes()
    for arguments, reason in (
        (add("out/seed-0", "anna"), "expected a new request, got 'anna'"),
        (add("out/seed-0", "carl", verb="reaudit"), "expected the name of a request that is there"),
        (add("out/seed-0", "anna", "--forget", "f2.jsonl", verb="reaudit"), "expected the records that 'anna' forgets"),
        (add("out/seed-0", " "), "expected a name for the request, got none"),
        (add("out", "carl"), "expected one record, got 2"),
        (add("nowhere", "carl"), "expected a record or a folder of records, got nothing there"),
        (add("out/seed-0", "carl", "--forget", "nowhere.jsonl"), "expected a file of records, got nothing there"),
    ):
        outcome = called(arguments)
        assert outcome.code == 2, outcome
        assert reason in outcome.err
        assert outcome.err.count("\n") == 1
    assert Path("ledger.jsonl").read_bytes() == before


def test_a_record_that_does_not_hold_or_is_of_another_rule_is_not_added(work: Path) -> None:
    path = Path("out/seed-0/record.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    for part, value, reason in (
        ("rule", "prediction-interval-0", "can be checked here"),
        ("label", "leaks", "verdict"),
    ):
        path.write_text(json.dumps(data | {"verdict": data["verdict"] | {part: value}}), encoding="utf-8")
        outcome = called(add(str(path), "anna"))
        assert outcome.code == 2, outcome
        assert "expected a record that holds" in outcome.err
        assert reason in outcome.err
    assert not Path("ledger.jsonl").exists()


def test_a_torn_last_line_loses_nothing(work: Path) -> None:
    hashes = whole(work)
    path = Path("ledger.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    status = called(["ledger", "status", "ledger.jsonl"])
    assert status.code == 1
    assert "bytes of a line that was not finished" in status.out
    outcome = called(add("out/seed-1", "anna", verb="reaudit"))
    assert outcome.code == 0, outcome
    assert "a line that was never finished stands here now" in outcome.err
    assert read(path).hashes[:-1] == hashes[:-1]
    assert called(["ledger", "status", "ledger.jsonl"]).code == 0
    path.write_bytes(path.read_bytes()[:40])  # killed in its first line
    assert called(add("out/seed-1", "anna")).code == 0
    assert [entry.request for entry in read(path).entries] == ["anna"]


def test_another_file_is_left_alone(work: Path) -> None:
    for content in (b"my notes", b"my notes\n", Path("out/seed-0/record.json").read_bytes(), b"{}"):
        Path("ledger.jsonl").write_bytes(content)
        outcome = called(add("out/seed-0", "anna"))
        assert outcome.code == 2, outcome
        assert Path("ledger.jsonl").read_bytes() == content
    assert sorted(Path().glob("ledger.jsonl*")) == [Path("ledger.jsonl")]


def test_the_end_cut_off_is_seen_by_whoever_noted_the_head(work: Path) -> None:
    hashes = whole(work)
    path = Path("ledger.jsonl")
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")
    status = called(["ledger", "status", "ledger.jsonl"])
    assert status.code == 0
    assert "not checked: whether the end was cut off" in status.out
    status = called(["ledger", "status", "ledger.jsonl", "--expect", hashes[-1]])
    assert status.code == 1
    assert f"no line has the hash {hashes[-1]}" in status.out


def test_records_that_changed_or_went_are_said(work: Path) -> None:
    whole(work)
    next(Path("out/seed-0").rglob("loss.safetensors")).unlink()
    Path("out/seed-1/record.json").unlink()
    status = called(["ledger", "status", "ledger.jsonl"])
    assert status.code == 1
    assert "line 2: its e-value is not what the scores beside out/seed-0/record.json come to" in status.out
    assert "not checked: out/seed-1/record.json: no such record there" in status.out
    with Path("out/seed-0/record.json").open("a") as file:
        file.write("\n")
    assert (
        "line 2: the record at out/seed-0/record.json is not the one"
        in called(["ledger", "status", "ledger.jsonl"]).out
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label", "no more than 25 %"),
        ("grade", "A"),
        ("method", "retrain"),
        ("weights", "0" * 64),
        ("scenario", "another"),
        ("fingerprint", "0" * 64),
        ("rule", "other-1"),
        ("basis", "never trained"),
    ],
)
def test_a_line_written_anew_that_says_other_than_its_record_is_named(name: str, value: str, work: Path) -> None:
    assert called(add("out/seed-0/record.json", "anna")).code == 0
    place = Path("ledger.jsonl")
    opening, line = place.read_bytes().splitlines()
    fields = {key: of for key, of in json.loads(line).items() if key not in ("previous", "hash")}
    place.write_bytes(opening + b"\n" + sealed({**fields, name: value}, json.loads(opening)["hash"]) + b"\n")
    status = called(["ledger", "status", "ledger.jsonl"])
    assert status.code == 1
    assert f"line 2: its {name} is not that of out/seed-0/record.json" in status.out


def test_half_of_a_surrogate_pair_is_refused_with_its_line(work: Path) -> None:
    Path("odd.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n{"a": "\\ud800"}\n')
    outcome = called(add("out/seed-0/record.json", "anna", "--forget", "odd.jsonl"))
    assert outcome.code == 2
    assert "odd.jsonl:2: expected one JSON object a line, got half of a surrogate pair" in outcome.err


def test_a_salt_that_is_gone_or_another_is_refused(work: Path) -> None:
    whole(work)
    for content, reason in ((b"", "nothing that can be read"), (b"ab" * 32, "that of another ledger")):
        Path("ledger.jsonl.salt").write_bytes(content)
        outcome = called(add("out/seed-0", "carl"))
        assert outcome.code == 2
        assert reason in outcome.err


ADD = """
import sys
from pathlib import Path
from unrecall.experiment.ledger import Audited, add
for i in range(4):
    add(Path("ledger.jsonl"), Audited(f"{sys.argv[1]} {i}", Path("out/seed-0/record.json")))
"""


def test_two_processes_at_once_lose_nothing(work: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", ADD, name]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    names = [entry.request for entry in read(Path("ledger.jsonl")).entries]
    assert sorted(names) == [f"{who} {i}" for who in "ab" for i in range(4)]
    assert not list(Path().glob("*.torn-*"))


def test_a_page_is_not_written_over_another_file_and_escapes_names(work: Path) -> None:
    assert called(add("out/seed-0", "<script>alert(1)</script>\x1b[31m")).code == 0
    Path("mine.html").write_text("<html>my notes</html>")
    outcome = called(["ledger", "page", "ledger.jsonl", "-o", "mine.html"])
    assert outcome.code == 2
    assert "expected a page or nothing there" in outcome.err
    assert called(["ledger", "page", "ledger.jsonl", "-o", "page.html"]).code == 0
    html = Path("page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert called(["ledger", "page", "ledger.jsonl", "-o", "page.html"]).code == 0
