"""Attestations from the command line: what is signed, by whom, and everything that must not pass."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from safetensors.numpy import load_file, save_file

from tests.end_to_end.fuzz import called, standing
from tests.end_to_end.test_cli import CASE
from unrecall.disk.files import file_key
from unrecall.record.attest import PREDICATE, RESULTS, sign, statement
from unrecall.record.recheck import places_of_scores
from unrecall.record.schema import NEVER_TRAINED, load

RUN = ["run", "--scenario", "case.py:make", "--device", "cpu", "--method", "finetune:epochs=1", "--suite", "loss rmia"]
HOME = "out/seed-0"
NO_ENVELOPES = ["", "{}", "[]", "3", '{"payload": 1}', "{", '{"payload":"","payloadType":"","signatures":[3]}']
VERIFY = ["verify", "a.json", HOME, "--key", "key.pub.pem"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a key, and an attestation."""
    folder = tmp_path_factory.mktemp("attest") / "work"
    folder.mkdir()
    (folder / "case.py").write_text(CASE)
    with standing(folder):
        for options in (["--out", "out"], ["--alone", "--out", "alone"]):
            outcome = called([*RUN, *options])
            assert outcome.code == 0, outcome
        outcome = called(["attest", HOME, "--key", "key.pem", "--new-key", "-o", "a.json"])
    assert outcome.code == 0, outcome
    return folder


@pytest.fixture
def work(signed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it to tamper with."""
    folder = Path(shutil.copytree(signed, tmp_path / "work"))
    with standing(folder):
        yield folder


def payload() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.b64decode(json.loads(Path("a.json").read_text())["payload"]))
    return value


def test_the_statement_names_checkpoint_record_scores_verdict_and_limits(work: Path) -> None:
    statement, record = payload(), load(f"{HOME}/record.json")
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == PREDICATE
    (subject,) = statement["subject"]
    assert subject["name"] == "unlearned.safetensors"
    weights = record.provenance.weights["unlearned"]
    assert subject["digest"] == {"sha256": file_key(Path(HOME, subject["name"])), "unrecallWeights": weights}
    predicate, own = statement["predicate"], statement["predicate"]["unrecall"]
    files = {Path(f["name"]).name: f["digest"]["sha256"] for f in predicate["configuration"]}
    assert files == {"record.json": file_key(Path(HOME, "record.json"))} | {
        f"{name}.safetensors": key for name, key in record.scores.items()
    }
    assert predicate["result"] == RESULTS.get(record.verdict.label, "WARNED")
    judged = [m.name for m in record.measurements if m.judged and m.verdict != "not judged"]
    assert sorted(predicate["passedTests"] + predicate["warnedTests"] + predicate["failedTests"]) == sorted(judged)
    assert (own["request"], own["verdict"], own["basis"]) == (
        record.provenance.fingerprint,
        record.verdict.label,
        "retrained",
    )
    assert own["suite"] == [report.name for report in record.attacks]
    assert any("only doing the audit again" in line for line in own["limits"])


def test_whoever_holds_the_public_key_can_verify(work: Path) -> None:
    outcome = called(VERIFY)
    assert outcome.code == 0, outcome
    assert "the signature holds, the files are those that were signed" in outcome.out
    assert Path("key.pem").stat().st_mode & 0o077 == 0
    assert called(["attest", HOME, "--key", "key.pem", "-o", "b.json"]).code == 0
    assert Path("b.json").read_bytes() == Path("a.json").read_bytes()  # Ed25519 draws nothing


def test_a_verdict_without_retrained_models_is_signed_and_every_p_is_computed_again(work: Path) -> None:
    """The p of a forged record is seen by whoever signs, and by whoever verifies what its forger signed."""
    arguments, home = ["attest", "alone/seed-0", "--key", "key.pem", "-o", "a.json"], Path("alone/seed-0/record.json")
    assert called(arguments).code == 0
    record = load(home)
    assert record.never_trained is not None
    own, predicate = payload()["predicate"]["unrecall"], payload()["predicate"]
    assert (own["basis"], own["grade"]) == ("never trained", record.never_trained.grade)
    assert own["verdict"] == record.never_trained.label
    names = {f"never_trained/{attack.name}" for attack in record.never_trained.attacks}
    assert names == {*predicate["passedTests"], *predicate["warnedTests"], *predicate["failedTests"]}
    verify = ["verify", "a.json", "alone", "--key", "key.pub.pem"]
    assert called(verify).code == 0
    data = json.loads(home.read_text(encoding="utf-8"))
    data["never_trained"]["leak"] = 0.5 if record.never_trained.leak != 0.5 else 0.4
    home.write_text(json.dumps(data), encoding="utf-8")
    outcome = called(arguments)
    assert outcome.code == 2
    assert "expected a record that holds" in outcome.err
    sign(statement(home, []), Path("key.pem"), Path("a.json"))
    outcome = called(verify)
    assert outcome.code == 1
    assert "problem: never trained: its leak is not what the scores beside it come to" in outcome.out


def test_scores_that_state_a_list_are_a_problem_of_the_record_and_not_an_end(work: Path) -> None:
    home = Path("alone/seed-0")
    place = places_of_scores(home, NEVER_TRAINED)[0]
    arrays = load_file(place)
    stated = json.loads(bytes(arrays["stated"]))
    stated["attacks"] = list(stated["attacks"])
    save_file(arrays | {"stated": np.frombuffer(json.dumps(stated).encode(), np.uint8)}, place)
    outcome = called(["check", str(home)])
    assert outcome.code == 1
    assert "scores of never_trained: expected those of forget and holdout, got: 'list' object has no" in outcome.out


def test_a_checkpoint_that_lies_elsewhere_is_named(work: Path) -> None:
    Path("there").mkdir()
    shutil.move(f"{HOME}/unlearned.safetensors", "there/model.safetensors")
    for copy in Path(HOME).rglob("unlearned*.safetensors"):
        copy.unlink()
    outcome = called(VERIFY)
    assert outcome.code == 1
    assert "problem: subject: signed was" in outcome.out
    assert called(["attest", HOME, "--key", "key.pem", "-o", "a.json"]).code == 0
    weights = load(f"{HOME}/record.json").provenance.weights["unlearned"]
    assert payload()["subject"][0]["digest"] == {"unrecallWeights": weights}
    unlooked = "Not seen by a check: the weights: no unlearned checkpoint lies beside the record."
    assert unlooked in payload()["predicate"]["unrecall"]["limits"]
    named = ["--checkpoint", "there/model.safetensors"]
    assert called(["attest", HOME, "--key", "key.pem", "-o", "a.json", *named]).code == 0
    assert unlooked not in payload()["predicate"]["unrecall"]["limits"], "its digest was compared"
    outcome = called([*VERIFY, *named])
    assert outcome.code == 0
    assert "no unlearned checkpoint" not in outcome.out
    outcome = called([*VERIFY, "--checkpoint", "a.json"])
    assert outcome.code == 2, outcome


def test_other_files_than_those_that_were_signed_are_told(work: Path) -> None:
    path = Path(HOME, "record.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")  # the same, in one line
    outcome = called(VERIFY)
    assert outcome.code == 1
    assert "problem: predicate.configuration: signed was" in outcome.out


def test_scores_that_changed_or_went_are_told(work: Path) -> None:
    path = next(Path(HOME).rglob("loss.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    outcome = called(VERIFY)
    assert outcome.code == 1
    assert "scores of loss: the file is not the one that the record was made from" in outcome.out
    path.unlink()
    outcome = called(VERIFY)
    assert outcome.code == 2
    assert "expected the scores of loss beside the record, got none" in outcome.err


def test_a_record_that_does_not_hold_or_is_of_another_rule_is_not_signed(work: Path) -> None:
    path = Path(HOME, "record.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(data | {"verdict": data["verdict"] | {"rule": "prediction-interval-0"}}), encoding="utf-8"
    )
    outcome = called(["attest", HOME, "--key", "key.pem", "-o", "b.json"])
    assert outcome.code == 2
    assert "expected a record that holds, got: verdict: the record was judged by the rule" in outcome.err
    assert not Path("b.json").exists()


def pem(key: Any) -> bytes:
    if hasattr(key, "private_bytes"):
        return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_keys_of_the_wrong_kind_are_one_clear_line(work: Path) -> None:
    own, large = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    locked = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    kind, locked_up, no_pem = (
        "got one of another kind or side",
        "expected a key without a password",
        "expected a key in PEM",
    )
    private, public = f"expected an Ed25519 private key, {kind}", f"expected an Ed25519 public key, {kind}"
    cases = {
        "rsa": (pem(large), f"{private} (RSA, private)", f"{public} (RSA, private)"),
        "rsa-public": (pem(large.public_key()), f"{private} (RSA, public)", f"{public} (RSA, public)"),
        "public": (pem(own.public_key()), f"{private} (Ed25519, public)", "got none that holds"),
        "private": (pem(own), "", f"{public} (Ed25519, private)"),
        "locked": (locked, locked_up, locked_up),
        "text": (b"my key", no_pem, no_pem),
        "cut": (pem(own)[:60], no_pem, no_pem),
        "none": (None, "got: No such file", "got: No such file"),
    }
    for name, (content, signing, verifying) in cases.items():
        if content is not None:
            Path(name).write_bytes(content)
        for arguments, reason in (
            (["attest", HOME, "--key", name, "-o", f"{name}.json"], signing),
            ([*VERIFY[:-1], name], verifying),
        ):
            outcome = called(arguments)
            assert outcome.code == (2 if reason else 0), (name, outcome)
            assert reason in outcome.err, name
            assert outcome.err.count("\n") == bool(reason)
        assert Path(f"{name}.json").exists() == (not signing)


def test_a_new_key_replaces_none_and_nothing_is_made_where_the_record_does_not_hold(work: Path) -> None:
    outcome = called(["attest", HOME, "--key", "key.pem", "--new-key", "-o", "b.json"])
    assert outcome.code == 2
    assert "key.pem: expected nothing there, got a file" in outcome.err
    outcome = called(["attest", "nowhere", "--key", "new.pem", "--new-key", "-o", "b.json"])
    assert outcome.code == 2
    assert not Path("new.pem").exists()


@pytest.mark.parametrize("text", NO_ENVELOPES)
def test_what_is_no_envelope_is_refused_in_one_line(text: str, work: Path) -> None:
    Path("a.json").write_text(text)
    outcome = called(VERIFY)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: a.json: expected")
    assert outcome.err.count("\n") == 1


def test_without_the_packages_it_says_what_to_install(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "in_toto_attestation", None)
    outcome = called(["attest", HOME, "--key", "key.pem", "-o", "b.json"])
    assert outcome.code == 2
    assert "attest" in outcome.err
    assert "pip install" in outcome.err
