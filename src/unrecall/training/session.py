"""Where and how long work runs: the device, the folder that lets it resume, and what a person sees meanwhile."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TypeVar

import torch

from unrecall.disk.files import sealed_as
from unrecall.errors import BadInput, visible

T = TypeVar("T")
UNSUPPORTED_ACCELERATE_OPTIONS = (
    "MIXED_PRECISION",
    "USE_FSDP",
    "USE_DEEPSPEED",
    "USE_MEGATRON_LM",
    "USE_PARALLELISM_CONFIG",
)
"""Options of Accelerate that unrecall refuses: they would split models or change their precision."""
EVERY = 15.0
"""Seconds between two lines of progress."""
STATE = ".ckpt"
"""How a file ends that holds the state of a training."""


@dataclass
class Effort:
    """What a run of the loop took. `passes`: examples drawn over all streams; `losses`: one a step.

    `resumed`: whether it began in another run, whose seconds are among its own. `notes`: what steps noted of
    themselves, by name.
    """

    steps: int = 0
    passes: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    resumed: bool = False
    notes: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """How the loop runs, beside what it computes.

    `folder`: where unfinished training leaves what it needs to resume; None keeps nothing. `device`: "cpu", "cuda",
    or None for what Accelerate finds. `every`: least seconds between two savings. `show`: progress on stderr.
    `efforts`: what each run of the loop in this session took, in order. `name`: what is trained, for people and for
    the names of files. `key`: what decides its outcome beyond what the loop is given (a method's parameters, say), so
    that nothing else is resumed. `states`: resumable states of trainings that ended, until their result is kept.
    """

    folder: Path | None = None
    device: str | None = None
    every: float = 20.0
    show: bool = False
    efforts: list[Effort] = field(default_factory=list)
    name: str = "fit"
    key: str = ""
    states: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike | None):
            raise BadInput(f"folder: expected a path or None, got {self.folder!r}. Give the path of a folder.")
        if not isinstance(self.every, Real) or not self.every >= 0:
            raise BadInput(f"every: expected seconds from 0 on, got {self.every!r}. Give a number.")
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))
        if self.device not in (None, "cpu", "cuda"):
            raise BadInput(f"device: expected cpu or cuda, got '{self.device}'.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("device: expected a GPU that PyTorch can use for 'cuda', got none. Choose cpu.")

    def quiet(self) -> "Session":
        """The same device and the same list of efforts, with nothing shown and nothing kept on the way."""
        return replace(self, folder=None, show=False)

    def named(self, name: str, key: str = "") -> "Session":
        """The same session, in which `name` is trained; with a key, what is decided by that."""
        return replace(self, name=name, key=key or self.key)

    def drop_states(self) -> None:
        """Removes the states of trainings that ended, once what they made is kept."""
        for path in self.states:
            for file in sealed_as(path):
                file.unlink(missing_ok=True)
        self.states.clear()

    def end(self) -> None:
        """Removes all states, at the end of a run: one that was killed may have left some of trainings that ended."""
        for file in [] if self.folder is None else self.folder.glob(f"*{STATE}"):
            file.unlink(missing_ok=True)
        self.states.clear()

    def torch_device(self) -> torch.device:
        """The device that models and batches go to; BadInput where Accelerate is told to split models or round them."""
        for name in UNSUPPORTED_ACCELERATE_OPTIONS:
            if (value := os.environ.get(f"ACCELERATE_{name}", "no").lower()) not in ("", "no", "0", "false"):
                raise BadInput(
                    f"ACCELERATE_{name}: expected models that stay whole and as precise as they are, got '{value}'. "
                    "Unset it, or say no to it in 'accelerate config'."
                )
        if self.device is not None:
            return torch.device(self.device)
        from accelerate import Accelerator

        device: torch.device = Accelerator().device
        return device

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """The items, with how many are done and the time that is left; silent unless `show`.

        On a terminal that is a bar; elsewhere a line from time to time (`EVERY`), and one at the end.
        """
        if not self.show or total == 0:
            yield from items
            return
        start = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            yield from track(items, label, total, console=Console(stderr=True), transient=True)
        else:
            yield from self._with_time_left(items, label, total)
        self.say(f"{label}: done in {time.monotonic() - start:.1f} s")

    def _with_time_left(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """The items, with a line from time to time that says how long the rest will take."""
        start = last_line_at = time.monotonic()
        for count, item in enumerate(items):
            now = time.monotonic()
            if count and now - last_line_at >= EVERY:
                self.say(f"{label}: {count} of {total}, about {duration((now - start) / count * (total - count))} left")
                last_line_at = now
            yield item

    def say(self, line: str) -> None:
        """One line for the person who waits; silent unless `show`."""
        if self.show:
            print(visible(line), file=sys.stderr, flush=True)


TELLING = 0.05
"""The share of some work that must be done before it tells how long the rest takes: small parts are mostly overhead."""


class TimeLeft:
    """Tells as each part of some work begins how long all that is left may take, by the parts that are done.

    `weights`: of all parts in order, in proportion to the time that they are expected to take.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights, self.begun, self.start = weights, 0, time.monotonic()

    def words(self) -> str:
        """For the next part: "; about 3 min left"; nothing while less than `TELLING` of the work is done."""
        done, left = sum(self.weights[: self.begun]), sum(self.weights[self.begun :])
        self.begun += 1
        if done < TELLING * (done + left) or not done:
            return ""
        return f"; about {duration((time.monotonic() - self.start) / done * left)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: "0.4 s", "12 s", "3 min", "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
