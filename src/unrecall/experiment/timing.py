"""How long training and unlearning will take: told from a few steps of each, or from trials on a few examples."""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, get_args

from torch import nn

from unrecall.data.examples import Examples, Selection, evenly
from unrecall.data.request import SPLITS, Request
from unrecall.experiment.against import Against
from unrecall.experiment.case import Case
from unrecall.experiment.clock import Spent, can_stop, clock, within
from unrecall.experiment.tune import TRIALS
from unrecall.methods.base import LoopMethod, Method, Training, null_base, until_forgotten
from unrecall.scenarios.base import Role
from unrecall.spec.lines import show
from unrecall.training.job import Job
from unrecall.training.loop import Phase, checked_steps, fit_by_step, total_steps
from unrecall.training.randomness import seeded
from unrecall.training.session import duration

STEPS = 3
"""Steps of a training that are timed; the first, which warms up, isn't."""
SLOW = 10.0
"""Seconds after which no further step is timed: what warming up adds is little beside steps as slow as these."""
METHOD, LESS = 256, 64
"""Examples of each set on which a slow method is tried, and of forget, or retain, to tell what grows with them."""
READY = 10.0
"""Seconds within which a method's phases, on all examples, are ready, or it is tried on samples."""
PATIENCE = 60.0
"""Seconds after which the trial of attacks ends, in the midst of one if need be; those of each other trial too."""
TOO_LONG = PATIENCE, math.inf
"""The least and the most seconds of what takes longer than that on a few examples alone."""


class Line(NamedTuple):
    """Something that was found: of what, and a sentence."""

    subject: str
    text: str


class Timed(NamedTuple):
    """A line, and the seconds that a run will take for it; `most`, where that isn't sure."""

    line: Line
    seconds: float
    most: float | None = None


def training_times(case: Case, model: nn.Module, counts: Mapping[Role, int]) -> Iterator[Timed]:
    """A few steps of each training that the case asks for, so many times."""
    for role in get_args(Role):
        if counts[role]:
            setup = case.scenario.training_setup(role, 0)
            networks, phase = setup.phase(copy.deepcopy(model))
            yield _timed(role, networks, phase, case, Amount(total_steps(phase), times=counts[role]))


class Amount(NamedTuple):
    """How much there is of a phase: its steps, how often all of them are run, and how large its batches are.

    `looks`: how often the model is asked whether it has forgotten enough. `batch_ratio`: the size of a batch beside
    those that are timed.
    """

    steps: int
    looks: int = 0
    times: float = 1.0
    batch_ratio: float = 1.0

    @classmethod
    def of(cls, phase: Phase, job: Job) -> "Amount":
        """The most steps that a run may take of a phase, and how often it looks whether enough is forgotten."""
        ending = until_forgotten(phase, job)
        return cls(total_steps(ending), 0 if ending is phase else 1 + len(checked_steps(ending)))


def _timed(name: str, student: nn.Module, phase: Phase, case: Case, amount: Amount) -> Timed:
    """A few steps of a phase, on `student`, and what all of them take."""
    longer = replace(phase, fit=replace(phase.fit, epochs=max(STEPS, phase.fit.epochs), steps=STEPS))
    seconds, started = list[float](), time.perf_counter()
    for _ in fit_by_step(student, case.scenario.task, longer, seeded(0), case.session.quiet()):
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > SLOW:
            break
        started = time.perf_counter()
    each = amount.batch_ratio * min(seconds[1:] or seconds)
    times, spent = f"{amount.times:.0f} x " if amount.times > 1 else "", amount.times * amount.steps * each
    return Timed(Line(name, f"{times}{amount.steps} steps of {1000 * each:.3g} ms: {duration(spent)}"), spent)


class Samples(NamedTuple):
    """What a method is tried on: little of forget, little of retain, and more of both; and all that there is."""

    less_forget: Request
    less_retain: Request
    more: Request
    whole: Request

    def seconds(self, trials: Sequence[Spent]) -> float:
        """The seconds that work takes with all examples; `trials`: what it took with each of the three samples.

        They grow as the trials' seconds do, but by no larger factor than the numbers that enter layers: other work on
        the machine changes seconds too, and would be multiplied.
        """
        last, numbers = trials[-1], [spent.numbers for spent in trials]
        growth = self.of_all(numbers) / last.numbers if last.numbers else math.inf
        return min(self.of_all([spent.seconds for spent in trials]), growth * last.seconds)

    def of_all(self, values: Sequence[float]) -> float:
        """A number for all examples; `values`: the number with each of the three samples.

        It has a constant part, one in proportion to forget, and one in proportion to retain.
        """
        less_forget, less_retain, more = values
        of_forget = of_each(more - less_forget, len(self.more.forget) - len(self.less_forget.forget))
        of_retain = of_each(more - less_retain, len(self.more.retain) - len(self.less_retain.retain))
        more_forget = len(self.whole.forget) - len(self.more.forget)
        return more + of_forget * more_forget + of_retain * (len(self.whole.retain) - len(self.more.retain))


def of_each(added: float, examples: int) -> float:
    """What one example adds if so many `examples` add `added`; 0 where that is negative."""
    return max(0.0, added) / examples if examples else 0.0


def unlearning_times(case: Case, model: nn.Module) -> Iterator[Timed]:
    """What the method takes, and before it the search of its strength, if there is one: up to so many trials."""
    case.session.say(f"trying {show(case.method)}")
    trial = 0.0
    if not isinstance(case.method, LoopMethod):
        timed = _unlearning_on_few(case, case.method, model)
        trial = timed.seconds
        yield timed
    else:
        for timed, runs in _phase_times(case, case.method, model):
            trial += timed.seconds / runs
            yield timed
    if case.searched:
        beside = ", and the attack's time" if isinstance(case.tuned, Against) else ""
        yield Timed(Line("tuning", f"{TRIALS} x {duration(trial)} at most{beside}"), TRIALS * trial)


def _phase_times(case: Case, method: LoopMethod, model: nn.Module) -> Iterator[tuple[Timed, int]]:
    """A few steps of each phase of the method, and how often a run takes all: twice where its null does so too."""
    name, runs = show(method), 1 if null_base(method, model) is None else 2
    prepared, amounts = _as_they_are(case, method, model) or _from_samples(case, method, model)
    student, phases = prepared.training
    looks, enough = round(sum(amount.times * amount.looks for amount in amounts)), case.job.enough
    if enough and looks:
        each = min(clock(partial(enough, student))[0].seconds for _ in range(2))  # the first warms up
        text = f"{looks} checks of {1000 * each:.3g} ms whether it has forgotten: {duration(looks * each)}"
        yield Timed(Line(name, text), looks * each), 1
    for i, (phase, amount) in enumerate(zip(phases, amounts, strict=True), 1):
        of = f"{name}, phase {i} of {len(amounts)}" if len(amounts) > 1 else name
        yield _timed(of, student, phase, case, amount._replace(times=runs * amount.times)), runs
    before = prepared.spent.seconds
    if before > 1:
        yield Timed(Line(name, f"about {duration(before)} before its first step"), runs * before), runs


def _unlearning_on_few(case: Case, method: Method, model: nn.Module) -> Timed:
    """All of a method on a few examples, as its phases can't be told; as long as where it doesn't end by itself."""
    samples, jobs = _method_samples(case, model)
    trials = [clock(partial(method.unlearn, model, job.until(None)))[0] for job in jobs]
    spent, last = samples.seconds(trials), jobs[-1]
    if enough := last.enough:
        longest = last.until(lambda unlearned: enough(unlearned) and False)  # asks as a run does, but never stops
        spent = max(spent, clock(partial(method.unlearn, model, longest))[0].seconds)
    text = f"{duration(trials[-1].seconds)} with {len(samples.more.forget)} of forget: about {duration(spent)}"
    return Timed(Line(show(method), text), spent)


class Prepared(NamedTuple):
    """The training of a method, and what it took until it was ready."""

    training: Training
    spent: Spent

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases of the training."""
        return self.training.phases


def _prepared(method: LoopMethod, model: nn.Module, job: Job) -> Prepared:
    spent, result = clock(partial(method.training, model, job))
    return Prepared(result, spent)


def _as_they_are(case: Case, method: LoopMethod, model: nn.Module) -> tuple[Prepared, list[Amount]] | None:
    """The phases as a run will have them; None where they aren't ready soon, or work can't be stopped."""
    job = case.job.settled(model)
    if not can_stop():
        return None
    prepared = within(READY, lambda: _prepared(method, model, job), None)
    return prepared and (prepared, [Amount.of(phase, job) for phase in prepared.phases])


def _from_samples(case: Case, method: LoopMethod, model: nn.Module) -> tuple[Prepared, list[Amount]]:
    """The phases on a sample, and how much there will be of each, told from smaller samples."""
    samples, jobs = _method_samples(case, model)
    trials = [_prepared(method, model, job) for job in jobs]
    *_, last = trials
    times = samples.of_all([len(trial.phases) for trial in trials]) / len(last.phases)
    amounts = list[Amount]()
    for i, phase in enumerate(last.phases):
        # where a smaller sample makes fewer phases, none of them is this one, and no growth is told for it
        alike = [trial.phases[i] if len(trial.phases) == len(last.phases) else phase for trial in trials]
        amounts.append(_amount(alike, samples, jobs[-1])._replace(times=times))
    whole = last.spent._replace(seconds=samples.seconds([trial.spent for trial in trials]))
    return last._replace(spent=whole), amounts


def _method_samples(case: Case, model: nn.Module) -> tuple[Samples, list[Job]]:
    """What the method is tried on where all of it would take too long."""
    less_forget, less_retain, more = (
        few_of(case.request, dict.fromkeys(SPLITS, METHOD) | less) for less in ({"forget": LESS}, {"retain": LESS}, {})
    )
    samples = Samples(less_forget, less_retain, more, case.request)
    return samples, [case.job.on(sample).settled(model) for sample in samples[:3]]


def _amount(phases: Sequence[Phase], samples: Samples, job: Job) -> Amount:
    """How much there is of a phase with all examples; `phases`: the same one on each of the three samples."""
    lengths = [len(next(iter(phase.streams.values()))) for phase in phases]
    examples, fit = max(1, round(samples.of_all(lengths))), phases[-1].fit
    if fit.steps is not None:
        fit = replace(fit, steps=max(1, round(samples.of_all([phase.fit.steps or 0 for phase in phases]))))
    whole = replace(phases[-1], fit=fit, streams=dict.fromkeys(phases[-1].streams, range(examples)))
    ratio = min(fit.batch_size, examples) / min(fit.batch_size, lengths[-1])
    return Amount.of(whole, job)._replace(batch_ratio=max(1.0, ratio))


def between(least: float, most: float) -> str:
    """Two durations as a range; as one where they are nearly the same, or where there is no upper one."""
    if math.isinf(most):
        return f"over {duration(least)}"
    return f"{duration(least)} to {duration(most)}" if most > 1.5 * least else f"about {duration(most)}"


def few_of(request: Request, most: Mapping[str, int]) -> Request:
    """The request with at most so many examples of each set, evenly spread."""
    parts: dict[str, Any] = {split: thinned(request[split], most[split]) for split in SPLITS if len(request[split])}
    return request.with_own(validation=None, **parts)


def thinned(examples: Examples, most: int) -> Selection:
    """At most so many of the examples, evenly spread."""
    return Selection(examples, evenly(len(examples), most))
