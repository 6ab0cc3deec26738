"""How long an audit will take: told from trials of each of its parts on a few examples."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from unrecall.attacks.base import ARMS, Attack
from unrecall.attacks.relearn import Relearn
from unrecall.data import sizes
from unrecall.data.request import SPLITS, Request, Split
from unrecall.errors import NotSupported
from unrecall.evidence.pool import draw_pool
from unrecall.evidence.setting import Models, Setting
from unrecall.experiment.against import Against
from unrecall.experiment.case import Case
from unrecall.experiment.clock import at_most, clock, within
from unrecall.experiment.timing import PATIENCE, SLOW, STEPS, TOO_LONG, Line, Timed, between, few_of, of_each
from unrecall.experiment.tune import TRIALS
from unrecall.harness.audit import finding_of, measure_all
from unrecall.harness.finding import Finding, report_of
from unrecall.harness.fixed_suite import fixed_suite, is_large, steps_taken
from unrecall.harness.never_trained import judgeable, shown_by_original
from unrecall.training.session import duration

SAMPLE, FEWER = 32, 8
"""Examples of each set on which measurements and attacks are tried, and with how many, to tell what grows with them."""
RETRAINED = 2
"""Retrained models in these trials at most; copies of the model stand in for them."""
BUDGETS = ("steps", "learning_rates")
"""Parameters of attacks that fine-tune, of which each value costs a part of a training, and a look at all examples."""


def auditing_times(case: Case, model: nn.Module) -> Iterator[Timed]:
    """What is measured whatever attacks there are, and then the attacks, as long as patience lasts.

    Each at its smallest, on a few examples. Some train for so many steps whatever there is, others look at each
    example: hence two bounds.
    """
    settings, durations = _settings(case, model), list[tuple[float, float]]()
    parts = list(_attacks(case))
    least, most = _seconds(_measurements(case), case, settings)
    yield Timed(Line("measurements", f"before any attack {between(least, most)}"), least, most)
    if _beside_never_trained(case):
        least, most = within(PATIENCE, lambda: _never_trained_seconds(case, settings), TOO_LONG)
        text = f"beside records never trained on {between(least, most)}"
        yield Timed(Line("tests", text), least, most)
    if case.searched and isinstance(case.tuned, Against):
        search = _search(case, case.tuned)
        least, most = within(PATIENCE, lambda: _seconds(search, case, settings), TOO_LONG)
        text = f"{case.tuned.attack} on the original and up to {TRIALS} others {between(least, most)}"
        yield Timed(Line("tuning", text), least, most)
    few, whole = (_count(request, SPLITS) for request in (settings[-1].request, case.request))
    with at_most(PATIENCE):
        for part in parts:
            case.session.say(f"trying {part.title}")
            durations.append(_seconds(part, case, settings))
    if not parts:
        return
    tried, left = len(durations), len(parts) - len(durations)
    if not tried:
        text = f"{parts[0].title} takes over {duration(PATIENCE)} on {few} examples alone"
        yield Timed(Line("attacks", text), PATIENCE, math.inf)
        return
    least, most = (sum(bound) * len(parts) / tried for bound in zip(*durations, strict=True))
    text = f"{tried} tried on {few} examples{f', {left} not tried' if left else ''}; on all {whole} and "
    text += f"{2 + case.retrained} models {between(least, most)}"
    yield Timed(Line("attacks", text), least, most)


def prices(case: Case, model: nn.Module, patience: float) -> tuple[list[float], list[float]]:
    """The most seconds of what is done whatever attacks there are, and those of each attack.

    Infinity for what takes longer than `patience` on a few examples, and 0 for an attack that can't run.
    """
    settings = _settings(case, model)

    def most(bounds: Callable[[], tuple[float, float]], patience: float) -> float:
        return within(patience, bounds, TOO_LONG)[1]

    fixed = [most(partial(_seconds, _measurements(case), case, settings), PATIENCE)]
    if _beside_never_trained(case):
        fixed.append(most(partial(_never_trained_seconds, case, settings), PATIENCE))
    return fixed, [most(partial(_seconds, part, case, settings), patience) for part in _attacks(case)]


class AuditPart(NamedTuple):
    """A part of an audit, tried with few examples and models; all of it takes `weight` times as long at least.

    `sets`: those that it takes longer with.
    """

    title: str
    weight: float
    work: Callable[[Setting], object]
    sets: Sequence[Split] = ARMS


def _settings(case: Case, model: nn.Module) -> list[Setting]:
    """Models, and a few examples of each set to make trials on; before that fewer of them, once to warm up."""
    unlearned, *retrained = (_another(model, i) for i in range(1, 2 + min(case.retrained, RETRAINED)))
    models = Models(model, unlearned, tuple(retrained))
    task, session = case.scenario.task, case.session.quiet()
    samples = [few_of(case.request, dict.fromkeys(SPLITS, most)) for most in (FEWER, FEWER, SAMPLE)]
    return [Setting(models, sample, task, 0, session) for sample in samples]


@torch.no_grad()
def _another(model: nn.Module, number: int) -> nn.Module:
    """A copy with slightly larger weights: what the model itself shows is kept, and would be found for its equal."""
    another = copy.deepcopy(model)
    for weight in filter(torch.is_floating_point, another.parameters()):
        weight.mul_(1 + number / 256)
    return another


def _measurements(case: Case) -> AuditPart:
    """What is measured whatever attacks there are."""
    return AuditPart("measurements", _more_models(case), measure_all, SPLITS)


def _beside_never_trained(case: Case) -> bool:
    """Whether a fixed suite decides, beside records that were never trained on."""
    return case.retrained < 2 and judgeable(case.request)


def _never_trained_seconds(case: Case, settings: Sequence[Setting]) -> tuple[float, float]:
    """What the fixed suite takes of both models, at least and at most: looks at examples, and steps of fine-tuning.

    Its steps are as long whatever there is, so that a few tell of all, on as much as fills their batches.
    """
    setting = settings[-1]
    suite = fixed_suite(setting.task, large=is_large(setting.models.original))
    looks = tuple(fixed for fixed in suite if not fixed.steps)
    weight = 2.0 * len(suite) / len(looks)
    least, most = _seconds(AuditPart("looks", weight, partial(shown_by_original, looks)), case, settings)
    attack = next(fixed.attack for fixed in suite if isinstance(fixed.attack, Relearn))
    filling = few_of(case.request, dict.fromkeys(SPLITS, 2 * attack.fit.batch_size))  # half of retain is a guard
    each = _step_seconds(attack, replace(setting, request=filling))
    fewest, steps = steps_taken(suite, case.request)
    return least + 2 * fewest * each, most + 2 * steps * each


def _step_seconds(attack: Relearn, setting: Setting) -> float:
    """What a step of an attack takes: the shortest of a few, but for the first, which warms up; 0 if it can't run."""
    few = replace(attack, steps=tuple(range(1, STEPS + 1)))
    pool, seconds, started = draw_pool(setting.request, 0).pool, list[float](), time.perf_counter()
    with suppress(NotSupported):
        for _ in few.recover(setting.models.original, pool, setting):
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > SLOW:
                break
            started = time.perf_counter()
    return min(seconds[1:] or seconds, default=0.0)


def _attacks(case: Case) -> Iterator[AuditPart]:
    """All attacks."""
    for attack in case.attacks:
        small, times = smallest(attack)
        yield AuditPart(report_of(attack).title, times * _more_models(case), partial(finding_of, small))


def _search(case: Case, against: Against) -> AuditPart:
    """The attack against which a strength is searched: on one model at a time, the original and that of each trial."""
    small, times = smallest(against.attack_on(case.scenario.task, case.request.kind))
    weight = times * (1 + TRIALS) * _more_models(case) / (2 + case.retrained)
    return AuditPart("search", weight, partial(finding_of, small))


def _more_models(case: Case) -> float:
    """How many times as many models there are as in a trial."""
    return (2 + case.retrained) / (2 + min(case.retrained, RETRAINED))


def _count(request: Request, sets: Sequence[Split]) -> int:
    """On how many examples of some sets an audit looks at models."""
    observed = request.sampled(sizes.SAMPLE)
    return sum(len(observed[split]) for split in sets)


def _seconds(part: AuditPart, case: Case, settings: Sequence[Setting]) -> tuple[float, float]:
    """What a part takes at least, and with all examples if it grows with them.

    No time at all for an attack that can't run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few examples
        _, (less, _), (more, result) = (clock(partial(part.work, setting)) for setting in settings)
    rows = result.measurements if isinstance(result, Finding) else []
    if rows and all(row.unlearned.value is None for row in rows):
        return 0.0, 0.0
    fewer, few = (_count(setting.request, part.sets) for setting in settings[1:])
    missing = _count(case.request, part.sets) - few
    grown = of_each(more.seconds - less.seconds, few - fewer) * missing
    if more.numbers:  # as in timing.Samples
        numbers = of_each(more.numbers - less.numbers, few - fewer) * missing
        grown = min(grown, more.seconds * numbers / more.numbers)
    return part.weight * more.seconds, part.weight * (more.seconds + grown)


def smallest(attack: Attack) -> tuple[Attack, int]:
    """The attack at the first of its budgets, and how many there are, after each of which it looks at all examples."""
    budgets = {name: value for name in BUDGETS if isinstance(value := getattr(attack, name, ()), tuple) and value}
    first: dict[str, Any] = {name: value[:1] for name, value in budgets.items()}
    return replace(attack, **first), math.prod(map(len, budgets.values()))
