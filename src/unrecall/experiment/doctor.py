"""A case looked at before it is run: its checks, a step of everything, what can be concluded, and how long it takes."""

import copy
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import nn

from unrecall.attacks.base import ARMS, Attack
from unrecall.data.examples import Absent, Examples, Joined, Part, evenly
from unrecall.data.request import SPLITS, Request
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.experiment.against import Against
from unrecall.experiment.tune import TRIALS
from unrecall.harness.audit import figures_of, finding_of
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.never_trained import beside_never_trained, confidence
from unrecall.methods.base import GradientMethod, Method
from unrecall.models.observe import observe
from unrecall.nn.hooks import batchnorms
from unrecall.record.exchange import Labels, exchange
from unrecall.record.possible import Sizes, possible, remembered
from unrecall.scenarios.base import Scenario
from unrecall.spec.lines import show
from unrecall.tasks.base import check_inputs
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, total_steps, training
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session, duration

STEPS = 3
"""Steps of a training that are timed; the first, which warms up, isn't."""
SAMPLE = 32
"""Examples of each set on which attacks are tried."""
SAMPLES: Mapping[str, int] = dict.fromkeys(SPLITS, 256)
"""Examples of each set that a method is tried on."""
LESS = 64
"""Examples of forget, or of retain, with which it is tried too, to tell what grows with them."""
ASKED = 500
"""Examples of retain, test and validation on which a given original is asked what it knows."""
BUDGETS = ("steps", "learning_rates")
"""Parameters of attacks that fine-tune, of which each value costs a part of a training, and a look at all examples."""
COPIES = 4
"""What training holds beside the model, each as large: one that stays, gradients, and two for the optimizer."""
PATIENCE = 60.0
"""Seconds after which the trial of attacks ends, in the midst of one if need be."""


class Line(NamedTuple):
    """Something that was found: of what, and a sentence."""

    subject: str
    text: str


@dataclass(frozen=True)
class Case:
    """What is looked at: a scenario, the method and the attacks that it is meant for, and where they run.

    `tuned`: whether the method's strength will be searched first, on examples that the audit then does without, and
    against which attack, if any.
    """

    scenario: Scenario
    method: Method
    attacks: Sequence[Attack]
    session: Session
    tuned: bool | Against = False

    @cached_property
    def request(self) -> Request:
        """The scenario's, as the run audits it: without what tuning looks at, where it has that."""
        if self.tuned:
            with suppress(MissingReference, NotSupported):  # the line on tuning says why
                return self.scenario.request.with_validation()
        return self.scenario.request

    @property
    def retrained(self) -> int:
        """How many retrained models there will be."""
        return max(len(self.scenario.retrained), self.scenario.references if self.scenario.can_retrain() else 0)

    @property
    def trainings(self) -> dict[str, int]:
        """How many models are trained, by role."""
        return {
            "original": int(self.scenario.original is None),
            "retrained": self.retrained - len(self.scenario.retrained),
        }

    @property
    def job(self) -> Job:
        """The scenario's request and task, shown and kept nowhere."""
        return Job(self.request, self.scenario.task, seeded(0), self.session.quiet())


def doctor(case: Case) -> Iterator[Line]:
    """What there is to know of a case before it is run, line by line as it is found.

    Raises what the run would raise: BadInput where model, data and task don't fit.
    """
    scenario, request = case.scenario, case.request
    yield Line("data", ", ".join(f"{name} {len(examples)}" for name, examples in request.sets.items()))
    for examples in (request.holdout, request.test):
        if isinstance(examples, Absent):
            yield Line("data", examples.reason)
    model = start(case)
    check_inputs(scenario.task, model, request)
    yield Line("checks", "every example, the sets against each other, the model's outputs: fine")
    yield from _knowledge(case, model)
    least = most = 0.0
    for timed in chain(
        training_times(case, model, case.trainings),
        unlearning_times(case, model),
        _measuring(case, model),
        _attacking(case, model),
    ):
        yield timed.line
        least, most = least + timed.seconds, most + (timed.most or timed.seconds)
    yield memory(case, model)
    yield Line("in all", f"{between(least, most)} on {case.session.place()}")
    yield from (Line("verdict", text) for text in possible(_sizes(case)))
    yield Line("tuning", _tuning(case))


def beforehand(case: Case) -> Iterator[str]:
    """What a run will take before its attacks, in time and memory, from a few steps; nothing where that can't be said.

    Numbers that come later are what they were. A method that doesn't run the loop isn't tried, nor is anything where
    copies of the model would fill the memory.
    """
    try:
        with own_randomness(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = start(case)
            if COPIES * _bytes(model) > psutil.virtual_memory().available:
                return
            counts = case.scenario.untrained((0,), case.session)
            unlearned = unlearning_times(case, model) if isinstance(case.method, GradientMethod) else ()
            timed = list(chain(training_times(case, model, counts), unlearned))
            lines = [f"{each.line.subject}: {each.line.text}" for each in timed]
            if not isinstance(case.method, GradientMethod):
                lines.append(f"unlearning: not counted, as {case.method.title} takes no steps that could be timed")
            size = memory(case, model)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the run itself will say what is wrong
        return
    spent = duration(sum(each.seconds for each in timed))
    yield f"before attacks about {spent} on {case.session.place()} ({'; '.join(lines)})"
    yield f"{size.subject}: {size.text}"


def memory(case: Case, model: nn.Module) -> Line:
    """How much memory the models take, and what is kept of their answers."""
    weights, models = _bytes(model), 2 + case.retrained + bool(batchnorms(model))
    part = _few(case.request.forget)
    signals = vars(observe(model, case.scenario.task, part))
    each = sum(value.nbytes for value in signals.values() if isinstance(value, np.ndarray)) / len(part)
    examples = sum(len(of) for of in case.request.sets.values())
    answers = models * examples * each
    total = weights * (models + COPIES) + answers
    return Line(
        "memory",
        f"about {_gb(total)} for {models} models of {_gb(weights)}, {COPIES} as large while one is trained, and "
        f"{_gb(answers)} of what they say of {examples} examples; beside that data, activations and the process itself",
    )


def _bytes(model: nn.Module) -> int:
    """The size of a model's weights and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in chain(model.parameters(), model.buffers()))


def _gb(size: float) -> str:
    """A size as people say it: "12 GB", "0.4 GB", "9 MB", "0.2 MB"."""
    unit, name = (1e9, "GB") if size >= 1e8 else (1e6, "MB")
    return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"


class Timed(NamedTuple):
    """A line, and the seconds that a run will take for it; `most`, where that isn't sure."""

    line: Line
    seconds: float
    most: float | None = None


def _knowledge(case: Case, model: nn.Module) -> Iterator[Line]:
    """What a given original gets right, and how well it remembers forget beyond holdout."""
    if case.scenario.original is None:
        yield Line("original", "is trained by the recipe, so what it knows is not known yet")
        return
    task, request = case.scenario.task, case.request
    parts = {name: part if name in ARMS else _few(part, ASKED) for name, part in request.sets.items() if len(part)}
    signals = {name: observe(model, task, part) for name, part in parts.items()}
    yield Line("original", ", ".join(f"{100 * s.correct.mean():.0f} % of {name} right" for name, s in signals.items()))
    if "holdout" not in signals or request.kind != "samples" or len(request.holdout) < 2:
        return
    names = request.group_names or [str(i) for i in range(len(request.forget) + len(request.holdout))]
    shown = confidence(np.concatenate([signals[arm].loss for arm in ARMS]), task)
    persons, place = np.unique(names, return_inverse=True)
    means = np.bincount(place, shown) / np.bincount(place)
    forget = np.isin(persons, names[: len(request.forget)])
    several, labels = int(forget.sum()) > 1, Labels(forget, np.zeros(len(forget)))
    z = float(exchange(means[None], labels, 0, 999, ranked=several).z[0])
    yield from (Line("original", text) for text in remembered(z, int(forget.sum())))


def start(case: Case) -> nn.Module:
    """The given original, or an untrained model, where the case runs."""
    model = case.scenario.original or case.scenario.built(0, case.session)
    return model.to(case.session.place()).eval()


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
        yield _timed(name, networks, Phase(loss, {"train": data}, recipe), case, counts[name])


def _timed(name: str, student: nn.Module, phase: Phase, case: Case, count: int = 1) -> Timed:
    """A few steps of a phase, on `student`, and what all of them take, `count` times."""
    steps, seconds = total_steps(phase), list[float]()
    started = time.perf_counter()
    for step in training(student, case.scenario.task, phase, seeded(0), case.session.quiet()):
        seconds.append(time.perf_counter() - started)
        if step == STEPS:
            break
        started = time.perf_counter()
    each = min(seconds[1:] or seconds)
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
        seconds = [_clock(partial(method.unlearn, model, job)) for job in jobs]
        spent = of_all(seconds, samples, request)
        text = f"{duration(seconds[-1])} with {len(samples[-1].forget)} of forget: about {duration(spent)}"
        yield Timed(Line(name, text), spent)
        return
    student, original = copy.deepcopy(model), copy.deepcopy(model).eval().requires_grad_(False)
    trials: list[Sequence[Phase]] = []

    def prepare(job: Job) -> None:
        trials.append(method.phases(student if job is jobs[-1] else copy.deepcopy(model), original, job))

    seconds = [_clock(partial(prepare, job)) for job in jobs]
    runs = 2 if batchnorms(model) else 1  # the null
    for i, phases in enumerate(zip(*trials, strict=True), 1):
        streams = {
            stream: _as_many(examples, of_all([len(trial.streams[stream]) for trial in phases], samples, request))
            for stream, examples in phases[-1].streams.items()
        }
        of = f"{name}, phase {i} of {len(trials[0])}" if len(trials[0]) > 1 else name
        yield _timed(of, student, replace(phases[-1], streams=streams), case, runs)
    if (prepared := of_all(seconds, samples, request)) > 1:
        yield Timed(Line(name, f"about {duration(prepared)} before its first step"), runs * prepared)


def of_all(values: Sequence[float], samples: Sequence[Request], whole: Request) -> float:
    """What a number is with all examples.

    `values`: what it is with each of `samples`, the first of which has less of forget than the last, and the second
    less of retain, unless there is no more. A part of the number is as large whatever there is, the rest grows with
    the examples of each.
    """
    total, last = values[-1], samples[-1]
    for split, value, sample in zip(SPLITS[:2], values[:2], samples[:2], strict=True):
        if fewer := len(last[split]) - len(sample[split]):
            of_each = max(0.0, values[-1] - value) / fewer
            total += of_each * (len(whole[split]) - len(last[split]))
    return total


def _as_many(examples: Examples, count: float) -> Examples:
    """So many examples, in turn."""
    return Part(examples, [i % len(examples) for i in range(max(1, round(count)))])


def _measuring(case: Case, model: nn.Module) -> Iterator[Timed]:
    """What is measured whatever attacks there are, on a few examples and two models, and what all of it takes."""
    trial, (whole, few) = _figures(case, _tried(case, model)), _grown(case.request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few examples
        least = trial.weight * _clock(trial.work)
    most = least * whole / few
    yield Timed(Line("measurements", f"before any attack {between(least, most)}"), least, most)


def _attacking(case: Case, model: nn.Module) -> Iterator[Timed]:
    """Each attack at its smallest, on a few examples and two models, as long as patience lasts, and what all take.

    Some attacks train for so many steps whatever there is, others look at each example: hence two bounds.
    """
    trials, count, (whole, few) = _trials(case, _tried(case, model)), 2 + case.retrained, _grown(case.request)
    durations = list[float]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few examples
        with at_most(PATIENCE):
            for trial in trials:
                case.session.say(f"trying {trial.title}")
                durations.append(trial.weight * _clock(trial.work))
    tried, left = len(durations), len(trials) - len(durations)
    if not tried:
        text = f"{trials[0].title} takes over {duration(PATIENCE)} on {few} examples alone"
        yield Timed(Line("attacks", text), PATIENCE, math.inf)
        return
    least = sum(durations) * len(trials) / tried
    most = least * whole / few
    text = f"{tried} tried on {few} examples{f', {left} not tried' if left else ''}; on all {whole} and {count} models "
    yield Timed(Line("attacks", text + between(least, most)), least, most)


class Trial(NamedTuple):
    """Something that is done with few examples and two models; all of it takes `weight` times as long at least."""

    title: str
    weight: float
    work: Callable[[], object]


def _tried(case: Case, model: nn.Module) -> Setting:
    """A few examples and two models, on which attacks are tried."""
    few = _sample(case.request, dict.fromkeys(SPLITS, SAMPLE))
    return Setting(Models(model, copy.deepcopy(model)), few, case.scenario.task, 0, case.session.quiet())


def _trials(case: Case, setting: Setting) -> list[Trial]:
    """The trials of all attacks, and first that of what decides without retrained models, where it does."""
    trials: list[Trial] = []
    for attack in case.attacks:
        small, times = smallest(attack)
        weight = times * (2 + case.retrained) / 2
        trials.append(Trial(report_of(attack).title, weight, partial(finding_of, small, setting)))
    if case.retrained < 2:
        first = Trial("what decides without retrained models", 1.0, partial(beside_never_trained, setting))
        trials.insert(0, first)
    return trials


def _figures(case: Case, setting: Setting) -> Trial:
    """The trial of what is measured whatever attacks there are."""
    return Trial("measurements", (2 + case.retrained) / 2, partial(figures_of, setting))


def _grown(request: Request) -> tuple[int, int]:
    """How many examples attacks look at in an audit, and in a trial: times are scaled by these."""
    sample = _sample(request, dict.fromkeys(SPLITS, SAMPLE))
    whole, few = (sum(len(of[split]) for split in SPLITS if split != "retain") for of in (request, sample))
    return whole, few


def prices(case: Case, model: nn.Module, patience: float) -> Iterator[float]:
    """The most seconds that each attack takes, and before them what is done whatever attacks there are.

    Infinity for one whose trial takes longer than `patience`, and 0 for one that can't run.
    """
    setting, (whole, few) = _tried(case, model), _grown(case.request)
    trials = [_figures(case, setting), *_trials(case, setting)]
    for place, trial in enumerate(trials, len(case.attacks) - len(trials)):
        seconds = math.inf
        with warnings.catch_warnings(), at_most(patience if place >= 0 else PATIENCE):
            warnings.simplefilter("ignore")  # of so few examples
            started = time.perf_counter()
            result = trial.work()
            rows = result.measurements if isinstance(result, Finding) else []
            idle = bool(rows) and all(row.unlearned.value is None for row in rows)
            seconds = 0.0 if idle else time.perf_counter() - started
        yield trial.weight * seconds * whole / few


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


def _sizes(case: Case) -> Sizes:
    request = case.request
    if request.groups is None:
        return Sizes(request.kind, len(request.forget), len(request.holdout), case.retrained)
    forgotten, others = (len(set(request.groups[arm])) for arm in ("forget", "holdout"))
    return Sizes(request.kind, forgotten, others, case.retrained, grouped=True)


def _tuning(case: Case) -> str:
    """On what --tune would search, or why it can't."""
    strength = case.method.innermost().strength
    if strength is None:
        return f"{show(case.method)} has no strength to tune"
    try:
        request = case.request.with_validation()
    except (MissingReference, NotSupported) as error:
        return str(error)
    audit = "the audit does" if case.tuned else "the audit would do"
    on = f"on forget and {len(request.validation or ())} examples that were never trained on and that {audit} without"
    searches = f"searches {' and '.join(strength.parameters)} {on}, up to {TRIALS} times the method's own time"
    if isinstance(case.tuned, Against):
        shows = "; it ends there where the attack shows nothing more of forget than of those in the original"
        return f"--against {case.tuned.attack} {searches} and that of the attack{shows}"
    return f"--tune {searches}"


def _sample(request: Request, most: Mapping[str, int]) -> Request:
    """The request with at most so many examples of each set, evenly spread."""
    few: dict[str, Any] = {split: _few(request[split], most[split]) for split in SPLITS if len(request[split])}
    return request.with_own(validation=None, **few)


def _few(examples: Examples, most: int = SAMPLE) -> Part:
    return Part(examples, evenly(len(examples), most))


def _clock(work: Callable[[], object]) -> float:
    """The seconds that something takes."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
