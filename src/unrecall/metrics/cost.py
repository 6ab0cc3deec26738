"""What unlearning took, as a share of retraining once."""

from __future__ import annotations

from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.record.row import Row
from unrecall.record.schema import Cost, Estimate

TIME = Row("cost_time", "Time, as a share of retraining", "cost")
PASSES = Row("cost_passes", "Examples passed, as a share of retraining", "cost")
MEMORY = Row("cost_memory", "Peak memory", "cost", unit="MiB")
UNTIMED = Estimate(value=None, note="unlearning or retraining was not timed in this run")


def measure(setting: Setting) -> Measured:
    """Time and passes as a share of retraining once, and peak memory."""
    unlearned, retrained = setting.costs.get("unlearned"), setting.costs.get("retrained")
    shares = dict.fromkeys((TIME, PASSES), UNTIMED)
    if unlearned and retrained and retrained.seconds > 0 and retrained.passes > 0:
        shares = _shares(unlearned, retrained)
    memory = Estimate(value=unlearned.peak_mib) if unlearned else UNTIMED
    none = Estimate(value=None, note="not applicable")
    rows = (*shares.items(), (MEMORY, memory))
    return Measured([row.measured({"unlearned": own, "original": none, "null": none}) for row, own in rows])


def _shares(unlearned: Cost, retrained: Cost) -> dict[Row, Estimate]:
    return {
        TIME: Estimate(value=unlearned.seconds / retrained.seconds),
        PASSES: Estimate(value=unlearned.passes / retrained.passes),
    }


COST = Metric("cost", (TIME, PASSES, MEMORY), measure)
