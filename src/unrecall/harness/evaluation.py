"""Runs a scored attack on every model, with one pool for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unrecall.attacks.base import RecoveryAttack, ScoredAttack
from unrecall.data.request import Request
from unrecall.disk.cache import ARRAYS
from unrecall.disk.code_key import code_key
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.pool import Arm, ArmIndices, Draw, draw_pool
from unrecall.evidence.scores import Scores
from unrecall.evidence.setting import Setting, Subject
from unrecall.models.observe import accuracy
from unrecall.nn.waiting import ask_for


@dataclass(frozen=True)
class Evaluation:
    """A scored attack on all models of a setting.

    `scores`: by role. `missing`: why a model has none, by role. `places`: where the examples of each arm stand.
    """

    attack: ScoredAttack
    setting: Setting
    places: Mapping[Arm, ArmIndices]
    scores: Mapping[str, Scores]
    missing: Mapping[str, str]

    def score_arrays(self) -> dict[str, np.ndarray]:
        """The scores of both arms and the examples that they are of, as arrays by name, to stand beside the record."""
        arrays = {f"{arm}/examples": place.indices for arm, place in self.places.items()}
        for role, scores in self.scores.items():
            arrays |= {f"{role}/{arm}": scores.at(place).astype(np.float32) for arm, place in self.places.items()}
            arrays[f"{role}/budgets"] = scores.budgets
        return arrays


def evaluate(attack: ScoredAttack, setting: Setting) -> Evaluation:
    """The attack's scores of all models. Membership attacks may lack references for some models and not for others."""
    if attack.needs_class and setting.request.kind != "class":
        raise NotSupported(
            f"{type(attack).__name__}: expected a class to forget, got kind='{setting.request.kind}'. It works on "
            "class requests: it needs a class that the retrained model has never met."
        )
    try:
        setting = setting.with_task(attack.adapted(setting.task))
    except NotSupported as reason:
        if attack.reading != "membership":
            raise
        return Evaluation(attack, setting, {}, {}, {subject.role: str(reason) for subject in setting.subjects})
    draw = draw_for(attack, setting)
    scores: dict[str, Scores] = {}
    missing: dict[str, str] = {}
    for subject in setting.subjects:
        if attack.reading != "membership":  # which takes no time
            setting.session.say(f"  {subject.role}")
        try:
            scores[subject.role] = score(attack, subject, setting, draw)
        except (NotSupported, MissingReference) as reason:
            if attack.reading != "membership":
                raise
            missing[subject.role] = str(reason)
    return Evaluation(attack, setting, draw.places, scores, missing)


def draw_for(attack: ScoredAttack, setting: Setting) -> Draw:
    """The pool that the attack is run on, the same for every model."""
    request = setting.request
    n = len(request.forget) + (len(request.holdout) if attack.dose == "both" else 0)
    taught, paired = attack.teaches(n, request), attack.paired
    return draw_pool(request, setting.seed, taught, dose=attack.dose, retested=attack.retested, paired=paired)


def one_sided(attack: ScoredAttack, request: Request) -> bool:
    """Whether the attack is taught from forget alone, so that it may well tell forget from holdout."""
    return attack.dose == "forget" and attack.teaches(len(request.forget), request) > 0


def score(attack: ScoredAttack, subject: Subject, setting: Setting, drawn: Draw) -> Scores:
    """The scores of one model, kept in the cache: many audits attack the same original and retrained models."""
    model = setting.model_keys.get(subject.role) or setting.answering_key(subject.model)
    others = [setting.model_keys[role] for role in setting.models.references() if role != subject.role]
    key = (repr(attack), *setting.key, model, str(setting.seed), code_key(attack), *(others if attack.compares else ()))

    def arrays() -> dict[str, np.ndarray]:
        ask_for(setting.models.original)
        ask_for(subject.model)
        scores = attack.scores(subject, drawn.pool, setting)
        check_lengths(attack, scores.shown, [len(examples) for examples in drawn.pool.tested])
        return scores.arrays()

    by_name = setting.cache.get("scores", key, ARRAYS, arrays)
    scores = Scores.from_arrays(by_name)
    check_finite(attack, scores.shown)
    if isinstance(attack, RecoveryAttack) and subject.role == "unlearned" and len(scores.budgets) == 1:
        raise NotSupported(
            f"{type(attack).__name__}: expected an attacked copy of the unlearned model, got none: at each learning "
            "rate it diverged, or no weight moved. Set other rates."
        )
    return scores


def check_finite(attack: ScoredAttack, shown: Sequence[np.ndarray]) -> None:
    """Raises NotSupported where a score `[..., examples]` is no finite number: nothing follows from it then."""
    wrong = sum(int((~np.isfinite(scores)).reshape(-1, scores.shape[-1]).any(0).sum()) for scores in shown)
    if wrong:
        count = sum(scores.shape[-1] for scores in shown)
        raise NotSupported(
            f"{type(attack).__name__}: expected a finite score of every example, got none for {wrong} of {count}."
        )


def check_lengths(attack: ScoredAttack, shown: Sequence[np.ndarray], counts: Sequence[int]) -> None:
    """Raises NotSupported unless scores `[points, examples]` of each tested set are one a point for each example."""
    got = [scores.shape[-1] if scores.ndim == 2 else scores.shape for scores in shown]
    if got != [*counts]:
        raise NotSupported(
            f"{type(attack).__name__}: expected scores of {' and '.join(map(str, counts))} tested examples at each "
            f"point, got {' and '.join(map(str, got)) or 'none'}. Score each set of pool.tested."
        )


class DisguiseScores(NamedTuple):
    """A copy of the original that only hides: its scores, and `hides` [forget], how much less a plain look finds in it.

    That is the share of an example's rows that the original predicts right and the copy doesn't.
    """

    scores: Scores
    hides: np.ndarray


def score_disguise(attack: RecoveryAttack, setting: Setting) -> DisguiseScores | None:
    """The scores of a copy of the original that only hides, by the attack's own disguise; None where it has none.

    They are kept in the cache, because making such a copy takes as long as attacking it.
    """

    def arrays() -> dict[str, np.ndarray]:
        original, forget = ask_for(setting.models.original), setting.request.forget
        setting.session.say("  a copy of the original that only hides")
        copied = attack.disguise(original, setting.job())
        if copied is None:
            return {}
        right, left = (accuracy(model, setting.task, forget) for model in (original, copied))
        scores = attack.scores(Subject("hidden", copied), draw_for(attack, setting).pool, setting)
        return {"hides": right - left} | scores.arrays()

    key = (repr(attack), *setting.key, str(setting.seed), code_key(attack, accuracy))
    by_name = setting.cache.get("hidden", key, ARRAYS, arrays)
    return DisguiseScores(Scores.from_arrays(by_name), by_name["hides"]) if by_name else None
