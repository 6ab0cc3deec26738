"""What unlearning took, as a share of retraining once."""

from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.record.row import Row
from unrecall.record.schema import Estimate

TIME = Row("cost_time", "Time, as a share of retraining", "cost")
PASSES = Row("cost_passes", "Examples passed, as a share of retraining", "cost")
MEMORY = Row("cost_memory", "Peak memory", "cost", unit="MiB")
UNTIMED = Estimate(value=None, note="unlearning or retraining was not timed in this run")


def measure(setting: Setting) -> Measured:
    """Time and examples passed as a share of retraining once, and peak memory."""
    unlearned, retrained = setting.costs.get("unlearned"), setting.costs.get("retrained")
    values = dict.fromkeys((TIME, PASSES, MEMORY), UNTIMED)
    if unlearned:
        values[MEMORY] = Estimate(value=unlearned.peak_mib)
    if unlearned and retrained and retrained.seconds > 0 and retrained.passes > 0:
        values[TIME] = Estimate(value=unlearned.seconds / retrained.seconds)
        values[PASSES] = Estimate(value=unlearned.passes / retrained.passes)
    none = Estimate(value=None, note="not applicable")
    return Measured([row.measured({"unlearned": own, "original": none, "null": none}) for row, own in values.items()])


COST = Metric("cost", (TIME, PASSES, MEMORY), measure)
