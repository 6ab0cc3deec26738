"""Deletion attacks: the defender's own method honours an adversary's requests, and whoever is harmed is counted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from unrecall.attacks.deletion import DeletionAttack
from unrecall.data.request import TRAINING, Request, Split
from unrecall.disk.cache import JSON, Cache
from unrecall.disk.code_key import code_key
from unrecall.errors import Diverged, MissingReference, NotSupported
from unrecall.evidence.setting import Defender, Setting
from unrecall.harness.adversary import Adversary, as_hard, check_adversary, predictions
from unrecall.harness.finding import Finding, absent
from unrecall.harness.harm import Answers, Outcomes, TrialOfSize, harm_finding
from unrecall.models.observe import observe, unseen
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed, classed


def deletion_finding(attack: DeletionAttack, setting: Setting) -> Finding:
    """What the adversary's requests do to the victim's unseen examples, beside random requests of the same sizes.

    Without the defender's method there is nothing to attack.
    """
    try:
        if setting.defender is None:
            raise MissingReference(
                f"{type(attack).__name__}: expected the defender's method, got a model alone. Use `unrecall run`, or "
                "pass audit(..., defender=...)."
            )
        task = classed(attack, setting.task, "Leave it out: there is no victim in a task that knows no classes.")
        return harm_finding(_outcomes(attack, setting, setting.defender, task))
    except (NotSupported, MissingReference, Diverged) as reason:
        return absent(attack, str(reason), "success", "harm")


def _outcomes(attack: DeletionAttack, setting: Setting, defender: Defender, task: Classed) -> Outcomes:
    """Makes all requests, and has each of them honoured, from the original model on. `task`: the setting's own."""
    classified = task.classified()
    alone = replace(setting, models=setting.models.alone("original"), task=classified, sample=None)
    signals = alone.evidence["original"].signals
    splits = [split for split in unseen(setting.request) if split in signals]
    training, truth = predictions(signals, TRAINING), predictions(signals, splits)
    adversary = Adversary(attack, setting, training)
    check_adversary(adversary, truth.target)
    honoured = DeletionAnswers(adversary, defender, classified, splits)
    sizes, ranking = sorted(set(attack.sizes)), adversary.ranking()
    orders = [adversary.shuffled(number) for number in range(attack.controls)]
    adverse = [adversary.request(ranking[:size]) for size in sizes]
    random = [[adversary.request(order[:size]) for order in orders] for size in sizes]
    rehearsed = [honoured.by_surrogate(request) for request in adverse]
    victims = training.prediction[adversary.victims]
    picked = int(np.argmax([attack.harmed(victims, answers.known_victims).mean() for answers in rehearsed]))
    chosen = ranking[: sizes[picked]].tolist()
    others = as_hard(chosen, adversary.candidates.tolist(), training.loss)
    return Outcomes(
        attack=attack,
        names=task.classes,
        truth=truth.target,
        before=Answers(truth.prediction, victims, training.correct[sorted(chosen)]),
        trials=[
            TrialOfSize(
                size, honoured.by_defender(request), own, [honoured.by_defender(control) for control in controls]
            )
            for size, request, own, controls in zip(sizes, adverse, rehearsed, random, strict=True)
        ],
        picked=picked,
        requested=training.target[sorted(chosen)].tolist(),
        losses=(float(training.loss[chosen].mean()), float(training.loss[others].mean()) if others else math.nan),
        random_surrogate=[honoured.by_surrogate(request) for request in random[picked]],
        as_hard=[honoured.by_defender(adversary.request(others))] if others else [],
        retrained=honoured.by_retraining(adverse[picked], attack.retrain),
    )


@dataclass(frozen=True)
class DeletionAnswers:
    """What models answer after a request was carried out: by defender, adversary's surrogate, or retraining.

    `classified`: the task with one row an example, whose target is its class. `splits`: where the unseen examples are.
    """

    adversary: Adversary
    defender: Defender
    classified: Task
    splits: Sequence[Split]

    def by_defender(self, request: Request) -> Answers:
        """After the defender's method; kept in the session's folder, where an audit that was stopped goes on."""
        seed, defender = self.adversary.setting.seed, self.defender
        return self._answers(request, ("defender", defender.name), lambda: defender.unlearn(request, seed))

    def by_surrogate(self, request: Request) -> Answers:
        """After the surrogate's method; kept where runs with other defenders find it, for it is the same for all."""
        attack, setting = self.adversary.attack, self.adversary.setting

        def make() -> nn.Module:
            return attack.rehearse(setting.models.original, request.forget, setting.job())

        return self._answers(request, ("surrogate",), make, setting.cache)

    def by_retraining(self, request: Request, models: int) -> list[Answers]:
        """After training that many models without the requested examples; none where the defender can't train any."""
        retrain, name = self.defender.retrain, self.defender.name
        if retrain is None:
            return []
        return [self._answers(request, (f"retrained {i}", name), partial(retrain, request, i)) for i in range(models)]

    def _answers(
        self, request: Request, maker: tuple[str, ...], make: Callable[[], nn.Module], cache: Cache | None = None
    ) -> Answers:
        """What the model of a request answers. `maker`: who makes that model, and what decides how."""
        adversary, setting = self.adversary, self.adversary.setting

        def observed() -> list[list[float]]:
            setting.session.say(f"  {adversary.attack.title}: {maker[0]}, {len(request.forget)} examples")
            model = make()
            parts = [observe(model, self.classified, setting.request[split]).prediction for split in self.splits]
            victims = observe(model, self.classified, adversary.examples(adversary.victims)).prediction
            requested = observe(model, self.classified, request.forget).correct
            return [np.concatenate(parts).tolist(), victims.tolist(), requested.tolist()]

        code = code_key(adversary.attack, type(self))
        key = (repr(adversary.attack), *setting.key, str(setting.seed), request.fingerprint, *maker, code)
        answers, victims, requested = (cache or Cache(setting.session.folder)).get("answers", key, JSON, observed)
        return Answers(np.array(answers, int), np.array(victims, int), np.array(requested, float))
