"""How the answers of many models are laid side by side: one estimate a role, one measurement a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall.attacks.base import Attack
from unrecall.record.schema import AttackReport, Estimate, Measurement, Side
from unrecall.record.verdict import JUDGED

NO_NULL = Estimate(value=None, note="no null: the method does not run the loop, or re-initialises weights")


@dataclass(frozen=True)
class Models:
    """The models of one audit by role. `null`: the same method at learning rate 0."""

    original: nn.Module
    unlearned: nn.Module
    retrained: tuple[nn.Module, ...] = ()
    null: nn.Module | None = None

    def by_role(self) -> dict[str, nn.Module]:
        """All models, named as the record names them."""
        known = {"original": self.original, "unlearned": self.unlearned}
        if self.null is not None:
            known["null"] = self.null
        return known | self.references()

    def references(self) -> dict[str, nn.Module]:
        """The retrained models, by role."""
        return {f"retrained {i}": model for i, model in enumerate(self.retrained)}


class Finding(NamedTuple):
    """What one attack found."""

    report: AttackReport
    measurements: list[Measurement]


def lay_out(
    name: str,
    title: str,
    group: str,
    estimates: Mapping[str, Estimate],
    *,
    leak: Side | None = None,
    margin: float = 0.1,
    unit: str = "",
    note: str = "",
) -> Measurement:
    """One measurement out of one estimate per role."""
    references = [estimate for role, estimate in estimates.items() if role.startswith("retrained")]
    known = [estimate.value for estimate in references if estimate.value is not None]
    return Measurement(
        name=name,
        title=title,
        group=group,
        unit=unit,
        unlearned=estimates["unlearned"],
        original=estimates["original"],
        null=estimates.get("null", NO_NULL),
        references=references,
        reference=float(np.mean(known)) if known else None,
        leak=JUDGED.get(name, leak),
        margin=margin,
        judged=name in JUDGED,
        note=note or (estimates["unlearned"].note if estimates["unlearned"].value is None else ""),
    )


def report_of(attack: Attack) -> AttackReport:
    """The frame of an attack's report: its name, title, threat model and paper; a choice off the default is named."""
    kind = type(attack)
    choices = [
        Path(v).stem if isinstance(v, str) else f"{v:g}"
        for f in fields(attack)
        if (v := getattr(attack, f.name)) != f.default and (isinstance(v, str) or f.name in kind.named_by)
    ]
    _, _, reference = (kind.__doc__ or "").partition("Reference:")
    return AttackReport(
        name="_".join([kind.__module__.rsplit(".", 1)[-1], *choices]),
        title=" ".join([kind.title, *(f"({choice})" for choice in choices)]),
        threat=kind.threat,
        reference=" ".join(reference.split("\n\n")[0].split()),
    )


def absent(frame: AttackReport, reason: str, ending: str, group: str) -> Finding:
    """Nothing vanishes: an attack that can't run is a row with a reason."""
    none = Estimate(value=None, note=reason)
    row = lay_out(frame.name + ending, frame.title, group, dict.fromkeys(("original", "unlearned", "null"), none))
    return Finding(frame.model_copy(update={"note": reason}), [row])


def show(value: float | None) -> str:
    """A number for a sentence."""
    return "unknown" if value is None else f"{value:.2f}"
