"""The whole line for somebody with a model, a request and no scenario: unlearn, audit, record and page."""

from collections.abc import Iterator, Sequence
from types import NoneType

from torch import nn

from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.errors import Fields, MissingReference, at_least, check_fields, kind_of
from unrecall.experiment.goal import why_not_memorised
from unrecall.experiment.run import Outcome, experiment
from unrecall.harness.audit import models_of
from unrecall.harness.suites import Attacks, suite_of
from unrecall.methods.base import Method, method_of
from unrecall.nn.usable import no_module
from unrecall.record.possible_verdicts import Sizes, lacking
from unrecall.scenarios.base import FIELDS as FIELDS_OF_SCENARIO
from unrecall.scenarios.base import Scenario
from unrecall.tasks.base import Task
from unrecall.tasks.classification import Classification
from unrecall.training.session import Session

FIELDS: Fields = {
    "request": (kind_of(Request), "a Request, as ur.Request(forget, retain) is"),
    "method": (kind_of(Method, str), "a method or its line, as 'scrub' or 'rurk:tau=0.05'"),
    "task": (kind_of(Task, NoneType), "a Task, as ur.tasks.Classification() is, or None"),
    "retrained": (kind_of(list, tuple, nn.Module), "a model, or a list of models, empty where there are none"),
    "name": FIELDS_OF_SCENARIO["name"],
    "seed": (at_least(0), "a whole number from 0 on"),
    "session": (kind_of(Session, NoneType), "a Session or None"),
}
"""What each argument but the model must be."""


def forget(
    model: nn.Module,
    request: Request,
    method: Method | str,
    *,
    task: Task | None = None,
    retrained: nn.Module | Sequence[nn.Module] = (),
    attacks: Attacks = None,
    tune: bool = True,
    name: str = "model",
    seed: int = 0,
    session: Session | None = None,
) -> Outcome:
    """Makes a model forget, attacks it, and gives the new model and the record; the model stays as it was.

        outcome = ur.forget(model, ur.Request(forget, retain, holdout, test), "scrub")
        outcome.page("audit.html")
        torch.save(outcome.model.state_dict(), "forgot.pt")

    `method`: one, or its line on the command line. `task`: a classifier's unless given. `retrained`: models that were
    trained without forget; with fewer than two the verdict rests on the holdout. `attacks`: a suite, names or attacks;
    the standard suite by default. `tune`: whether the method's strength is searched first, where it has one and there
    are examples to search on. `name`: what the record and its page call the model. `session`: where it runs and what is
    shown; progress on stderr by default. With a session that has a folder an interrupted call goes on.

    What can't be judged is said before anything starts. Raises BadInput where model, data and task don't fit.
    """
    if not isinstance(model, nn.Module):
        raise no_module("forget: expected model to be a trained torch.nn.Module", model)
    check_fields("forget", FIELDS, {**locals()})
    chosen, session, models = method_of(method), session or Session(show=True), models_of(retrained)
    task = task or Classification.of(request)
    scenario = Scenario(
        name=name,
        summary=f"{type(model).__name__}, of which {len(request.forget)} examples must be forgotten.",
        task=task,
        request=request,
        original=model,
        retrained=models,
        references=len(models),
    )
    untuned = _untuned(chosen, request) if tune else ""
    audited = request.with_validation() if tune and not untuned else request
    for line in _consequences(audited, len(models), untuned):
        session.say(line)
    if reason := why_not_memorised(task, model, request):
        session.say(f"note: the model seems not to know what it must forget: {reason}.")
    outcome = experiment(scenario, chosen, suite_of(attacks), int(seed), session, tuned=tune and not untuned)
    session.say(outcome.record.verdict.line)
    return outcome


def _untuned(method: Method, request: Request) -> str:
    """Why a method isn't tuned; empty where it can be."""
    if method.innermost().strength is None:
        return f"{type(method).__name__} has no strength to tune"
    try:
        request.with_validation()
    except MissingReference as error:
        return str(error).removeprefix("tune: ").rstrip(".")
    return ""


def _consequences(request: Request, retrained: int, untuned: str) -> Iterator[str]:
    """What can't be judged or done, and why, a line each."""
    if untuned:
        yield f"not tuned: {untuned}."
    for examples in (request.holdout, request.test):
        if isinstance(examples, Absent):
            yield f"note: {examples.reason}."
    reason = lacking(Sizes.of(request, retrained)) if retrained < 2 else ""
    if reason:
        yield f"note: no verdict: {reason}. Two models that were trained without forget would allow one."
