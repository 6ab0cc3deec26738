"""An audit: which attacks are run, and how all the evidence about a few models becomes one record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import nn

from unrecall.attacks.base import Attack, InspectionAttack, MembershipAttack, RecognitionAttack, RecoveryAttack
from unrecall.attacks.deletion import RequestAttack
from unrecall.attacks.svc import SVC
from unrecall.data.request import Request
from unrecall.data.signals import Evidence
from unrecall.disk.cache import code_key
from unrecall.disk.files import content_key, read_text, write_text
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, MissingReference
from unrecall.harness.deletion import siege
from unrecall.harness.findings import Finding, Models, lay_out
from unrecall.harness.inspected import inspection
from unrecall.harness.recovery import recovery
from unrecall.harness.requests import Defender
from unrecall.harness.scored import evidence, membership, recognition
from unrecall.harness.suites import Audit
from unrecall.metrics import METRICS, average_gap, over_unlearning
from unrecall.metrics.answers import Found, read
from unrecall.metrics.contaminating import contamination
from unrecall.metrics.retrieval import pairing
from unrecall.nn.hooks import mode
from unrecall.record import stats
from unrecall.record.doubts import Facts, doubts
from unrecall.record.provenance import dirty, provenance
from unrecall.record.schema import AttackReport, Cost, Estimate, Exhibit, Measurement, Record, Tuning
from unrecall.record.verdict import judge
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Paired, Textual, unmixed
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

GAP = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_failure")


@dataclass(frozen=True)
class Case:
    """What a record says about an audit beyond its numbers."""

    scenario: str = "custom"
    summary: str = ""
    method: str = "unknown"
    title: str = "unknown method"
    parameters: Mapping[str, Any] | None = None
    costs: Mapping[str, Cost] | None = None
    tuning: Tuning | None = None
    reported: Mapping[str, float] | None = None


def audit(
    *,
    original: nn.Module,
    unlearned: nn.Module,
    request: Request,
    task: Task,
    retrained: Sequence[nn.Module] = (),
    null: nn.Module | None = None,
    attacks: Audit | None = None,
    seed: int = 0,
    session: Session | None = None,
    case: Case | None = None,
    defender: Defender | None = None,
) -> Record:
    """Measures, attacks and doubts, every model alike; models move to the session's device and keep their mode.

    `null`: the same method at learning rate 0, where there is one. `defender`: the method itself, for attacks on it.
    Without retrained models nothing can be judged, and the record says so. The same inputs and seed give the same
    numbers. Raises BadInput where models and data don't fit.
    """
    session, case = session or Session(), case or Case()
    models = Models(original, unlearned, tuple(retrained), null)
    with ExitStack() as stack:
        for model in models.by_role().values():
            stack.enter_context(mode(model.to(session.place()), training=False))
            task.check(model, request)
        seen = evidence(models, request, task, session)
        digests = {role: digest_of(model) for role, model in models.by_role().items()}
        found = [
            _kept(attack, models, seen, request, task, seed, session, digests, defender)
            for attack in (attacks or Audit.standard()).of(task)
        ]
        measured = _measured(models, seen, request, task, seed)
        spread = contamination(models, seen, request, task)
        told = read(models, seen, request, task, session) if isinstance(task, Textual) else Found([], [])
        paired = pairing(models, seen, request, task) if isinstance(task, Paired) else []
    reports = [one.report for one in found]
    names = [report.name for report in reports]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"audit: expected each attack once, got two called '{twice}'. Run them in separate audits.")
    measured += [*spread.measurements, *told.measurements, *paired]
    measured += [row for one in found for row in one.measurements]
    measured += [_gap(measured), *_cost(case.costs or {})]
    labelled, verdict = judge(measured)
    facts = Facts(
        request=request,
        measurements={m.name: m for m in labelled},
        reports=reports,
        references=len(retrained),
        tuning=case.tuning,
        dirty=dirty(),
        weights=digests,
    )
    return Record(
        scenario=case.scenario,
        scenario_summary=case.summary,
        sizes={name: len(request[name]) for name in ("forget", "retain", "holdout", "test")},
        kind=request.kind,
        method=case.method,
        method_title=case.title,
        parameters=dict(case.parameters or {}),
        seed=seed,
        tuning=case.tuning,
        verdict=verdict,
        measurements=labelled,
        attacks=reports,
        doubts=doubts(facts),
        exhibits=list(_worst(seen, request, task)),
        readings=told.readings,
        matrices=spread.matrices,
        costs=dict(case.costs or {}),
        provenance=provenance(request, digests, session.place()),
        reported=dict(case.reported or {}),
    )


def _measured(
    models: Models, seen: Mapping[str, Evidence], request: Request, task: Task, seed: int
) -> list[Measurement]:
    """Everything that signals alone tell, and OU@eps."""
    rows = [
        lay_out(
            m.name,
            m.title,
            m.group,
            {role: _known(m.compute, one) for role, one in seen.items()},
            leak=m.leak,
            margin=m.margin,
        )
        for m in METRICS
    ]
    return [*rows, _failure(seen), *_neighbours(models, request, task, seed)]


class _Kept(BaseModel):
    """A finding on disk, so that an interrupted audit goes on where it stopped."""

    report: AttackReport
    measurements: list[Measurement]


def _kept(
    attack: Attack,
    models: Models,
    seen: Mapping[str, Evidence],
    request: Request,
    task: Task,
    seed: int,
    session: Session,
    digests: Mapping[str, str],
    defender: Defender | None,
) -> Finding:
    asked = (repr(attack), repr(task), request.fingerprint, str(seed), defender.name if defender else "")
    key = content_key(code_key(), *asked, *digests.values())
    path = None if session.folder is None else session.folder / f"{type(attack).__name__.lower()}-{key}.json"
    if path is not None and path.exists():
        kept = _Kept.model_validate_json(read_text(path))
        return Finding(kept.report, kept.measurements)
    session.say(f"attack: {attack.title}")
    own_seed = int(content_key(str(seed), type(attack).__name__), 16) % 2**31
    if isinstance(attack, MembershipAttack):
        found = membership(attack, models, seen, task, own_seed)
    elif isinstance(attack, RecognitionAttack):
        found = recognition(attack, models, request, task, own_seed, session)
    elif isinstance(attack, RecoveryAttack):
        found = recovery(attack, models, request, task, own_seed, session)
    elif isinstance(attack, InspectionAttack):
        found = inspection(attack, models, request, task)
    elif isinstance(attack, RequestAttack):
        found = siege(attack, models, seen, request, task, own_seed, session, defender)
    else:
        raise BadInput(f"audit: expected an attack of one of the five kinds, got {type(attack).__name__}.")
    if path is not None:
        write_text(path, _Kept(report=found.report, measurements=found.measurements).model_dump_json())
    return found


def _known(compute: Callable[[Evidence], Estimate], evidence: Evidence) -> Estimate:
    """What a metric says; where the request lacks a set that it needs, the reason."""
    try:
        return compute(evidence)
    except MissingReference as reason:
        return Estimate(value=None, note=str(reason))


def _failure(seen: Mapping[str, Evidence]) -> Measurement:
    """The papers' MIA figure: the share of forget that the SVC calls not seen."""
    values = {role: _known(SVC().failure_rate, one) for role, one in seen.items()}
    return lay_out("mia_failure", "Forget called unseen by the papers' SVC", "privacy", values, leak="below")


def _neighbours(models: Models, request: Request, task: Task, seed: int) -> Iterator[Measurement]:
    """OU@eps in both forms; a row with a reason where the request is not for a class."""
    known = request.kind == "class"
    subjects = models.by_role()
    found = over_unlearning(models.original, subjects, request, unmixed(task), seeded(seed)) if known else {}
    for name, title in (("js", "OU@eps (JS)"), ("kl", "OU@eps (KL)")):
        none = Estimate(value=None, note="defined for class requests only")
        values = {role: stats.mean(getattr(found[role], name)) if known else none for role in subjects}
        yield lay_out(f"ou_{name}", title, "utility", values, unit="nats", margin=0.05)


def _gap(measured: Sequence[Measurement]) -> Measurement:
    """Average gap to the retrained models; its interval takes the four figures as independent."""
    rows = {m.name: m for m in measured if m.name in GAP}
    reference = {name: m.reference for name, m in rows.items() if m.reference is not None}
    values: dict[str, Estimate] = {}
    for role in ("original", "unlearned", "null"):
        own: dict[str, Estimate] = {name: getattr(m, role) for name, m in rows.items()}
        known = {name: one.value for name, one in own.items() if one.value is not None}
        if len(reference) < len(GAP) or len(known) < len(GAP):
            values[role] = Estimate(value=None, note="needs retrained models and all four figures")
            continue
        gap = average_gap(known, reference, GAP)
        halves = [((one.high or 0.0) - (one.low or 0.0)) / 2 for one in own.values()]
        half = math.hypot(*halves) / len(GAP)
        values[role] = Estimate(value=gap, low=max(0.0, gap - half), high=gap + half, n=min(e.n for e in own.values()))
    return lay_out("average_gap", "Average gap to retrained", "forgetting", values).model_copy(update={"ideal": "0"})


def _cost(costs: Mapping[str, Cost]) -> Iterator[Measurement]:
    """Time and passes as a share of retraining once, and peak memory."""
    unlearned, retrained = costs.get("unlearned"), costs.get("retrained")
    nothing = Estimate(value=None, note="not applicable")
    for name, title, unit in (
        ("cost_time", "Time, as a share of retraining", ""),
        ("cost_passes", "Examples passed, as a share of retraining", ""),
        ("cost_memory", "Peak memory", "MiB"),
    ):
        estimate = Estimate(value=None, note="unlearning or retraining was not timed in this run")
        if unlearned and name == "cost_memory":
            estimate = Estimate(value=unlearned.peak_mib)
        elif unlearned and retrained and retrained.seconds > 0 and retrained.passes > 0:
            ratio = {
                "cost_time": unlearned.seconds / retrained.seconds,
                "cost_passes": unlearned.passes / retrained.passes,
            }[name]
            estimate = Estimate(value=ratio)
        values = {"unlearned": estimate, "original": nothing, "null": nothing}
        yield lay_out(name, title, "cost", values, unit=unit)


def _worst(seen: Mapping[str, Evidence], request: Request, task: Task, count: int = 8) -> Iterator[Exhibit]:
    """The forget examples on which the unlearned model is most confident beyond retrained ones."""
    own = seen["unlearned"].signals["forget"].confidence
    references = [reference["forget"].confidence for reference in seen["unlearned"].references]
    base = np.mean(references, axis=0) if references else np.zeros_like(own)
    for i in np.argsort(base - own, kind="stable")[:count]:
        beside = f", retrained {base[i]:.2f}" if references else ""
        yield task.exhibit(request.forget[int(i)], f"unlearned {own[i]:.2f}{beside}")
