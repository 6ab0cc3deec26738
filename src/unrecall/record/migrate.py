"""Records of older schemas, in the present one: a step for each version, which leads to the next."""

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 3


def to_2(data: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had no parameters of attacks, no scores and no id of the rule, and said what is undefined in a note."""
    for attack in data["attacks"]:
        attack["parameters"] = {}
    for row in data["measurements"]:
        name, note = row["name"], row["unlearned"]["note"]
        row["chance"] = 0.5 if name.endswith("_auc") and not name.startswith("remind") else None
        row["undefined"] = int(note.split()[0]) if note.endswith(" zero denominators") else 0
    data["verdict"]["rule"] = "prediction-interval-1"
    return data | {"schema_version": 2, "scores": {}}


def to_3(data: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 called the sparing trials of tuning kept, and what the indirect attack knows of its victims known."""
    for trial in (data.get("tuning") or {}).get("trials", ()):
        trial["sparing"] = trial.pop("kept")
    for attack in data["attacks"]:
        if {"victim", "answered_as", "known"} <= attack["parameters"].keys():
            attack["parameters"]["victims"] = attack["parameters"].pop("known")
    return data | {"schema_version": 3}


STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: to_2, 2: to_3}
"""What makes a record of the next version, by version."""


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """The record as the newest version has it; itself where its version is unknown or the newest."""
    while (version := data["schema_version"]) in STEPS:
        data = STEPS[version](data)
    return data
