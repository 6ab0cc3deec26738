"""What unlearning took, as a share of retraining once."""

from unrecall.evidence.setting import Setting
from unrecall.metrics.base import Measured, Metric
from unrecall.record.row import Row
from unrecall.record.schema import Estimate

TIME = Row("cost_time", "Time, as a share of retraining", "cost")
PASSES = Row("cost_passes", "Examples passed, as a share of retraining", "cost")
MEMORY = Row("cost_memory", "Peak memory", "cost", unit="MiB")
UNTIMED = Estimate(
    value=None,
    note="unlearning and retraining were not both timed in this run: models that were given or kept have no time here",
)
UNKNOWN = Estimate(value=None, note="not known what unlearning and retraining took: the models were given")


def measure(setting: Setting) -> Measured:
    """Time and examples passed as a share of retraining once, and peak memory.

    Times are of one run's clock: a retrained model that an earlier run left in the cache has none.
    """
    unlearned, retrained = setting.costs.get("unlearned"), setting.costs.get("retrained")
    values = {TIME: UNTIMED, PASSES: UNKNOWN, MEMORY: UNKNOWN}
    if unlearned:
        values[MEMORY] = Estimate(value=unlearned.peak_mib)
    if unlearned and retrained and unlearned.seconds is not None and retrained.seconds:
        values[TIME] = Estimate(value=unlearned.seconds / retrained.seconds)
    if unlearned and retrained and retrained.passes:
        values[PASSES] = Estimate(value=unlearned.passes / retrained.passes)
    none = Estimate(value=None, note="not applicable")
    return Measured([row.measured({"unlearned": own, "original": none, "null": none}) for row, own in values.items()])


COST = Metric("cost", (TIME, PASSES, MEMORY), measure)
