"""Requests that come one after another: each is honoured by the model that the one before left behind."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from unrecall.experiment.run import Outcome, experiment
from unrecall.harness.suites import Suite
from unrecall.methods.base import Method
from unrecall.scenarios.base import Scenario
from unrecall.training.session import Session


def sequence(
    scenarios: Iterable[Scenario],
    method: Method,
    attacks: Suite | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Iterator[Outcome]:
    """The outcome of each request, in order. A scenario's forget is what its own request asks for, and nothing before.

    Its retain, too, must hold nothing that an earlier request asked for: `MovieLens(checkpoint=i)` sees to that. The
    first starts from its own original, each other from the model that was unlearned before; all are audited beside
    models that were retrained without anything that was asked up to then, as their scenarios train them. With a session
    that has a folder each request has a folder in it, and a sequence that was killed goes on to the same models.
    """
    session, model = session or Session(), None
    for number, scenario in enumerate(scenarios, 1):
        folder = session.folder and session.folder / f"request-{number}"
        start = scenario if model is None else replace(scenario, original=model)
        outcome = experiment(start, method, attacks, seed, replace(session, folder=folder))
        model = outcome.model
        yield outcome
