"""A signed statement of what an audit found: in-toto's test result in a DSSE envelope, under an Ed25519 key.

The subject is the audited checkpoint. Formats: in-toto Attestation Framework v1, predicate Test Result v0.1; Dead
Simple Signing Envelope v1.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unrecall.disk.files import file_key, read_text, write_text, writing
from unrecall.disk.json_files import parse_json
from unrecall.errors import BadInput, MissingDependency
from unrecall.record.recheck import NO_CHECKPOINT, checkpoints, places_of_scores
from unrecall.record.schema import NEVER_TRAINED, Label, Record, load

PAYLOAD = "application/vnd.in-toto+json"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
WEIGHTS = "unrecallWeights"
"""The name of the digest over names and values of all weights, which holds for any file of them."""
RESULTS: Mapping[Label, str] = {
    "leaks": "FAILED",
    "over-forgets": "FAILED",
    "stands out": "FAILED",
    "damaged": "FAILED",
    "unchanged": "FAILED",
    "like retrained": "PASSED",
    "no more than 25 %": "PASSED",
    "no more than 50 %": "PASSED",
}
"""in-toto's word for each label; for all others it is WARNED: nothing was found, and nothing shown."""
LISTS = {"PASSED": "passedTests", "WARNED": "warnedTests", "FAILED": "failedTests"}
LIMITS = (
    "Attacks that were not run may find more.",
    "Data that share knowledge with the forgotten records are not spoken of.",
    "The signature says who vouches for the record, not that it is true: only doing the audit again shows that.",
)
"""What no attestation says, whatever its record."""


def statement(path: Path, unseen: Sequence[str], checkpoint: Path | None = None) -> dict[str, Any]:
    """The in-toto statement on the record at `path`, as JSON.

    `unseen`: what a check of the record can't see. `checkpoint`: the audited weights, where they don't lie beside the
    record; BadInput where they are others.
    """
    _need()
    from google.protobuf.json_format import MessageToDict, ParseDict
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    record = load(path)
    digests = [("record.json", file_key(path)), *_scores(record, path.parent)]
    configuration = [MessageToDict(ResourceDescriptor(name, digest={"sha256": key}).pb) for name, key in digests]
    result = {"result": _result(record.verdict.label), "configuration": configuration, **_tests(record)}
    ParseDict(result, TestResult())  # the library knows what the predicate must hold
    subjects = [ResourceDescriptor(name, digest=digest).pb for name, digest in _subjects(record, path, checkpoint)]
    unseen = unseen if checkpoint is None else [line for line in unseen if line != NO_CHECKPOINT]
    whole = Statement(subjects, PREDICATE, {**result, "unrecall": _stated(record, unseen)})
    whole.validate()
    written: dict[str, Any] = MessageToDict(whole.pb)
    return written


def sign(statement: Mapping[str, Any], key: Path, out: Path) -> None:
    """Writes the statement in an envelope that is signed with the private key of a PEM file."""
    _need()
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    signer = CryptoSigner(_private(key))
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False).encode()
    envelope = Envelope(payload, PAYLOAD, {})
    envelope.sign(signer)
    write_text(out, _text(envelope))


def verified(path: Path, key: Path) -> dict[str, Any]:
    """The statement of an envelope, once the public key of a PEM file has vouched for it; BadInput otherwise."""
    _need()
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    public, text = SSlibKey.from_crypto(_public(key)), read_text(path)
    try:
        envelope = Envelope.from_dict(parse_json(text, str(path)))
        same = _text(envelope) == text and len(envelope.signatures) == 1 and envelope.payload_type == PAYLOAD
    except BadInput:
        raise
    except Exception as error:  # the library lets a dozen kinds of errors through
        raise BadInput(f"{path}: expected a DSSE envelope, got: {error or type(error).__name__}.") from error
    if not same:
        raise BadInput(f"{path}: expected an envelope as 'unrecall attest' writes it, got one that was changed.")
    try:
        envelope.verify([public], 1)
    except VerificationError as error:
        raise BadInput(
            f"{path}: expected a signature by {key}, got none that holds. It was changed, or another key signed it."
        ) from error
    stated: dict[str, Any] = json.loads(envelope.payload)
    return stated


def differing(stated: Mapping[str, Any], due: Mapping[str, Any]) -> Iterator[str]:
    """Where a signed statement is not the one that the record and the files beside it make, each in a line."""
    for name in sorted(stated.keys() | due.keys()):
        first, second = stated.get(name), due.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from (f"{name}.{line}" for line in differing(first, second))
        elif first != second:
            yield f"{name}: signed was {_short(first)}, the files have {_short(second)}"


def new_key(path: Path) -> Path:
    """Makes an Ed25519 key: the private one at `path`, and the public one beside it, whose path is given."""
    _need()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public = path.with_name(f"{path.stem}.pub{path.suffix}")
    for place in (path, public):
        if place.exists():
            raise BadInput(f"{place}: expected nothing there, got a file. Choose another --key, or no --new-key.")
    key = Ed25519PrivateKey.generate()
    with writing(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_text(public, shown.decode("ascii"))
    return public


def _result(label: Label) -> str:
    return RESULTS.get(label, "WARNED")


def _tests(record: Record) -> dict[str, list[str]]:
    """The judged rows, or the attacks of the fixed suite, by in-toto's word for how each came out."""
    if record.never_trained and record.verdict.basis == "never trained":
        level, other = record.never_trained.level, _result(record.verdict.label).replace("FAILED", "WARNED")
        attacks = record.never_trained.attacks
        counted = [(test.name, test.p) for test in attacks if test.p is not None]
        judged = [(f"{NEVER_TRAINED}/{name}", "FAILED" if p <= level else other) for name, p in counted]
    else:
        judged = [(m.name, _result(m.verdict)) for m in record.measurements if m.judged and m.verdict != "not judged"]
    return {key: [name for name, result in judged if result == word] for word, key in LISTS.items()}


def _stated(record: Record, unseen: Sequence[str]) -> dict[str, Any]:
    """What in-toto has no words for; consumers that don't know it may leave it out."""
    return {
        "request": record.provenance.fingerprint,
        "sizes": record.sizes,
        "scenario": record.scenario,
        "method": record.method,
        "verdict": record.verdict.label,
        "line": record.verdict.line,
        "rule": record.verdict.rule,
        "basis": record.verdict.basis,
        "grade": record.never_trained.grade if record.never_trained else "",
        "suite": [report.name for report in record.attacks],
        "audited": record.provenance.created,
        "limits": [*LIMITS, *(f"Not seen by a check: {line}." for line in unseen)],
    }


def _scores(record: Record, folder: Path) -> list[tuple[str, str]]:
    """The files of scores that the record names, with their sha256; BadInput where one is missing."""
    files = []
    for name in sorted(record.scores):
        places = places_of_scores(folder, name)
        if not places:
            raise BadInput(f"{folder}: expected the scores of {name} beside the record, got none. Put them back.")
        files += [(place.relative_to(folder).as_posix(), file_key(place)) for place in places]
    return files


def _subjects(record: Record, path: Path, checkpoint: Path | None) -> list[tuple[str, dict[str, str]]]:
    """The audited checkpoints by name with their digests; the weights' digest alone where none is there."""
    from unrecall.disk.weights import digest_of_file, files_of

    weights = record.provenance.weights.get("unlearned", "")
    if not weights:
        raise BadInput(f"{path}: expected a record that names the audited weights, got none. Audit the model again.")
    audited = checkpoints(path.parent)[:1] if checkpoint is None else [checkpoint]
    for place in audited:
        if digest_of_file(place) != weights:
            raise BadInput(f"{place}: expected the weights that were audited, got others. Name the audited checkpoint.")
        if place.is_dir():
            files = [(f"{place.name}/{file.name}", {"sha256": file_key(file)}) for file in files_of(place)]
            return [(place.name, {WEIGHTS: weights}), *files]
        return [(place.name, {"sha256": file_key(place), WEIGHTS: weights})]
    return [("unlearned", {WEIGHTS: weights})]


def _need() -> None:
    """MissingDependency where what signs and states is not installed."""
    try:
        import cryptography  # noqa: F401
        import in_toto_attestation  # noqa: F401
        import securesystemslib  # noqa: F401
    except ImportError as error:
        raise MissingDependency(error.name or "securesystemslib", "attest") from error


def _private(path: Path) -> Any:
    """The Ed25519 private key of a PEM file; BadInput where it holds another kind of key, or none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: expected an Ed25519 private key, got {_kind(key)}. Make one with --new-key.")
    return key


def _public(path: Path) -> Any:
    """The same for a public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = _key(path)
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path}: expected an Ed25519 public key, got {_kind(key)}. Name the one in .pub.pem.")
    return key


def _key(path: Path) -> Any:
    """Whatever key a PEM file holds; BadInput where it is locked, or none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: expected a key in PEM, got: {error.strerror}. Check the path.") from error
    try:
        return load_pem_private_key(data, None) if b"PRIVATE KEY" in data else load_pem_public_key(data)
    except TypeError as error:
        raise BadInput(f"{path}: expected a key without a password, got one with. Unlock a copy of it.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path}: expected a key in PEM, got something else. Make one with --new-key.") from error


def _kind(key: Any) -> str:
    """What a key is, in words: an RSA private key."""
    name = type(key).__name__.lstrip("_")
    side = "private" if "Private" in name else "public"
    return f"one of another kind or side ({name.replace('PrivateKey', '').replace('PublicKey', '')}, {side})"


def _text(envelope: Any) -> str:
    return json.dumps(envelope.to_dict(), sort_keys=True, indent=1) + "\n"


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:120]}..."
