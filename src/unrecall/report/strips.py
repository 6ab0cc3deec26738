"""The small picture in a row of the measurements table: every model's value on one line with its own scale."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from unrecall.record.schema import Estimate, Measurement
from unrecall.report.numbers import finite, present
from unrecall.report.scales import bounds, clipped

Place: TypeAlias = Callable[[float], float]

WIDTH = 216.0
EDGE = 8.0
LANES = {"unlearned": 8.0, "retrained": 18.0, "original": 28.0, "null": 28.0}


class Mark(NamedTuple):
    """One marker with its whisker, in pixels."""

    role: str
    x: float
    y: float
    low: float | None
    high: float | None


class Strip(NamedTuple):
    """What the template draws: marks, the band of differences too small to name, the range of retrained models."""

    marks: list[Mark]
    band: tuple[float, float] | None
    bound: tuple[float, float] | None
    left: float
    right: float


def strip(measurement: Measurement) -> Strip | None:
    """The picture of a measurement, or None where there is nothing to compare."""
    models = [("unlearned", measurement.unlearned), ("original", measurement.original), ("null", measurement.null)]
    models += [("retrained", reference) for reference in measurement.references]
    shown = [(role, e) for role, e in models if finite(e.value) is not None]
    band, bound = bands(measurement)
    ends = present([*(band or ()), *(bound or ()), *(v for _, e in shown for v in (e.low, e.value, e.high))])
    if len(shown) < 2:
        return None
    left, right = min(ends), max(ends)
    least = max(abs(left), abs(right), 1e-6) * 1e-3
    if right - left < least:  # all values are the same
        left, right = left - least, right + least

    def place(value: float) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * (value - left) / (right - left), 1)

    marks = [mark(role, e, place) for role, e in shown]
    return Strip(marks, placed(band, place), placed(bound, place), left, right)


def bands(measurement: Measurement) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Where a difference is too small to name, and where another retrained model would fall."""
    reference, margin = finite(measurement.reference), finite(measurement.margin) or 0.0
    band = None if reference is None else clipped(measurement, reference - margin, reference + margin)
    return band, bounds(measurement)


def placed(pair: tuple[float, float] | None, place: Place) -> tuple[float, float] | None:
    """Both ends of a range in pixels, at least two pixels apart so that a narrow range is still seen."""
    if pair is None:
        return None
    low, high = place(pair[0]), place(pair[1])
    return (low, high) if high - low >= 2 else ((low + high) / 2 - 1, (low + high) / 2 + 1)


def mark(role: str, estimate: Estimate, place: Place) -> Mark:
    """The marker of one model; retrained models show no whisker, as their range says more."""
    whiskers = [finite(v) for v in (estimate.low, estimate.high)] if role == "unlearned" else [None, None]
    low, high = (None if v is None else place(v) for v in whiskers)
    return Mark(role, place(finite(estimate.value) or 0.0), LANES[role], low, high)
