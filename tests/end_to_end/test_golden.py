"""The comparison of golden runs sees any number that changed, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.golden import RUNS, differences
from tests.worlds.records import full
from tests.worlds.text_records import text


def runs(folder: Path, record: dict[str, object]) -> Path:
    """A folder as `keep` leaves it, with the same record for each run."""
    for name in RUNS:
        place = folder / name / "seed-0"
        place.mkdir(parents=True)
        (place / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.mark.parametrize("record", [full(), text()], ids=["pictures", "texts"])
def test_equal_records_have_no_differences_whatever_their_clocks_say(record: object, tmp_path: Path) -> None:
    data = record.model_dump(mode="json")  # type: ignore[attr-defined]
    later = {
        **data,
        "provenance": {**data["provenance"], "created": "later"},
        "verdict": {**data["verdict"], "line": "."},
    }
    assert not list(differences(runs(tmp_path / "old", data), runs(tmp_path / "new", later)))


@pytest.mark.parametrize(
    "place",
    [
        ("measurements", 0, "unlearned", "value"),
        ("measurements", 1, "references", 0, "high"),
        ("attacks", 0, "curves", 0, "series", 0, "y", 1),
        ("attacks", 0, "positive_holds"),
        ("provenance", "weights", "unlearned"),
    ],
)
def test_one_changed_number_is_named_in_every_run(place: tuple[str | int, ...], tmp_path: Path) -> None:
    data, changed = (full().model_dump(mode="json") for _ in range(2))
    owner = changed
    for step in place[:-1]:
        owner = owner[step]  # type: ignore[assignment,index]
    owner[place[-1]] = "another"  # type: ignore[index]
    lines = list(differences(runs(tmp_path / "old", data), runs(tmp_path / "new", changed)))
    assert sorted(line.split(":")[0] for line in lines) == sorted(RUNS)
