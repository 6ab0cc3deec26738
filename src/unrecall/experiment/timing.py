"""How long a case will take: told from a few steps of each training, and from trials on a few examples."""

import copy
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from unrecall.attacks.base import Attack
from unrecall.data import enough
from unrecall.data.examples import Examples, Joined, Part, evenly
from unrecall.data.request import SPLITS, Request
from unrecall.evidence.setting import Models, Setting
from unrecall.experiment.case import Case
from unrecall.harness.audit import figures_of, finding_of
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.never_trained import beside_never_trained
from unrecall.methods.base import GradientMethod
from unrecall.nn.hooks import batchnorms
from unrecall.spec.lines import show
from unrecall.training.loop import Fit, Phase, total_steps, training
from unrecall.training.randomness import seeded
from unrecall.training.session import duration

T = TypeVar("T")

STEPS = 3
"""Steps of a training that are timed; the first, which warms up, isn't."""
SAMPLES: Mapping[str, int] = dict.fromkeys(SPLITS, 256)
"""Examples of each set that a method is tried on."""
LESS = 64
"""Examples of forget, or of retain, with which it is tried too, to tell what grows with them."""
SAMPLE, FEWER = 32, 8
"""Examples of each set on which measurements and attacks are tried, and with how many, to tell what grows with them."""
BUDGETS = ("steps", "learning_rates")
"""Parameters of attacks that fine-tune, of which each value costs a part of a training, and a look at all examples."""
PATIENCE = 60.0
"""Seconds after which the trial of attacks ends, in the midst of one if need be."""


class Line(NamedTuple):
    """Something that was found: of what, and a sentence."""

    subject: str
    text: str


class Timed(NamedTuple):
    """A line, and the seconds that a run will take for it; `most`, where that isn't sure."""

    line: Line
    seconds: float
    most: float | None = None


def training_times(case: Case, model: nn.Module, counts: Mapping[str, int]) -> Iterator[Timed]:
    """A few steps of each training that the case asks for, so many times."""
    scenario, request = case.scenario, case.request
    trained: tuple[tuple[str, Examples, Fit | None], ...] = (
        ("original", Joined((request.forget, request.retain)), scenario.recipe),
        ("retrained", request.retain, scenario.rerecipe or scenario.recipe),
    )
    for name, data, recipe in trained:
        if recipe is None or not counts[name]:
            continue
        networks, loss = scenario.lesson(data, recipe, 0).course(copy.deepcopy(model))
        yield _timed(name, networks, Phase(loss, {"train": data}, recipe), case, counts[name], len(data))


def _timed(name: str, student: nn.Module, phase: Phase, case: Case, count: int, examples: float) -> Timed:
    """A few steps of a phase, on `student`, and what all of them take with so many examples, `count` times."""
    first, stream = next(iter(phase.streams.items()))
    whole = replace(phase, streams={first: Part(stream, [0] * max(1, round(examples)))})
    larger = min(phase.fit.batch_size, examples) / min(phase.fit.batch_size, len(stream))  # are its batches then
    longer = replace(phase, fit=replace(phase.fit, epochs=max(STEPS, phase.fit.epochs), steps=STEPS))
    steps, seconds = total_steps(whole), list[float]()
    started = time.perf_counter()
    for _ in training(student, case.scenario.task, longer, seeded(0), case.session.quiet()):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    each = min(seconds[1:] or seconds) * max(1.0, larger)
    times, spent = f"{count} x " if count > 1 else "", count * steps * each
    return Timed(Line(name, f"{times}{steps} steps of {1000 * each:.3g} ms: {duration(spent)}"), spent)


def unlearning_times(case: Case, model: nn.Module) -> Iterator[Timed]:
    """A few steps of each phase of the method; all of it, on a few examples, where it doesn't run the loop.

    What it takes with all examples is told from three trials: with little of forget or of retain, and on a sample.
    """
    method, request, name = case.method, case.request, show(case.method)
    samples = [_sample(request, {**SAMPLES, **less}) for less in ({"forget": LESS}, {"retain": LESS}, {})]
    jobs = [case.job.on(sample).settled(model) for sample in samples]
    case.session.say(f"trying {name}")
    if not isinstance(method, GradientMethod):
        seconds = [_clock(partial(method.unlearn, model, job))[0] for job in jobs]
        spent = of_all(seconds, samples, request)
        text = f"{duration(seconds[-1])} with {len(samples[-1].forget)} of forget: about {duration(spent)}"
        yield Timed(Line(name, text), spent)
        return
    original = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = [(copy.deepcopy(model), job) for job in jobs]
    tried = [_clock(partial(method.phases, student, original, job)) for student, job in pairs]
    seconds, trials = [each[0] for each in tried], [each[1] for each in tried]
    runs = 2 if batchnorms(model) else 1  # the null
    for i, phases in enumerate(zip(*trials, strict=True), 1):
        lengths = [len(next(iter(phase.streams.values()))) for phase in phases]
        of = f"{name}, phase {i} of {len(trials[0])}" if len(trials[0]) > 1 else name
        yield _timed(of, pairs[-1][0], phases[-1], case, runs, of_all(lengths, samples, request))
    if (prepared := of_all(seconds, samples, request)) > 1:
        yield Timed(Line(name, f"about {duration(prepared)} before its first step"), runs * prepared)


def of_all(values: Sequence[float], samples: Sequence[Request], whole: Request) -> float:
    """What a number is with all examples.

    `values`: what it is with each of `samples`, the first of which has less of forget than the last, and the second
    less of retain, unless there is no more. A part of the number is as large whatever there is, the rest grows with
    the examples of each.
    """
    last = samples[-1]
    pairs = zip(SPLITS[:2], values, samples, strict=False)
    each = [(split, _of_each(values[-1] - value, len(last[split]) - len(less[split]))) for split, value, less in pairs]
    return values[-1] + sum(of_each * (len(whole[split]) - len(last[split])) for split, of_each in each)


def _of_each(more: float, examples: int) -> float:
    """What each of so many examples adds, where all of them add so much; nothing where that is less than nothing."""
    return max(0.0, more) / examples if examples else 0.0


def measuring_times(case: Case, model: nn.Module) -> Iterator[Timed]:
    """What is measured whatever attacks there are."""
    least, most = _seconds(_figures(case), case, _settings(case, model))
    yield Timed(Line("measurements", f"before any attack {between(least, most)}"), least, most)


def attacking_times(case: Case, model: nn.Module) -> Iterator[Timed]:
    """Each attack at its smallest, on a few examples and two models, as long as patience lasts, and what all take.

    Some attacks train for so many steps whatever there is, others look at each example: hence two bounds.
    """
    trials, settings, durations = _trials(case), _settings(case, model), list[tuple[float, float]]()
    few, whole = _looked_at(settings[-1].request), _looked_at(case.request)
    with at_most(PATIENCE):
        for trial in trials:
            case.session.say(f"trying {trial.title}")
            durations.append(_seconds(trial, case, settings))
    tried, left = len(durations), len(trials) - len(durations)
    if not tried:
        text = f"{trials[0].title} takes over {duration(PATIENCE)} on {few} examples alone"
        yield Timed(Line("attacks", text), PATIENCE, math.inf)
        return
    least, most = (sum(bound) * len(trials) / tried for bound in zip(*durations, strict=True))
    text = f"{tried} tried on {few} examples{f', {left} not tried' if left else ''}; on all {whole} and "
    text += f"{2 + case.retrained} models {between(least, most)}"
    yield Timed(Line("attacks", text), least, most)


class Trial(NamedTuple):
    """Something that is done with few examples and two models; all of it takes `weight` times as long at least."""

    title: str
    weight: float
    work: Callable[[Setting], object]


def _settings(case: Case, model: nn.Module) -> list[Setting]:
    """Two models, and a few examples of each set to make trials on; before that fewer of them, once to warm up."""
    models, task, session = Models(model, copy.deepcopy(model)), case.scenario.task, case.session.quiet()
    samples = [_sample(case.request, dict.fromkeys(SPLITS, most)) for most in (FEWER, FEWER, SAMPLE)]
    return [Setting(models, sample, task, 0, session) for sample in samples]


def _figures(case: Case) -> Trial:
    """The trial of what is measured whatever attacks there are."""
    return Trial("measurements", (2 + case.retrained) / 2, figures_of)


def _trials(case: Case) -> list[Trial]:
    """The trials of all attacks, and first that of what decides without retrained models, where it does."""
    trials: list[Trial] = []
    for attack in case.attacks:
        small, times = smallest(attack)
        weight = times * (2 + case.retrained) / 2
        trials.append(Trial(report_of(attack).title, weight, partial(finding_of, small)))
    if case.retrained < 2:
        trials.insert(0, Trial("what decides without retrained models", 1.0, beside_never_trained))
    return trials


def _looked_at(request: Request) -> int:
    """How many examples models are looked at on in an audit."""
    observed = request.sampled(enough.SAMPLE)
    return sum(len(observed[split]) for split in SPLITS)


def _seconds(trial: Trial, case: Case, settings: Sequence[Setting]) -> tuple[float, float]:
    """What something takes at least, and with all examples if it grows with them.

    No time at all for an attack that can't run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few examples
        _, less, more = (_clock(partial(trial.work, setting)) for setting in settings)  # the first one imports
    rows = more[1].measurements if isinstance(more[1], Finding) else []
    if rows and all(row.unlearned.value is None for row in rows):
        return 0.0, 0.0
    fewer, few = (_looked_at(setting.request) for setting in settings[1:])
    grown = _of_each(more[0] - less[0], few - fewer) * (_looked_at(case.request) - few)
    return trial.weight * more[0], trial.weight * (more[0] + grown)


def prices(case: Case, model: nn.Module, patience: float) -> Iterator[float]:
    """The most seconds that each attack takes, and before them what is done whatever attacks there are.

    Infinity for one whose trial takes longer than `patience`, and 0 for one that can't run.
    """
    settings, trials = _settings(case, model), [_figures(case), *_trials(case)]
    for place, trial in enumerate(trials, len(case.attacks) - len(trials)):
        most = math.inf
        with at_most(patience if place >= 0 else PATIENCE):
            _, most = _seconds(trial, case, settings)
        yield most


class OutOfTime(BaseException):
    """Work was stopped because its time was over."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends the work within after so many seconds, where the system can: in a program's first thread, on Unix."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except OutOfTime:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def smallest(attack: Attack) -> tuple[Attack, int]:
    """The attack at the first of its budgets, and how many there are, after each of which it looks at all examples."""
    budgets = {name: value for name in BUDGETS if isinstance(value := getattr(attack, name, ()), tuple) and value}
    first: dict[str, Any] = {name: value[:1] for name, value in budgets.items()}
    return replace(attack, **first), math.prod(map(len, budgets.values()))


def between(least: float, most: float) -> str:
    """Two durations as a range; as one where they are nearly the same, or where there is no upper one."""
    if math.isinf(most):
        return f"over {duration(least)}"
    return f"{duration(least)} to {duration(most)}" if most > 1.5 * least else f"about {duration(most)}"


def _sample(request: Request, most: Mapping[str, int]) -> Request:
    """The request with at most so many examples of each set, evenly spread."""
    parts: dict[str, Any] = {split: few(request[split], most[split]) for split in SPLITS if len(request[split])}
    return request.with_own(validation=None, **parts)


def few(examples: Examples, most: int) -> Part:
    """At most so many of the examples, evenly spread."""
    return Part(examples, evenly(len(examples), most))


def _clock(work: Callable[[], T]) -> tuple[float, T]:
    """The seconds that something takes, and what it gives."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result
