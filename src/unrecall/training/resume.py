"""What an interrupted run of the loop leaves behind, so that it ends the same when it is started again."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unrecall.disk.files import unwritable, writing
from unrecall.errors import BadInput
from unrecall.training.session import Effort, Session


@dataclass
class Saved:
    """The state of one run of the loop on disk, under a key that only the same run has."""

    session: Session
    name: str
    key: str
    at: float = field(default_factory=time.monotonic)
    good: int = 0

    @property
    def path(self) -> Path | None:
        """Where the state goes; None where the session keeps nothing."""
        return None if self.session.folder is None else self.session.folder / f"{self.name}.{self.key}.ckpt"

    def restore(
        self, model: nn.Module, optimizer: Any, scheduler: Any, generator: torch.Generator, effort: Effort
    ) -> int:
        """Puts everything back as it was kept and gives the step to go on from; 0 where nothing was."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise BadInput(
                f"{self.path}: expected the state of an unfinished run, got a damaged file. Remove it to start anew."
            ) from error
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        generator.set_state(state["generator"])
        effort.steps, effort.passes, effort.seconds, effort.losses = state["effort"]
        self.good = int(state["step"])
        return self.good

    def keep(
        self, step: int, model: nn.Module, optimizer: Any, scheduler: Any, generator: torch.Generator, effort: Effort
    ) -> None:
        """Writes the state, unless the last writing was less than `session.every` seconds ago."""
        if self.path is None or time.monotonic() - self.at < self.session.every:
            return
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "generator": generator.get_state(),
            "effort": [effort.steps, effort.passes, effort.seconds, effort.losses],
        }
        try:
            with writing(self.path) as temporary:
                torch.save(state, temporary)
        except RuntimeError as error:
            raise unwritable(self.path, error) from error
        self.good, self.at = step, time.monotonic()

    def last_good(self) -> str:
        """A sentence that names the last good state, for the message of a divergence."""
        if self.path is None or not self.good:
            return "The model given is untouched; no earlier state of this run was kept."
        return f"The last good state, at step {self.good}, is in {self.path}."

    def forget(self) -> None:
        """Removes the state of a run that has ended well."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
