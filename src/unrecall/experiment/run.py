"""The whole story on one screen: a scenario, an unlearning, an audit, a record."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.cache import Cache, code_key, model_form, shared
from unrecall.disk.files import content_key, discard, file_key, read_json
from unrecall.errors import BadInput
from unrecall.evidence.setting import Defender, behaviour, model_key
from unrecall.experiment.against import Against, tune_against
from unrecall.experiment.goal import stopping
from unrecall.experiment.identity import data_key, identity, rate_key
from unrecall.experiment.seeds import Seeds
from unrecall.experiment.tune import UNMET, Search, summary, tune
from unrecall.harness.adversary import check_requests
from unrecall.harness.audit import audit
from unrecall.harness.suites import Suite, judged_names, suite
from unrecall.methods.base import Method, Null, has_null, null_base
from unrecall.models.layers import named
from unrecall.models.low_rank import ADAPTER, name_adapter
from unrecall.record.schema import Cost, Record, Run, Tuning
from unrecall.report import write
from unrecall.scenarios.base import Scenario, Trained, cached_model, trained_form
from unrecall.spec import lines
from unrecall.tasks.base import check_inputs
from unrecall.training.cost import metered
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


class Outcome(NamedTuple):
    """What comes of an experiment: the unlearned model, in eval mode, and the record of what was measured of it."""

    model: nn.Module
    record: Record

    def __repr__(self) -> str:
        """The model's class and the verdict; a record is long."""
        return f"Outcome({type(self.model).__name__}: {self.record.verdict.line})"

    def page(self, path: str | Path) -> None:
        """Writes the record's page, one HTML file; BadInput where something else than a page is there."""
        write([self.record], path, judged_names(self.record))


def experiment(
    scenario: Scenario,
    method: Method,
    attacks: Suite | None = None,
    seed: int | Seeds = 0,
    session: Session | None = None,
    *,
    tuned: bool | Against = False,
    rate: float | None = None,
    show_examples: bool = False,
) -> Outcome:
    """Trains the models, unlearns, attacks every model alike, judges, and gives the unlearned model and the record.

    `attacks`: the standard suite by default. `tuned`: whether the method's strength is searched first, on forget and
    validation data alone, or against which attack. `seed`: one for all that chance decides, or `Seeds`. `rate`,
    `show_examples`: as in `audit`. With a session that has a folder, every finished part is kept there, and an
    interrupted run goes on to the same record.
    """
    session, attacks, seeds = session or Session(), attacks or suite("standard"), Seeds.of(seed)
    request = scenario.request.with_validation() if tuned else scenario.request
    suiting = attacks.suiting(scenario.task)
    check_requests(suiting, request, scenario.task)
    original = scenario.train_original(seeds.training, session)
    check_inputs(scenario.task, original.model, request)
    for part in (method, method.innermost(), *suiting):
        named(original.model, getattr(part, "layers", ()))  # BadInput where they are none of the model's
    retrained = references(scenario, session)
    start = StartingPoint(scenario, original.model, seeds.unlearning, session, tuned)
    tuning = start.tuned(method) if tuned else None
    chosen = method if tuning is None else method.scaled(tuning.chosen)
    unlearned = start.unlearned(chosen)
    timed = [trained for trained in retrained if trained.cost is not None and trained.cost.seconds is not None]
    costs = {"original": original, "unlearned": unlearned}
    costs |= {"retrained": (timed or retrained)[0]} if retrained else {}
    run = Run(
        scenario=scenario.name,
        summary=scenario.summary,
        costs={role: trained.cost for role, trained in costs.items() if trained.cost is not None},
        tuning=tuning,
        identity=identity(scenario, method, suiting, (seeds, session), tuned) | rate_key(rate),
        seeds=seeds.differing,
        reported=dict(scenario.reported.get(lines.show(chosen).split(":")[0], {})),
    )
    record = audit(
        original=original.model,
        unlearned=unlearned.model,
        retrained=[trained.model for trained in retrained],
        null=start.null(chosen, unlearned.cost),
        request=request,
        task=scenario.task,
        attacks=attacks,
        seed=seeds.evaluation,
        session=session,
        method=chosen,
        run=run,
        defender=start.defender(chosen),
        rate=rate,
        show_examples=show_examples,
    )
    return Outcome(unlearned.model, record)


def loaded(like: nn.Module, path: Path) -> nn.Module:
    """Somebody's checkpoint of the architecture of `like`: safetensors, a Transformers folder, or an adapter of it."""
    if is_adapter(path):
        from unrecall.scenarios.language import with_adapter

        return with_adapter(copy.deepcopy(like), str(path))
    _check_classes(like, path / "config.json")
    return weights.load(copy.deepcopy(like), path).eval()


def _check_classes(like: nn.Module, config: Path) -> None:
    """BadInput where a folder's configuration names the classes otherwise, so that its outputs mean something else."""
    own: Any = getattr(getattr(like, "config", None), "id2label", None)
    content = read_json(config) if config.is_file() else {}
    theirs = content.get("id2label") if isinstance(content, dict) else None
    if not isinstance(own, dict) or not isinstance(theirs, dict):
        return
    for number, name in own.items():
        other = theirs.get(str(number), name)
        if other != name and not any(str(label).startswith("LABEL_") for label in (name, other)):  # which nobody named
            raise BadInput(
                f"{config}: expected id2label to name the classes as the original's does, got '{other}' for '{name}'. "
                "Only weights are read: bring the outputs into one order."
            )


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter of PEFT."""
    return (path / "adapter_config.json").is_file()


def checkpoint_key(path: Path) -> str:
    """sha256 of a checkpoint's weights, or of an adapter's, with what its configuration makes of them."""
    from unrecall.scenarios.language import ADAPTER_FILES, check_adapter

    if not is_adapter(path):
        return weights.digest_of_file(path)
    check_adapter(path)
    return content_key(*(file_key(path / file) for file in ADAPTER_FILES))


def references(scenario: Scenario, session: Session) -> list[Trained]:
    """The retrained models: the user's own, and as many more as the scenario wants and can train; all on the host."""
    count = max(len(scenario.retrained), scenario.references if scenario.can_retrain() else 0)
    trained = (scenario.train_retrained(i, session) for i in range(count))
    return [each._replace(model=each.model.to("cpu")) for each in trained]


@dataclass(frozen=True)
class StartingPoint:
    """What a method starts from: a scenario, its original model, a seed and a session.

    `search`: whether strengths are searched, or against which attack. By the product's own criterion training ends as
    soon as the request is forgotten, as far as validation data can tell.
    """

    scenario: Scenario
    original: nn.Module
    seed: int
    session: Session
    search: bool | Against = False

    @property
    def stops(self) -> bool:
        """Whether training ends as soon as the request is forgotten."""
        return self.search is True

    def unlearned(self, method: Method, role: str = "unlearned") -> Trained:
        """The method's model and what it took; from the session's folder where an earlier run left it there."""

        def compute() -> Trained:
            self.session.say(f"{role}: {lines.show(method.base if isinstance(method, Null) else method)}")
            meter = metered(self.session)
            job = self.job(self.session.named(role, content_key(*key)))
            if self.session.folder is not None:
                discard(self.session.folder / ADAPTER)  # of a run that was killed
            with meter:
                model = method.unlearn(self.original, stopping(job) if stops else job)
            model = weights.rounded(model, job.precision)
            if self.session.folder is not None:
                name_adapter(self.session.folder, model)
            return Trained(model, meter.cost)

        stops = self.stops and not isinstance(method, Null)
        key = (*self._key(method), *(("stops", code_key(stopping)) if stops else ()))
        form = trained_form(self.original, self.session)
        trained = cached_model(Cache(self.session.folder), role, key, form, compute)
        self.session.drop_states()
        return trained

    def null(self, method: Method, cost: Cost | None) -> nn.Module | None:
        """The model after the same passes at learning rate 0; the original where they move no BatchNorm statistics.

        `cost`: what the method took, which says how many passes it made where it stopped by itself. None for a method
        that doesn't run the loop, or re-initialises weights.
        """
        if not has_null(method):
            return None
        base = null_base(method, self.original)
        if base is None:
            return self.scenario.task.without_data_of(self.original, self.scenario.request.forget)
        steps = tuple(cost.phases) if self.stops and cost is not None else ()
        return self.unlearned(Null(base, steps), "null").model

    def tuned(self, method: Method) -> Tuning:
        """The strength that tuning chose, and what it tried; kept where other runs of the same find it."""
        against = self.search.key(self.scenario) if isinstance(self.search, Against) else ""
        key = (*self._key(method), code_key(tune_against if against else Search), against, str(self.session.place()))
        cache = shared(on_disk=self.session.folder is not None, say=self.session.say)
        tuning = cache.get("tuning", key, model_form(Tuning), lambda: self._search(method))
        if tuning.criterion.endswith(UNMET):
            self.session.say(f"tuning fell short of its goal: {tuning.criterion}")
        self.session.say(summary(tuning, self.scenario.request.kind))
        return tuning

    def _search(self, method: Method) -> Tuning:
        job = self.job(self.session)
        if isinstance(self.search, Against):
            return tune_against(method, self.original, job, self.search)
        return tune(method, self.original, job)

    def defender(self, method: Method) -> Defender:
        """The method as it stands, ready to honour other requests than the scenario's own."""

        def unlearn(request: Request, seed: int) -> nn.Module:
            job = self.job(self.session.quiet()).seeded(seed)
            if self.stops:
                validation = self.scenario.request.with_validation().validation
                job = stopping(job.on(request.with_own(validation=validation)))
            else:
                job = job.on(request)
            return weights.rounded(method.unlearn(self.original, job), job.precision)

        def retrain(request: Request, index: int) -> nn.Module:
            return replace(self.scenario, request=request, retrained=()).train_retrained(index, self.session).model

        scenario = self.scenario
        settings = (self.stops, scenario.precision, scenario.recipe, scenario.rerecipe, scenario.objective)
        code = code_key(method, stopping, scenario.task, *filter(None, [scenario.build]))
        validation = data_key(scenario.request.with_validation()) if self.stops else ""
        name = " ".join([*map(repr, (method, *settings)), code, validation])
        return Defender(name, unlearn, retrain if self.scenario.can_retrain() else None)

    def job(self, session: Session) -> Job:
        """The scenario's request and task, with a generator that starts from this seed."""
        scenario = self.scenario
        return Job(scenario.request, scenario.task, seeded(self.seed), session, precision=scenario.precision)

    def _key(self, method: Method) -> tuple[str, ...]:
        request, task, precision = self.scenario.request, self.scenario.task, self.scenario.precision or ""
        data = (data_key(request), repr(task), str(self.seed))
        return (repr(method), *self._original, *data, code_key(method, task), precision)

    @cached_property
    def _original(self) -> tuple[str, str]:
        """What decides what the original computes, read once: no method changes it."""
        return model_key(self.original), behaviour(self.original, self.scenario.task, self.scenario.request)
