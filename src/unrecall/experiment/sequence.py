"""Requests that come one after another: each is honoured by the model that the one before left behind."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from unrecall.data.examples import iterate
from unrecall.data.request import TRAINING
from unrecall.errors import BadInput
from unrecall.experiment.run import Outcome, experiment
from unrecall.harness.suites import Suite
from unrecall.methods.base import Method
from unrecall.scenarios.base import Scenario
from unrecall.tasks.protocols import Recommending, offers, recommending
from unrecall.training.session import Session


def sequence(
    scenarios: Iterable[Scenario],
    method: Method,
    attacks: Suite | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Iterator[Outcome]:
    """The outcome of each request, in order. A scenario's forget is what its own request asks for, and nothing before.

    Neither it nor retain may hold what an earlier request asked for, and no other set what earlier requests forget or
    retain: `MovieLens(checkpoint=i)` sees to that. The first starts from its own original, each other from the model
    that was unlearned before; all are audited beside models that were retrained without anything that was asked up to
    then, as their scenarios train them. With a session that has a folder each request has a folder in it, and a
    sequence that was killed goes on to the same models.
    """
    session, model = session or Session(), None
    forgotten, trained = set[object](), set[object]()
    for number, scenario in enumerate(scenarios, 1):
        for name in scenario.request.sets:
            before, what = (forgotten, "forgotten") if name in TRAINING else (trained, "trained on")
            if back := before & _contents(scenario, name):
                raise BadInput(
                    f"sequence: expected {name} of request {number} to hold nothing that was {what} before, got "
                    f"{len(back)} such examples. Put the requests in order, and take these out of {name}."
                )
        forgotten |= _contents(scenario, "forget")
        trained |= _contents(scenario, "forget") | _contents(scenario, "retain")
        folder = session.folder and session.folder / f"request-{number}"
        start = scenario if model is None else replace(scenario, original=model)
        outcome = experiment(start, method, attacks, seed, replace(session, folder=folder))
        model = outcome.model
        yield outcome


def _contents(scenario: Scenario, name: str) -> set[object]:
    """What each example of a set is: whose interaction with what, whatever its history, or its sha256."""
    request = scenario.request
    if offers(scenario.task, Recommending):
        task = recommending("sequence", scenario.task)
        return {(task.user(example), task.item(example)) for example in iterate(request.sets[name])}
    return {*request.identities[name].values}
