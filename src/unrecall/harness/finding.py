"""What one attack found: a report with its curves and controls, and its measurements."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from unrecall.attacks.base import Attack
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Curve, Estimate, Frozen, Measurement, Series
from unrecall.spec.lines import name_of


class Figures(NamedTuple):
    """What an attack's scores come to: estimates by the end of a row's name and by role, and curves."""

    rows: dict[str, dict[str, Estimate]]
    curves: list[Curve]


class Finding(Frozen):
    """What one attack found. `scores`: those of judged attacks, arrays by name, to be kept beside the record."""

    report: AttackReport
    measurements: list[Measurement]
    scores: dict[str, Any] = Field(default_factory=dict, exclude=True)


def named_parameters(attack: Attack) -> dict[str, str]:
    """The attack's parameters that stand in its name, because they differ from their defaults, and what they are."""
    values = [(field, getattr(attack, field.name)) for field in fields(attack)]
    return {
        field.name: Path(value).stem if isinstance(value, str) else f"{value:g}"
        for field, value in values
        if value != field.default and (isinstance(value, str) or field.name in attack.named_by)
    }


def is_judged(attack: Attack, ending: str) -> bool:
    """Whether a verdict rests on the attack's measurement of that ending: if it is blind to arms, and no variant."""
    return attack.judged == ending and not named_parameters(attack) and getattr(attack, "blind", True)


def report_of(attack: Attack) -> AttackReport:
    """The frame of an attack's report: its name, title, threat model, paper and parameters."""
    names, (_, _, reference) = named_parameters(attack), (type(attack).__doc__ or "").partition("Reference:")
    chosen = [f"{parameter.replace('_', ' ')} {value}" for parameter, value in names.items()]
    return AttackReport(
        name="_".join([name_of(attack), *names.values()]),
        title=f"{attack.title} ({', '.join(chosen)})" if chosen else attack.title,
        threat=attack.threat,
        reference=" ".join(reference.split("\n\n")[0].split()),
        parameters=attack.as_dict(),
    )


def said_by(attack: Attack, reason: Exception | str) -> str:
    """Why an attack gives nothing, with its name in front: the reason may come from a task or a model."""
    name = f"{type(attack).__name__}: "
    return name + str(reason).removeprefix(name)


def absent(attack: Attack, reason: str, ending: str, group: str) -> Finding:
    """Nothing vanishes: an attack that can't run is a row with a reason."""
    frame, reason = report_of(attack), said_by(attack, reason)
    judged = is_judged(attack, ending)
    row = Row(f"{frame.name}_{ending}", frame.title, group, "above" if judged else None, judged)
    return Finding(report=frame.model_copy(update={"note": reason}), measurements=[row.absent(reason)])


def line(role: str, x: list[float], values: Sequence[np.ndarray]) -> Series:
    """One line of a curve: at each x the mean over examples of values in [0, 1], with its interval."""
    y = [stats.mean(value, share=True) for value in values]
    return Series(role=role, x=x, y=[e.value for e in y], low=[e.low for e in y], high=[e.high for e in y])


def show(value: float | None) -> str:
    """A number for a sentence."""
    return "unknown" if value is None else f"{value:.2f}"
