"""What a metric promises: measurements of every model in a setting, laid side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from unrecall.data.signals import Evidence
from unrecall.errors import MissingReference
from unrecall.evidence.setting import Setting
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Matrix, Measurement, Reading


class Measured(NamedTuple):
    """What a metric measured: numbers, what models said, and tables."""

    measurements: list[Measurement]
    readings: list[Reading] = []  # noqa: RUF012
    matrices: list[Matrix] = []  # noqa: RUF012


@dataclass(frozen=True)
class Metric:
    """Something that an audit measures without attacking.

    `rows`: its measurements whose names are fixed, so that it is known beforehand what is judged and which side leaks;
    it may make others beside them. `needs`: the protocols that a task must offer; on other tasks it is left out.
    """

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Setting], Measured] = field(repr=False)
    needs: tuple[type, ...] = ()

    def suits(self, setting: Setting) -> bool:
        """Whether the setting's task offers what the metric needs."""
        return all(isinstance(setting.task, protocol) for protocol in self.needs)


def of_evidence(row: Row, compute: Callable[[Evidence], Estimate]) -> Metric:
    """A metric that is one number, from what one forward pass told; a row with a reason where a split is missing."""

    def measure(setting: Setting) -> Measured:
        return Measured([row.measured(estimates(setting, compute))])

    return Metric(row.name, (row,), measure)


def estimates(setting: Setting, compute: Callable[[Evidence], Estimate]) -> dict[str, Estimate]:
    """The same number of every model, by role; where the request lacks a split that it needs, the reason."""

    def estimate(evidence: Evidence) -> Estimate:
        try:
            return compute(evidence)
        except MissingReference as reason:
            return Estimate(value=None, note=str(reason))

    return {role: estimate(evidence) for role, evidence in setting.evidence.items()}
