"""What decides the numbers of a record, so that a finished record is believed only by the run that made it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unrecall.attacks.base import Attack
from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.disk.cache import environment
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput
from unrecall.experiment.against import Against
from unrecall.experiment.seeds import Seeds
from unrecall.harness.checking import check
from unrecall.methods.base import Method
from unrecall.record.schema import Record
from unrecall.scenarios.base import Scenario
from unrecall.training.session import Session

CHECKPOINT, IDENTITY = "unlearned.safetensors", "identity.json"
"""What `unlearn` leaves: a checkpoint, and what decided it."""
EXPORTED = "unlearned"
"""What stands in the checkpoint's place where the model has a form of its own outside unrecall: a folder."""
REMADE = {"method"}
"""What may differ from a finished record or checkpoint without a complaint: it is then made anew."""


def data_key(request: Request) -> str:
    """What decides which examples there are, those of validation among them."""
    control = () if request.control == "matched" else (request.control,)
    return content_key(request.fingerprint, *(digest(item) for item in iterate(request.validation or ())), *control)


def identity(
    scenario: Scenario,
    method: Method | None,
    attacks: Sequence[Attack],
    seeds: Seeds,
    session: Session,
    tuned: bool | Against = False,
) -> dict[str, str]:
    """A key of each thing that decides a record's numbers, by its name."""
    recipe = (scenario.name, scenario.task, scenario.recipe, scenario.retraining_recipe, scenario.objective)
    rest = (scenario.references, scenario.precision)
    return {
        "scenario": content_key(repr(recipe + rest), code_key(scenario.build, scenario.task, scenario.objective)),
        "models": scenario.start_key(seeds.training, session),
        "data": data_key(scenario.request),
        "method": content_key(repr(method), code_key(method)),
        "attacks": content_key(*(f"{attack!r} {code_key(attack)}" for attack in attacks)),
        "seed": str(seeds.evaluation),
        **{f"{level} seed": str(seed) for level, seed in seeds.differing.items()},
        "tuning": str(bool(tuned)),
        **({"tuned against": tuned.key(scenario)} if isinstance(tuned, Against) else {}),
        **environment(),
    }


def rate_key(rate: float | None) -> dict[str, str]:
    """What the rate of fine-tuning attacks decides of a record's identity; nothing where it is the default."""
    return {} if rate is None else {"rate": repr(rate)}


def finished(path: Path, expected: dict[str, str]) -> Record | None:
    """The finished record at `path`, if this very run made it and it agrees with itself; None where it must be made.

    BadInput where it doesn't agree with itself, or another run made it.
    """
    if not path.is_file():
        return None
    try:
        record, problems, _ = check(path)
    except BadInput as error:
        raise BadInput(f"{error} Remove it to make it again, or choose another --out.") from error
    if _differing(path, "record", expected, record.provenance.identity):
        return None
    if problems:
        raise BadInput(
            f"{path}: expected the record that was made here, got one that doesn't hold: {problems[0]} "
            "Remove it to make it again, or choose another --out."
        )
    return record


def check_checkpoint(folder: Path, expected: dict[str, str]) -> None:
    """BadInput where another run made the checkpoint of a folder; one of an older version doesn't say what made it."""
    path = folder / IDENTITY
    if ((folder / CHECKPOINT).exists() or (folder / EXPORTED).exists()) and path.exists():
        written = read_json(path)
        _differing(path, "checkpoint", expected, written if isinstance(written, dict) else {})


def _differing(path: Path, what: str, expected: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    """What differs from the run that made something, where that is made anew; BadInput where it was another run."""
    differing = sorted(key for key in expected.keys() | written.keys() if expected.get(key) != written.get(key))
    if set(differing) - REMADE:
        raise BadInput(
            f"{path}: expected the {what} of this same run, got another's (other {', '.join(differing)}). "
            "Choose another --out."
        )
    return differing
