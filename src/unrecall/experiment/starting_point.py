"""What a method starts from, and what comes of it there: the unlearned model, its null, its tuned strength."""

import time
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.cache import Cache, model_form, shared
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key, discard
from unrecall.evidence.model_keys import first_answers_digest, model_key
from unrecall.evidence.setting import Defender
from unrecall.experiment.against import Against, tune_against
from unrecall.experiment.goal import stopping
from unrecall.experiment.run_identity import data_key
from unrecall.experiment.tune import Search, summary, tune
from unrecall.methods.base import Method, Null, has_null, null_base
from unrecall.models.low_rank import ADAPTER, name_adapter
from unrecall.record.schema import Cost, Tuning
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.model_cache import Trained, cached_model, trained_form
from unrecall.spec import lines
from unrecall.training.cost import metered
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


@dataclass(frozen=True)
class StartingPoint:
    """What a method starts from: a scenario, its original model, a seed and a session.

    `search`: False runs the method as it is. True searches its strength, and training stops once the request is
    forgotten, as judged on validation data. An `Against` searches the strength against that attack.
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

    def tuning(self, method: Method) -> Tuning:
        """The strength that tuning chose, and what it tried; kept where other runs of the same find it."""
        against = self.search.key(self.scenario) if isinstance(self.search, Against) else ""
        key = (
            *self._key(method),
            code_key(tune_against if against else Search),
            against,
            str(self.session.torch_device()),
        )
        cache = shared(on_disk=self.session.folder is not None, say=self.session.say)
        clock: list[float] = []

        def search() -> Tuning:
            started = time.perf_counter()
            tuning = self._search(method)
            clock.append(time.perf_counter() - started)
            return tuning

        tuning = cache.get("tuning", key, model_form(Tuning), search)
        if not tuning.met:
            self.session.say(f"tuning fell short of its goal: {tuning.criterion}")
        self.session.say(summary(tuning, self.scenario.request.kind))
        return tuning.model_copy(update={"seconds": clock[0]}) if clock else tuning

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
        settings = (self.stops, scenario.precision, scenario.recipe, scenario.retraining_recipe, scenario.objective)
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
        return model_key(self.original), first_answers_digest(self.original, self.scenario.task, self.scenario.request)
