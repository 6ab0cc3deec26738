"""What an interrupted run of the loop leaves behind, so that it ends the same when it is started again."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unrecall.disk.files import discard, intact, sealed_as, unwritable, writing
from unrecall.disk.run_folder import file_name
from unrecall.errors import visible
from unrecall.training.session import STATE, Effort, Session


@dataclass
class Progress:
    """Everything that a run of the loop changes from step to step, so that a kill must not lose it."""

    model: nn.Module
    optimizer: Any
    scheduler: Any
    generator: torch.Generator
    effort: Effort = field(default_factory=Effort)

    def state(self) -> dict[str, Any]:
        """All of it, as `torch.save` takes it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "effort": asdict(self.effort),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Puts everything back, in place."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        for name, value in state["effort"].items():
            setattr(self.effort, name, value)
        self.effort.resumed = True


@dataclass
class Saved:
    """The progress of one run of the loop on disk, under a key that only the same run has.

    `at`: when it was last written, by the monotonic clock; `good`: at which step.
    """

    session: Session
    key: str
    at: float = field(default_factory=time.monotonic)
    good: int = 0

    @property
    def path(self) -> Path | None:
        """Where the state goes; None where the session keeps nothing."""
        folder = self.session.folder
        return None if folder is None else folder / f"{file_name(self.session.name)}.{self.key}{STATE}"

    def restore(self, progress: Progress) -> int:
        """Puts everything back as it was written and gives the step to go on from; 0 where nothing was.

        A damaged file is removed with a warning, and training starts anew; without a warning where another process that
        trains the same took it.
        """
        for file in [] if self.path is None else sealed_as(self.path):
            try:
                if intact(file):
                    progress.load(torch.load(file, weights_only=True, map_location="cpu"))
                    self.good = progress.effort.steps
                    return self.good
            except FileNotFoundError:
                continue
            warnings.warn(f"{visible(str(file))}: damaged, so this training starts anew.", stacklevel=2)
            discard(file)
        return 0

    def keep(self, progress: Progress) -> None:
        """Writes the progress, unless the last writing was less than `session.every` seconds ago."""
        if self.path is None or time.monotonic() - self.at < self.session.every:
            return
        older = sealed_as(self.path)
        try:
            with writing(self.path, sealed=True, private=True) as temporary:
                torch.save(progress.state(), temporary)
        except RuntimeError as error:
            raise unwritable(self.path, error) from error
        for file in older:
            file.unlink(missing_ok=True)
        self.good, self.at = progress.effort.steps, time.monotonic()

    def last_good(self) -> str:
        """A sentence that names the last good state, for the message of a divergence."""
        states = sealed_as(self.path) if self.path is not None and self.good else []
        if not states:
            return "The model given is untouched; no earlier state of this run was kept."
        return f"The last good state, at step {self.good}, is in {states[0]}."

    def end(self) -> None:
        """Leaves the state of a run that has ended well to the session, which drops it once the result is kept."""
        if self.path is not None:
            self.session.states.append(self.path)
