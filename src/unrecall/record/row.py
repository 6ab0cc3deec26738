"""What a measurement is called and how its number is read, declared once where the number is made."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unrecall.record.schema import Estimate, Measurement, Side

ROLES = ("original", "unlearned", "null")
NO_NULL = Estimate(value=None, note="no null: the method does not run the loop, or re-initialises weights")


@dataclass(frozen=True)
class Row:
    """A measurement before it is made.

    `leak`: the side of the retrained mean on which the forgotten shows. `judged`: whether a verdict rests on it.
    `margin`: the smallest difference worth naming (docs/verdict.md). `chance`: what guessing gives, where a value below
    it tells the forgotten apart as well as one above it. `prior`: see `Measurement`.
    """

    name: str
    title: str
    group: str
    leak: Side | None = None
    judged: bool = False
    margin: float = 0.1
    unit: str = ""
    ideal: str = "retrained"
    chance: float | None = None
    prior: int = 0

    def measured(self, estimates: Mapping[str, Estimate], note: str = "") -> Measurement:
        """The measurement, from one estimate a role: original, unlearned, null, retrained 0, retrained 1, ..."""
        references = [estimate for role, estimate in estimates.items() if role.startswith("retrained")]
        values = [estimate.value for estimate in references if estimate.value is not None]
        own = estimates["unlearned"]
        return Measurement(
            **vars(self),
            unlearned=own,
            original=estimates["original"],
            null=estimates.get("null", NO_NULL),
            references=references,
            reference=float(np.mean(values)) if values else None,
            note=note or (own.note if own.value is None else ""),
        )

    def absent(self, reason: str) -> Measurement:
        """The measurement without a value, and why there is none."""
        return self.measured(dict.fromkeys(ROLES, Estimate(value=None, note=reason)))
