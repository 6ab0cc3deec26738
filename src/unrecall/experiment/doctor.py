"""A case looked at before it is run: its checks, a step of everything, what can be concluded, and how long it takes."""

import warnings
from collections.abc import Iterator
from itertools import chain

import numpy as np
import psutil
from torch import nn

from unrecall.attacks.base import ARMS
from unrecall.data.examples import Absent
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.experiment.against import Against
from unrecall.experiment.audit_timing import SAMPLE, auditing_times
from unrecall.experiment.case import Case
from unrecall.experiment.timing import Line, between, thinned, training_times, unlearning_times
from unrecall.experiment.tune import TRIALS
from unrecall.harness.never_trained import z_of_original
from unrecall.methods.base import LoopMethod
from unrecall.models.observe import observe
from unrecall.nn.hooks import batchnorms
from unrecall.nn.waiting import size_of
from unrecall.record.doubts import hardly_knows
from unrecall.record.possible_verdicts import Sizes, possible, remembered
from unrecall.spec.lines import show
from unrecall.tasks.base import check_inputs
from unrecall.tasks.protocols import Classed, offers
from unrecall.training.randomness import own_randomness
from unrecall.training.session import duration

ASKED = 500
"""Examples of retain, test and validation on which a given original is asked what it knows."""
COPIES = 4
"""What training holds beside the model, in its sizes: a frozen copy, gradients, and two for the optimizer."""


def doctor(case: Case) -> Iterator[Line]:
    """What there is to know of a case before it is run, line by line as it is found.

    Raises what the run would raise: BadInput where model, data and task don't fit.
    """
    scenario, request = case.scenario, case.request
    yield Line("data", ", ".join(f"{name} {len(examples)}" for name, examples in request.sets.items()))
    for examples in (request.holdout, request.test):
        if isinstance(examples, Absent):
            yield Line("data", examples.reason)
    if scenario.note:
        yield Line("data", scenario.note)
    model = case.start()
    check_inputs(scenario.task, model, request)
    yield Line("checks", "every example, the sets against each other, the model's outputs: fine")
    yield from _knowledge(case, model)
    least = most = 0.0
    for timed in chain(
        training_times(case, model, case.trainings),
        unlearning_times(case, model),
        auditing_times(case, model),
    ):
        yield timed.line
        least, most = least + timed.seconds, most + (timed.most or timed.seconds)
    yield memory(case, model)
    yield Line("in all", f"{between(least, most)} on {case.session.torch_device()}")
    yield from (Line("verdict", text) for text in possible(Sizes.of(case.request, case.retrained)))
    yield Line("tuning", _tuning(case))


def beforehand(case: Case) -> list[str]:
    """What a run will take before its attacks, in time and memory, from a few steps; nothing where that can't be said.

    It changes no random draw of the run. A method that doesn't run the loop isn't tried, nor is anything where
    copies of the model would fill the memory: then that is said.
    """
    try:
        with own_randomness(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _before_attacks(case, case.start())
    except KeyboardInterrupt:
        raise
    except BaseException:  # the run itself will say what is wrong
        return []


def _before_attacks(case: Case, model: nn.Module) -> list[str]:
    """The time and the memory, a line each; the memory alone where it is too small to try a step."""
    size, free = memory(case, model), psutil.virtual_memory().available
    if COPIES * size_of(model) > free:
        return [f"{size.subject}: {size.text}; no step was timed, as {_gb(free)} are free here"]
    counts = case.scenario.models_to_train((case.seed,), case.session)
    unlearned = list(unlearning_times(case, model)) if isinstance(case.method, LoopMethod) else []
    timed = [*training_times(case, model, counts), *unlearned]
    lines = [f"{each.line.subject}: {each.line.text}" for each in timed]
    if not isinstance(case.method, LoopMethod):
        lines.append(f"unlearning: not counted, as the steps of {case.method.title} can't be told")
    spent = duration(sum(each.seconds for each in timed))
    time = f"before attacks about {spent} on {case.session.torch_device()} ({'; '.join(lines)})"
    return [time, f"{size.subject}: {size.text}"]


def memory(case: Case, model: nn.Module) -> Line:
    """How much memory the models take, and what is kept of their answers."""
    weights, models = size_of(model), 2 + case.retrained + bool(batchnorms(model))
    part = thinned(case.request.forget, SAMPLE)
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


def _gb(size: float) -> str:
    """A size as people say it: "12 GB", "0.4 GB", "9 MB", "0.2 MB"."""
    unit, name = (1e9, "GB") if size >= 1e8 else (1e6, "MB")
    return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"


def _knowledge(case: Case, model: nn.Module) -> Iterator[Line]:
    """What a given original gets right, and how well it remembers forget beyond holdout."""
    if case.scenario.original is None:
        how = "trained by the recipe" if case.scenario.recipe is not None else "given by --original of audit"
        yield Line("original", f"is {how}, so what it knows is not known yet")
        return
    task, request = case.scenario.task, case.request
    parts = {name: part if name in ARMS else thinned(part, ASKED) for name, part in request.sets.items() if len(part)}
    signals = {name: observe(model, task, part) for name, part in parts.items()}
    yield Line("original", ", ".join(f"{100 * s.correct.mean():.0f} % of {name} right" for name, s in signals.items()))
    of_forget = float(signals["forget"].correct.mean())
    unseen = [float(signals[name].correct.mean()) for name in ("holdout", "test") if name in signals]
    if offers(task, Classed) and request.kind != "backdoor" and hardly_knows(of_forget, unseen):
        yield Line("original", "hardly knows what must be forgotten: check that model, data and labels belong together")
    if "holdout" not in signals or request.kind != "samples" or len(request.holdout) < 2:
        return
    z = z_of_original(Setting(Models(model, model), request, task, case.seed, case.session.quiet()))
    yield from (Line("original", text) for text in remembered(z, Sizes.of(request, case.retrained)))


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
    count = len(request.validation or ())
    beside = f" and {count} examples that were never trained on and that {audit} without" if count else " alone"
    on = f"on forget{beside}"
    searches = f"searches {' and '.join(strength.parameters)} {on}, up to {TRIALS} times the method's own time"
    if isinstance(case.tuned, Against):
        more = "nothing more of forget than of those" if count else "nothing of forget"
        shows = f"; it ends there where the attack shows {more} in the original"
        return f"--against {case.tuned.attack} {searches} and that of the attack{shows}"
    return f"--tune {searches}"
