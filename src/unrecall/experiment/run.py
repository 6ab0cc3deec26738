"""The whole story on one screen: a world, an unlearning, an audit, a record."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import nn

from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.files import content_key, read_text, write_text
from unrecall.experiment.tune import Tuned, tune
from unrecall.harness.audit import Case, audit
from unrecall.harness.deletion import foreseen
from unrecall.harness.requests import Defender
from unrecall.harness.suites import Audit
from unrecall.methods.base import GradientMethod, Method, Null
from unrecall.models.layers import named
from unrecall.nn.hooks import batchnorms
from unrecall.record.schema import Cost, Record, Tuning
from unrecall.scenarios.base import Scenario, Trained
from unrecall.spec import lines as spec
from unrecall.spec.parameters import Parameters
from unrecall.training.cost import metered
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def experiment(
    scenario: Scenario,
    method: Method,
    attacks: Audit | None = None,
    seed: int = 0,
    session: Session | None = None,
    *,
    tuned: bool = False,
) -> Record:
    """Trains the world, unlearns, attacks every model alike, judges, and gives the record.

    With a session that has a folder, every finished part is kept there, and an interrupted run goes on to the same
    record. `tuned` searches the method's strength first, on forget and validation data alone.
    """
    session = session or Session()
    request = scenario.request.with_validation() if tuned else scenario.request
    task = scenario.task
    foreseen((attacks or Audit.standard()).of(task), request, task)
    original = scenario.train_original(seed, session)
    task.check(original.model, request)
    layered(original.model, (method, method.core(), *(attacks or Audit.standard()).of(task)))
    retrained = references(scenario, session)
    chosen, tuning = searched(method, original.model, scenario, seed, session) if tuned else (method, None)
    unlearned = performed("unlearned", chosen, original.model, scenario, seed, session)
    null = null_of(chosen, original.model, scenario, seed, session)
    costs = {
        "original": original.cost,
        "unlearned": unlearned.cost,
        "retrained": retrained[0].cost if retrained else None,
    }
    name = spec.show(chosen)
    return audit(
        original=original.model,
        unlearned=unlearned.model,
        retrained=[one.model for one in retrained],
        null=null,
        request=request,
        task=task,
        attacks=attacks,
        seed=seed,
        session=session,
        case=Case(
            scenario=scenario.name,
            summary=scenario.summary,
            method=name,
            title=chosen.title,
            parameters=chosen.as_dict(),
            costs={role: cost for role, cost in costs.items() if cost is not None},
            tuning=tuning,
            reported=scenario.reported.get(name.split(":")[0], {}),
        ),
        defender=defending(chosen, original.model, scenario, session),
    )


def layered(model: nn.Module, parts: Iterable[Parameters]) -> None:
    """BadInput, before anything more is trained, where `layers` of a method or an attack are none of the model's."""
    for part in parts:
        named(model, getattr(part, "layers", ()))


def loaded(like: nn.Module, path: Path) -> nn.Module:
    """Somebody's checkpoint of the architecture of `like`."""
    return weights.load(copy.deepcopy(like), path).eval()


def references(scenario: Scenario, session: Session) -> list[Trained]:
    """The retrained models: the user's own, and as many more as the scenario wants and can train."""
    wanted = max(len(scenario.retrained), scenario.references if scenario.can_retrain() else 0)
    return [scenario.train_retrained(i, session) for i in range(wanted)]


def performed(
    role: str, method: Method, original: nn.Module, scenario: Scenario, seed: int, session: Session
) -> Trained:
    """The method's model and what it took, from the session's folder where an earlier run left it there."""
    key = _key(method, original, scenario, seed)
    path = None if session.folder is None else session.folder / f"{role}-{key}.safetensors"
    if path is not None and path.exists():
        known = weights.load(copy.deepcopy(original), path).to(session.place()).eval()
        return Trained(known, Cost.model_validate_json(read_text(path.with_suffix(".json"))))
    session.say(f"{role}: {spec.show(method.base if isinstance(method, Null) else method)}")
    spent = metered(session)
    with spent:
        model = method.unlearn(original, Job(scenario.request, scenario.task, seeded(seed), session))
    if path is not None:
        write_text(path.with_suffix(".json"), spent.cost.model_dump_json())
        weights.save(model, path)
    return Trained(model, spent.cost)


def defending(method: Method, original: nn.Module, scenario: Scenario, session: Session) -> Defender:
    """The method as it stands, ready to honour other requests than the scenario's own."""
    quiet = replace(session, folder=None, show=False)

    def unlearn(request: Request, seed: int) -> nn.Module:
        return method.unlearn(original, Job(request, scenario.task, seeded(seed), quiet))

    def retrain(request: Request, index: int) -> nn.Module:
        return replace(scenario, request=request, retrained=()).train_retrained(index, session).model

    return Defender(repr(method), unlearn, retrain if scenario.can_retrain() else None)


def null_of(method: Method, original: nn.Module, scenario: Scenario, seed: int, session: Session) -> nn.Module | None:
    """What the same passes at learning rate 0 leave; the original itself where there are no statistics to move."""
    core = method.core()
    if not isinstance(core, GradientMethod) or not core.has_null:
        return None
    moving = method.moving()
    if moving is None or not batchnorms(original):
        return original
    return performed("null", Null(moving), original, scenario, seed, session).model


def searched(
    method: Method, original: nn.Module, scenario: Scenario, seed: int, session: Session
) -> tuple[Method, Tuning]:
    """The method at the strength that tuning chose; kept in the session's folder."""
    key = _key(method, original, scenario, seed)
    path = None if session.folder is None else session.folder / f"tuning-{key}.json"
    if path is not None and path.exists():
        tuning = Tuning.model_validate_json(read_text(path))
        return method.scaled(tuning.chosen), tuning
    quiet = replace(session, folder=None)
    found: Tuned = tune(method, original, scenario.request, scenario.task, seeded(seed), quiet)
    if path is not None:
        write_text(path, found.tuning.model_dump_json())
    return found.method, found.tuning


def _key(method: Method, original: nn.Module, scenario: Scenario, seed: int) -> str:
    asked = (scenario.request.fingerprint, repr(scenario.task), str(seed))
    return content_key(repr(method), weights.digest_of(original), *asked)
