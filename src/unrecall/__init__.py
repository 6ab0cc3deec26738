"""unrecall makes a trained PyTorch model forget, attacks it to see whether it really did, and shows the evidence.

The straight line, left to right:

    Request, tasks.*      what must go, and how the model's modality works; split(data, indices) makes forget and retain
    forget                all of what follows in one call: a model and a request in, a model, a record and a page out
    methods.*             unlearn(model, Job(request, task)) -> model; tune finds a method's strength
    attacks.*, metrics.*  what every model is asked; suite("quick") is a list of attacks
    audit                 original, unlearned and retrained side by side -> Record
    report                records -> one page

Whatever can't be done is an UnrecallError: what was expected, what came, and what to do.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrecall import attacks, methods, metrics, report, scenarios, tasks
    from unrecall.data.examples import Absent
    from unrecall.data.loading import workers
    from unrecall.data.request import Request
    from unrecall.data.splitting import split
    from unrecall.errors import UnrecallError
    from unrecall.experiment.forget import forget
    from unrecall.experiment.tune import tune
    from unrecall.harness.audit import audit
    from unrecall.harness.suites import suite
    from unrecall.record.schema import Measurement, Record, Run
    from unrecall.scenarios.base import Scenario
    from unrecall.training.job import Job
    from unrecall.training.loop import Fit
    from unrecall.training.session import Session

__version__ = "0.1.0"

_WHERE = {
    "Absent": "unrecall.data.examples",
    "Request": "unrecall.data.request",
    "Fit": "unrecall.training.loop",
    "Job": "unrecall.training.job",
    "Scenario": "unrecall.scenarios.base",
    "Session": "unrecall.training.session",
    "split": "unrecall.data.splitting",
    "workers": "unrecall.data.loading",
    "forget": "unrecall.experiment.forget",
    "tune": "unrecall.experiment.tune",
    "suite": "unrecall.harness.suites",
    "audit": "unrecall.harness.audit",
    "Run": "unrecall.record.schema",
    "Record": "unrecall.record.schema",
    "Measurement": "unrecall.record.schema",
    "UnrecallError": "unrecall.errors",
}

__all__ = [
    "Absent",
    "Fit",
    "Job",
    "Measurement",
    "Record",
    "Request",
    "Run",
    "Scenario",
    "Session",
    "UnrecallError",
    "attacks",
    "audit",
    "forget",
    "methods",
    "metrics",
    "report",
    "scenarios",
    "split",
    "suite",
    "tasks",
    "tune",
    "workers",
]


def __dir__() -> list[str]:
    """The public names, those too that nothing has used yet."""
    return __all__


def __getattr__(name: str) -> Any:
    """Imports on first use, so that the command line can list and complain without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module 'unrecall' has no attribute '{name}'")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    return importlib.import_module(f"unrecall.{name}")
