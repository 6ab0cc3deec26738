"""A case: what is about to be run, as it is looked at and timed before."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from unrecall.attacks.base import Attack
from unrecall.data.request import Request
from unrecall.errors import MissingReference, NotSupported
from unrecall.experiment.against import Against
from unrecall.experiment.goal import stopping
from unrecall.methods.base import Method
from unrecall.scenarios.base import Role, Scenario
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


@dataclass(frozen=True)
class Case:
    """What is about to be run: a scenario, the method and the attacks that it is meant for, and where they run.

    `tuned`: whether the method's strength will be searched first, on examples that the audit then does without, and
    against which attack, if any. `seed`: of the original.
    """

    scenario: Scenario
    method: Method
    attacks: Sequence[Attack]
    session: Session
    tuned: bool | Against = False
    seed: int = 0

    @cached_property
    def request(self) -> Request:
        """The scenario's, as the run audits it: without what tuning looks at, where it has that."""
        if self.tuned:
            with suppress(MissingReference, NotSupported):  # the line on tuning says why
                return self.scenario.request.with_validation()
        return self.scenario.request

    @property
    def searched(self) -> bool:
        """Whether the method's strength will be searched: it has one, and there is something to look at."""
        return bool(self.tuned) and bool(self.method.innermost().strength) and self.request.validation is not None

    @property
    def retrained(self) -> int:
        """How many retrained models there will be."""
        return self.scenario.retrained_count

    @property
    def trainings(self) -> dict[Role, int]:
        """How many models are trained, by role."""
        return {
            "original": int(self.scenario.original is None and self.scenario.recipe is not None),
            "retrained": self.retrained - len(self.scenario.retrained),
        }

    @property
    def job(self) -> Job:
        """The scenario's request and task, shown nowhere; training ends by itself where the run's does."""
        job = Job(self.request, self.scenario.task, seeded(0), self.session.quiet())
        if self.tuned is True:
            with suppress(MissingReference, NotSupported):
                return stopping(job)
        return job

    def start(self) -> nn.Module:
        """The given original, or an untrained model, where the case runs."""
        model = self.scenario.original or self.scenario.untrained_model(self.seed, self.session)
        return model.to(self.session.torch_device()).eval()
