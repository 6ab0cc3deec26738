"""An audit: a setting, what every metric measures in it, what every attack finds, a record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import NoneType
from typing import Any

import numpy as np
from torch import nn

from unrecall.attacks.base import Attack, AttackKind
from unrecall.data.request import SAMPLED, SPLITS, Request
from unrecall.data.sizes import SAMPLE
from unrecall.data.splitting import file_of
from unrecall.disk.cache import Cache, model_form
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, Fields, at_least, built_in, check_fields, kind_of, positive_or_none
from unrecall.evidence.setting import Defender, Models, Setting
from unrecall.harness.deletion import deletion_finding
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.inspection import inspection_finding
from unrecall.harness.never_trained import beside_never_trained
from unrecall.harness.score_files import write_scores
from unrecall.harness.scoring import score_finding
from unrecall.harness.suites import Attacks, suite_of
from unrecall.methods.base import Method, method_of
from unrecall.metrics import METRICS
from unrecall.metrics.base import Measured
from unrecall.nn.hooks import mode
from unrecall.nn.usable import check_model
from unrecall.nn.waiting import ask_for, taking_turns
from unrecall.record.doubts import Facts, doubts
from unrecall.record.judgement import judge_all
from unrecall.record.provenance import provenance, without_folders
from unrecall.record.schema import Exhibit, NeverTrained, Record, Run
from unrecall.spec import lines
from unrecall.tasks.base import Task, check_data, cuts
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session, TimeLeft

FINDERS: Mapping[AttackKind, Callable[[Any, Setting], Finding]] = {
    "scored": score_finding,
    "inspection": inspection_finding,
    "deletion": deletion_finding,
}


FIELDS: Fields = {
    "request": (kind_of(Request), "a Request"),
    "task": (kind_of(Task), "a Task, as ur.tasks.Classification() is"),
    "retrained": (kind_of(list, tuple, nn.Module), "a model, or a list of models, empty where there are none"),
    "seed": (at_least(0), "a whole number from 0 on"),
    "session": (kind_of(Session, NoneType), "a Session or None"),
    "sample": (at_least(1, or_none=True), "a number of examples from 1 on, or None for all"),
    "run": (kind_of(Run, NoneType), "a Run, or None"),
    "defender": (kind_of(Defender, NoneType), "a Defender, or None"),
    "rate": (positive_or_none, "a number above 0, or None"),
    "show_examples": (kind_of(bool), "True or False"),
    "method": (
        kind_of(Method, str, NoneType),
        "a Method, as ur.methods.RURK() is, its line, as 'rurk:tau=0.05', or None",
    ),
}
"""What else an audit is given beside models and attacks."""


def audit(
    *,
    original: nn.Module,
    unlearned: nn.Module,
    request: Request,
    task: Task,
    retrained: nn.Module | Sequence[nn.Module] = (),
    null: nn.Module | None = None,
    attacks: Attacks = None,
    seed: int = 0,
    session: Session | None = None,
    method: Method | str | None = None,
    run: Run | None = None,
    defender: Defender | None = None,
    rate: float | None = None,
    sample: int | None = SAMPLE,
    show_examples: bool = False,
) -> Record:
    """Measures and attacks every model in the same way, and returns the record with its verdict and doubts.

    Models move to the session's device and keep their mode; if they don't all fit, they take turns, and some end on
    the host.
    `retrained`: one, several or none. `attacks`: a suite, names or attacks; the standard suite by default. `null`: the
    same method at learning rate 0, where there is one. `method`: what made the unlearned model, for the record to name,
    or its line; `run`: what else the record says of it. `defender`: who honours requests, for attacks on the method.
    With fewer than two retrained models the unlearned one is judged beside records that were never trained on; `rate`
    is then the learning rate of fine-tuning attacks (see `fixed_suite`). `sample`: on how many examples of retain, and
    of the test set, models are looked at, at most, drawn at random; None for all. `show_examples`: whether pictures
    and texts of forget, and what models write about them, stand in the record. The same inputs and seed give the same
    numbers.
    Raises BadInput where models and data don't fit, or where no attack of the suite can run.
    """
    check_fields("audit", FIELDS, {**locals()})
    run, session, chosen = described(run or Run(), method), session or Session(), suite_of(attacks)
    models = Models(original, unlearned, models_of(retrained), null)
    setting = Setting(models, request, task, int(seed), session, defender, run.costs, sample)
    with ExitStack() as stack:
        for _, model in setting.subjects:
            check_model(model)
            stack.enter_context(mode(model, training=False))
        distinct = list(dict.fromkeys(model for _, model in setting.subjects))
        present = stack.enter_context(taking_turns(distinct, session.torch_device()))
        if present < len(distinct):
            session.say(f"{present} of {len(distinct)} models are on the device at a time, the others wait")
        for _, model in setting.subjects:
            check_data(task, ask_for(model), request)
        stack.enter_context(own_randomness(setting.seed))  # some libraries draw as they are imported
        setting = setting.with_task(task.settled_and_checked(original, request))
        suiting = chosen.suiting(setting.task)
        setting.check_roles()
        figures = measure_all(setting)
        findings = list(_findings(suiting, setting))
        exhibits = list(_exhibits(setting, show=show_examples))
        beside_holdout = beside_never_trained(setting, rate) if len(models.retrained) < 2 else (None, {})
    record = _record(run, setting, figures, findings, exhibits, beside_holdout)
    if show_examples:
        return record
    return record.model_copy(update={"readings": [reading.without_texts() for reading in record.readings]})


def measure_all(setting: Setting) -> list[Measured]:
    """What is measured whatever attacks there are."""
    return [metric.measure(setting) for metric in METRICS if metric.suits(setting)]


def models_of(models: nn.Module | Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    """Several models as a tuple, which may be empty; one as a tuple of it."""
    return (models,) if isinstance(models, nn.Module) else tuple(models)


def described(run: Run, method: Method | str | None) -> Run:
    """The run with the method's line, as the command line reads it, its title and its parameters; without folders."""
    if method is not None:
        method = method_of(method)
        stated = {"method": lines.show(method), "title": method.title, "parameters": method.as_dict()}
        run = run.model_copy(update=stated)
    named = {name: without_folders(getattr(run, name)) for name in ("summary", "method", "title", "parameters")}
    return run.model_copy(update=named)


def _findings(suiting: Sequence[Attack], setting: Setting) -> Iterator[Finding]:
    """What each attack finds; people are told which of how many is run, and how long all others may take."""
    time_left = TimeLeft([1] * len(suiting))
    for i, attack in enumerate(suiting, 1):
        setting.session.say(f"attack {i} of {len(suiting)}: {report_of(attack).title}{time_left.words()}")
        yield finding_of(attack, setting)
        if not built_in(type(attack)):
            _check_unchanged(attack, setting)


def _check_unchanged(attack: Attack, setting: Setting) -> None:
    """BadInput where an attack of somebody's own changed a model that it was given: what follows would be another's."""
    for role, model in setting.models.by_role().items():
        if digest_of(model) != setting.digests[role]:
            raise BadInput(
                f"{type(attack).__name__}: expected the models to stay as they were, got {role} changed. Attack "
                "copy.deepcopy(model), and load the models again before another audit."
            )


def finding_of(attack: Attack, setting: Setting) -> Finding:
    """What an attack finds, each with a seed of its own; an interrupted audit goes on after what was finished."""
    session = setting.session
    own = setting.with_seed(int(content_key(str(setting.seed), type(attack).__name__), 16) % 2**31)
    run = FINDERS[attack.kind]
    if attack.kind == "scored":  # its scores are cached, model by model
        return run(attack, own)
    key = (repr(attack), *setting.key, *setting.model_keys.values(), str(own.seed), code_key(attack, run))
    defender = setting.defender.name if setting.defender else ""
    cache, form = Cache(session.folder), model_form(Finding)
    return cache.get(type(attack).__name__.lower(), (*key, defender), form, lambda: run(attack, own))


def _record(
    run: Run,
    setting: Setting,
    figures: Sequence[Measured],
    findings: Sequence[Finding],
    exhibits: list[Exhibit],
    beside_holdout: tuple[NeverTrained | None, Mapping[str, np.ndarray]],
) -> Record:
    """The record: everything that was measured and found, judged, and what there is to doubt.

    `beside_holdout`: the verdict beside records that were never trained on, or None, and the scores it follows from.
    """
    rows = [row for part in figures for row in part.measurements]
    rows += [row for finding in findings for row in finding.measurements]
    never_trained, scores = beside_holdout
    labelled, verdict = judge_all(rows, [finding.report for finding in findings], never_trained)
    record = Record(
        scenario=run.scenario,
        scenario_summary=run.summary,
        sizes={str(split): len(setting.request[split]) for split in SPLITS},
        observed=_sampled(setting),
        kind=setting.request.kind,
        method=run.method,
        method_title=run.title,
        parameters=run.parameters,
        seed=setting.seed,
        seeds=run.seeds,
        tuning=run.tuning,
        verdict=verdict,
        measurements=labelled,
        attacks=[
            report.model_copy(update={"parameters": without_folders(report.parameters)})
            for report in (finding.report for finding in findings)
        ],
        doubts=[],
        exhibits=exhibits,
        readings=[reading for part in figures for reading in part.readings],
        matrices=[matrix for part in figures for matrix in part.matrices],
        costs=run.costs,
        provenance=provenance(
            setting.request.fingerprint, setting.digests, setting.session.torch_device(), run.identity
        ),
        reported=run.reported,
        scores=write_scores(findings, setting.session.folder, scores),
        never_trained=never_trained,
    )
    facts = replace(Facts.of(record), cuts=cuts(setting.task, setting.request))
    return record.model_copy(update={"doubts": doubts(facts)})


def _sampled(setting: Setting) -> dict[str, int]:
    """On how many examples of a split models were looked at, where not on all."""
    pairs = ((split, len(setting.observed[split])) for split in SAMPLED)
    return {str(split): count for split, count in pairs if count < len(setting.request[split])}


def _exhibits(setting: Setting, count: int = 8, *, show: bool = False) -> Iterator[Exhibit]:
    """The forget examples on which the unlearned model is most confident beyond retrained ones.

    `show`: whether with what they say, and the files that they are.
    """
    evidence = setting.evidence["unlearned"]
    own = evidence.signals["forget"].confidence
    references = [reference["forget"].confidence for reference in evidence.references]
    base = np.mean(references, axis=0) if references else np.zeros_like(own)
    for i in map(int, np.argsort(base - own, kind="stable")[:count]):
        beside = f", retrained {base[i]:.2f}" if references else ""
        words, forget = f"unlearned {own[i]:.2f}{beside}", setting.request.forget
        file = f"{name}, " if show and (name := file_of(forget, i)) else ""
        exhibit = setting.task.exhibit(forget[i], file + words).model_copy(update={"index": i})
        yield exhibit if show else exhibit.without_content(words)
