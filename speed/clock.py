"""Alternating runs of two rivals, so that whatever else the machine does hits both."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Race(NamedTuple):
    """Median CPU seconds of both, and the figure that is aimed at."""

    name: str
    ours: float
    theirs: float
    rival: str
    target: str
    note: str = ""

    def line(self) -> str:
        ratio = self.theirs / self.ours
        return (
            f"{self.name:<38} {self.ours:9.3f} s  {self.theirs:9.3f} s  {ratio:6.2f}x  {self.target:<14} "
            f"{self.rival}{'; ' + self.note if self.note else ''}"
        )


def race(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float]:
    """Median CPU seconds of each over `rounds`, alternating, after one warm-up of both; waiting for a core is none.

    `clock`: another one, as for what other processes do.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for rival, seconds in zip((ours, theirs), times, strict=True):
            start = clock()
            rival()
            if i:
                seconds.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])
