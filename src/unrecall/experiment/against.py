"""Finding a method's strength against an attack: what the attack brings back counts, under equal damage."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import nn

from unrecall.attacks.base import RecoveryAttack
from unrecall.data.examples import Absent
from unrecall.data.kinds import Kind
from unrecall.disk.code_key import code_key
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Draw
from unrecall.evidence.scores import Scores
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.experiment.goal import guards_of
from unrecall.experiment.tune import TRIALS, Search, start_of
from unrecall.harness.evaluation import draw_for
from unrecall.harness.suites import QUICK
from unrecall.methods.base import Method
from unrecall.record.schema import UNMET, BroughtBack, Trial, Tuning
from unrecall.scenarios.base import Scenario
from unrecall.spec.lines import name_of, parse
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import offers
from unrecall.training.disruption import disruption
from unrecall.training.job import Job

CRITERION = (
    "the least that {0} brings back of forget{1}, at its worst, less than nothing counting as nothing, with "
    "KL(original || unlearned) of at most {2:g} nats on retain examples that unlearning did not see"
)


@dataclass(frozen=True)
class Against:
    """The attack that a method's strength is tuned against, and the damage that each method may do.

    Methods that are tuned so are compared under equal budgets, as Sondej, Yang, Mahdi compare, "RepSelect", arXiv
    2606.17168.

    `attack`: as on the command line; an attack without parameters is as in the suite `quick`. `kl`: KL(p_0 || p) on
    retain, in nats. `measure`: what counts as brought back: what the attack shows of forget beyond validation
    ("shown"), or how much lower the loss on forget is than on validation, in nats ("loss"). The loss still tells
    strengths apart where the attacked model gets all examples of both right.
    """

    attack: str = "relearn"
    kl: float = 0.01
    measure: BroughtBack = "shown"

    def __repr__(self) -> str:
        """As records and keys have it; the measure where it isn't the usual one."""
        measure = "" if self.measure == "shown" else f", measure={self.measure!r}"
        return f"Against(attack={self.attack!r}, kl={self.kl!r}{measure})"

    def __post_init__(self) -> None:
        if self.measure not in get_args(BroughtBack):
            raise BadInput(f"--measure: expected {' or '.join(get_args(BroughtBack))}, got '{self.measure}'.")
        if not (math.isfinite(self.kl) and self.kl > 0):
            raise BadInput(f"--kl: expected a budget above 0 nats, got {self.kl:g}. Give 0.01, say.")
        if not isinstance(parse(self.attack, "attacks"), RecoveryAttack):
            raise BadInput(
                f"--against: expected an attack that brings the forgotten back, got {self.attack}, which doesn't. Name "
                "another: relearn, quantise."
            )

    def key(self, scenario: Scenario) -> str:
        """Everything that decides what strengths are tuned against: attack and budget, its code and its files."""
        attack = self.attack_on(scenario.task, scenario.request.kind)
        return f"{self!r} {attack!r} {code_key(attack)}"

    def attack_on(self, task: Task, kind: Kind) -> RecoveryAttack:
        """The attack for a task and a kind of request; BadInput where it can't run on these."""
        quick = [a for protocol, a in QUICK if name_of(a) == self.attack and offers(task, protocol)]
        attack = next(iter(quick), None) or parse(self.attack, "attacks")
        if not isinstance(attack, RecoveryAttack) or not offers(task, *attack.needs):
            raise BadInput(f"--against: expected an attack on {type(task).__name__}, got {self.attack}. Name another.")
        if attack.needs_class and kind != "class":
            raise BadInput(
                f"--against: expected an attack on {kind}, got {self.attack}, which brings back classes. Name another."
            )
        if self.measure == "loss" and attack.dose != "forget":
            raise BadInput(
                f"--measure loss: expected an attack that is taught from forget alone, got {self.attack}, which tests "
                "forget and validation as one set. Leave out dose, or --measure."
            )
        return attack


def tune_against(method: Method, model: nn.Module, job: Job, against: Against, *, trials: int = TRIALS) -> Tuning:
    """Searches the strength after which an attack brings back least, among those that do no more than so much damage.

    Sees forget, validation and retain, of which a tenth is kept from unlearning to look for damage; neither holdout nor
    retrained models. What is brought back is the mean of what the attack's measure shows on forget minus that on
    validation, or on forget alone where there is no validation, at the attacker's best point, which may be to do
    nothing; or, by `measure`, the mean loss on validation minus that on forget. Training doesn't stop by itself.
    Raises NotSupported for a method without a strength, for fewer than 2 retain examples, for a measure by loss
    without validation or of an attack that asks for no loss, and where the attack shows nothing of forget beyond
    validation in the original itself, so that any strength would do.
    """
    strength, request, seed = start_of(method, model, job)
    judge = Judge(model, job.on(request), seed, against)
    untouched = judge.brought_back(model)
    beside = " beyond validation" if len(request.holdout) else ""
    if math.isnan(untouched):
        raise NotSupported(
            f"--measure loss: expected an attack that asks for losses, got {against.attack}, which reads what a model "
            "writes. Leave it out."
        )
    if untouched <= 0:
        raise NotSupported(
            f"--against: expected an attack that shows something of forget{beside} in the original, got "
            f"{against.attack}, which shows nothing: any strength would do by it. Name another attack, or search by "
            "--tune, which looks at confidence."
        )
    tried = Search(method, model, judge.job, seed, request.kind, untouched, judge).trials(strength, trials)
    best = choose(tried)
    criterion = CRITERION.format(against.attack, judge.beside, against.kl)
    return Tuning(
        parameter=" and ".join(strength.parameters),
        chosen=best.strength,
        untouched=untouched,
        criterion=criterion + ("" if best.sparing else UNMET),
        against=against.attack,
        measure=against.measure,
        most_kl=against.kl,
        trials=sorted(tried, key=lambda trial: trial.strength),
    )


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial within the budget after which least comes back; where none is, the one that spends least.

    Of those that agree the weakest.
    """
    within = [trial for trial in trials if trial.sparing]
    if not within:
        return min(trials, key=lambda trial: (math.inf if trial.kl is None else trial.kl, trial.strength))
    return min(within, key=lambda trial: (max(trial.gap, 0.0), trial.strength))


class Judge:
    """Judges the model of a trial by what an attack brings back of forget, and by the damage on unseen retain.

    `job`: whose test set is the retain examples that unlearning doesn't see, and whose holdout is validation.
    """

    def __init__(self, model: nn.Module, job: Job, seed: int, against: Against) -> None:
        unseen = job.request.with_own(retain=job.request.test, test=Absent("stands for retain here"))
        self.model, self.job, self.seed, self.against = model, job, seed, against
        self.attack = against.attack_on(job.task, job.request.kind)
        self.task = self.attack.adapted(job.task)
        self.guards = guards_of(job.task, model, job.request, job.request.holdout, drop=1.0)
        self.distance = disruption(copy.deepcopy(model).eval(), job.on(unseen))

    @property
    def beside(self) -> str:
        """What forget is held against, in words."""
        if self.against.measure == "loss":
            return ", by how much lower its loss is than that on validation, in nats"
        return " beyond validation" if len(self.job.request.holdout) else ""

    def __call__(self, factor: float, unlearned: nn.Module) -> Trial:
        """What the trial of a strength is worth."""
        distance, validation = self.distance(unlearned), self.guards.validation
        return Trial(
            strength=factor,
            gap=self.brought_back(unlearned),
            retain_drop=self.guards.retained.change(unlearned).lost,
            near_drop=self.guards.near.change(unlearned).lost,
            validation_drop=None if validation is None else validation.change(unlearned).lost,
            kl=distance,
            sparing=distance <= self.against.kl,
        )

    def brought_back(self, unlearned: nn.Module) -> float:
        """What the attacker's best point shows of forget beyond validation: in the attack's own measure, or in loss."""
        models = Models(self.model, unlearned)
        setting = Setting(models, self.job.request, self.task, self.seed, self.job.session.quiet())
        draw = draw_for(self.attack, setting)
        scores = self.attack.scores(Subject("unlearned", unlearned), draw.pool, setting)
        if self.against.measure == "loss":
            return self._loss_below(scores, draw)
        excess = scores.at(draw.places["forget"]).mean(1)
        if "holdout" in draw.places:
            excess = excess - scores.at(draw.places["holdout"]).mean(1)
        return float(excess.max())

    def _loss_below(self, scores: Scores, draw: Draw) -> float:
        """How far the loss on forget is below that on validation at the attacker's best point, in nats.

        Points that aren't finite are left out, as broken models are of no use; nan where all are.
        """
        if "holdout" not in draw.places:
            raise NotSupported("--measure loss: expected validation to hold forget against, got none. Leave it out.")
        forget, validation = (scores.losses[draw.places[arm].in_set] for arm in ("forget", "holdout"))
        below = validation - forget
        return float(np.max(below, initial=-np.inf, where=np.isfinite(below))) if np.isfinite(below).any() else math.nan
