"""What tuning looked at is no evidence any more: a tuned checkpoint says so, and its audits leave that out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.files import content_key, read_text, write_text
from unrecall.disk.json_files import read_json, write_json
from unrecall.errors import BadInput
from unrecall.experiment.run_identity import EXPORTED
from unrecall.models.low_rank import ADAPTER

TUNED_ON = "tuned-on.json"
"""What a tuned run leaves beside the checkpoint: the sha256 of each example of validation that tuning looked at."""
KEY = "tuned-on.key"
"""What it leaves in a model's folder, which may be handed on: a key of those, that tells nothing of any example."""
NOTE = "tuned_on"
"""The name of the same key in the header of a checkpoint that is a file."""
LOST = (
    f"{{}}: its strength was tuned on a part of a holdout, and {TUNED_ON}, which says on which, is not beside it: the "
    "holdout of this audit may hold what tuning looked at."
)


class TunedOn(NamedTuple):
    """The sha256 of what a checkpoint's strength was chosen by; `lost`: whether it was tuned, and they are gone."""

    digests: set[str]
    lost: bool = False


def looked_at(request: Request) -> list[str]:
    """The sha256 of each example that tuning looks at."""
    return [digest(item) for item in iterate(request.with_validation().validation or ())]


def notes(digests: Sequence[str]) -> dict[str, str]:
    """What the header of a checkpoint says of them; nothing where it wasn't tuned."""
    return {NOTE: content_key(*digests)} if digests else {}


def leave(digests: Sequence[str], folder: Path) -> None:
    """Leaves in the folder of a run, and of each model in it, what a later audit asks for; nothing of no examples."""
    if not digests:
        return
    write_json(folder / TUNED_ON, list(digests), private=True)
    for model in filter(Path.is_dir, (folder / EXPORTED, folder / ADAPTER)):
        write_text(model / KEY, content_key(*digests))


def tuned_on(checkpoint: Path) -> TunedOn:
    """What the strength of a checkpoint of ours was chosen by; nothing of others'."""
    folder, key = checkpoint.resolve() if checkpoint.is_dir() else checkpoint.resolve().parent, _key(checkpoint)
    for place in (folder / TUNED_ON, folder.parent / TUNED_ON):
        if place.is_file() and key in ("", content_key(*(digests := _read(place)))):
            return TunedOn(set(digests))
    return TunedOn(set(), lost=bool(key))


def _key(checkpoint: Path) -> str:
    """The key of what a checkpoint was tuned on, as its header or its folder has it; empty where neither has one."""
    beside = (checkpoint if checkpoint.is_dir() else checkpoint.resolve().parent) / KEY
    if not checkpoint.is_file():
        return read_text(beside).strip() if beside.is_file() else ""
    try:
        stated = weights.notes_of(checkpoint).get(NOTE, "")
    except (SafetensorError, OSError):  # which whoever loads it tells
        stated = ""
    return stated or (read_text(beside).strip() if beside.is_file() else "")


def _read(place: Path) -> list[str]:
    digests = read_json(place)
    if not isinstance(digests, list) or not all(
        isinstance(d, str) and re.fullmatch("[0-9a-f]{64}", d) for d in digests
    ):
        raise BadInput(
            f"{place}: expected the sha256 of each example that tuning looked at, got something else. Copy it again "
            "from the folder of the run."
        )
    return digests
