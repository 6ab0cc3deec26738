"""What a metric promises: measurements of every model in a setting, laid side by side."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from unrecall.errors import MissingReference
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Matrix, Measurement, Reading
from unrecall.tasks.protocols import offers


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
        return offers(setting.task, *self.needs)


def of_evidence(row: Row, compute: Callable[[Evidence], Estimate], needs: tuple[type, ...] = ()) -> Metric:
    """A metric that is one number, computed from the one forward pass that all metrics share.

    One that needs a task of some kind says beside it what that task remarks.
    """

    def measure(setting: Setting) -> Measured:
        by_role = estimates(setting, compute)
        remark = setting.task.remark if needs and by_role["unlearned"].value is not None else ""
        return Measured([row.measured(by_role, remark)])

    return Metric(row.name, (row,), measure, needs)


def estimates(setting: Setting, compute: Callable[[Evidence], Estimate]) -> dict[str, Estimate]:
    """The same number of every model, by role; where the request lacks a split that it needs, the reason."""

    def estimate(evidence: Evidence) -> Estimate:
        try:
            return compute(evidence)
        except MissingReference as reason:
            return Estimate(value=None, note=str(reason))

    return {role: estimate(evidence) for role, evidence in setting.evidence.items()}


def mean_share(values: np.ndarray, reason: str) -> Estimate:
    """The mean of values in [0, 1] over examples; where there are no examples, the reason why not."""
    return stats.mean(values, share=True) if len(values) else Estimate(value=None, note=reason)
