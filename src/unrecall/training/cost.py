"""What a piece of work takes: seconds, passes, steps and peak memory."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import torch

from unrecall.record.schema import Cost
from unrecall.training.session import Effort, Session


@dataclass
class metered:  # noqa: N801
    """A `with` block whose `cost` is known at its end; training inside must run in the same session."""

    session: Session
    cost: Cost = field(default=Cost(seconds=0.0, passes=0, steps=0, peak_mib=0.0), init=False)

    def __enter__(self) -> "metered":
        """Starts the clock and forgets earlier peaks."""
        self._first = len(self.session.efforts)
        _reset_peak()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the clock; there are no seconds of what another run began."""
        efforts = self.session.efforts[self._first :]
        clock = time.perf_counter() - self._started
        self.cost = Cost(
            seconds=None if any(effort.resumed for effort in efforts) else clock,
            passes=sum(effort.passes for effort in efforts),
            steps=sum(effort.steps for effort in efforts),
            phases=[effort.steps for effort in efforts],
            peak_mib=_peak() / 2**20,
            notes={name: median(figures) for name, figures in _notes(efforts).items()},
        )


def _notes(efforts: Sequence[Effort]) -> dict[str, list[float]]:
    """What the steps of all runs noted, by name."""
    names = dict.fromkeys(name for effort in efforts for name in effort.notes)
    return {name: [figure for effort in efforts for figure in effort.notes.get(name, [])] for name in names}


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The larger of the accelerator's peak and, where Linux tells it, the process's; its present size elsewhere."""
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return max(device, int(psutil.Process().memory_info().rss))
    peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return max(device, peak)
