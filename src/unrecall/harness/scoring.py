"""Scored attacks: every model gets its scores from one pool, and one file for each reading makes figures of them."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np

from unrecall.attacks.base import ARMS, MembershipAttack, ScoredAttack, ScoreReading
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.pool import Arm, ArmIndices
from unrecall.evidence.scores import Scores
from unrecall.evidence.setting import Setting
from unrecall.harness import membership, recognition, recovery
from unrecall.harness.controls import Arms, Claim, Control, tells_nothing, with_negative
from unrecall.harness.evaluation import Evaluation, check_finite, draw_for, evaluate, one_sided, score
from unrecall.harness.finding import Finding, absent

FIGURES: Mapping[ScoreReading, Callable[[Evaluation], Finding]] = {
    "membership": membership.finding,
    "recovery": recovery.recovery_curve,
    "time": recovery.relearning_time,
    "recognition": recognition.finding,
}
ENDINGS: Mapping[ScoreReading, str] = {"membership": "auc", "recovery": "mean", "time": "mean", "recognition": "sums"}
"""How the first measurement of each reading is named, after the attack's name; if nothing was scored, it says why."""
UNTOLD = Claim(
    "retrained models don't tell forget from holdout", "retrained models should not tell forget from holdout, but do"
)
UNTOLD_BY_TAUGHT = Claim(
    "a retrained model, taught from both, doesn't tell forget from holdout",
    "a retrained model, taught from both, should not tell forget from holdout, but does",
)
UNTOLD_HALVES = Claim(
    "the original doesn't tell one half of the holdout from the other",
    "the original should not tell one half of the holdout from the other, but does",
)
"""What the negative control of a scored attack expects, by which model it asks, and about what."""


def score_finding(attack: ScoredAttack, setting: Setting) -> Finding:
    """What the attack found. Where the request or a model lacks what it needs, a row with the reason."""
    try:
        evaluation = evaluate(attack, setting)
        finding = FIGURES[attack.reading](evaluation)
    except (NotSupported, MissingReference) as reason:
        return absent(attack, str(reason), attack.judged or ENDINGS[attack.reading], "recovery")
    if finding.report.negative_holds is None:
        finding = finding.model_copy(update={"report": with_negative(finding.report, negative(evaluation))})
    judged = any(row.judged for row in finding.measurements)
    return finding.model_copy(update={"scores": evaluation.score_arrays()}) if judged else finding


def negative(evaluation: Evaluation) -> Control:
    """The negative control: who met neither forget nor holdout must not tell them apart by the attack's scores.

    Those are all retrained models. An attack that is taught from forget alone treats the arms differently, and may: it
    is run once more on the first of them, taught from both. Without any, a membership attack is told that one half of
    the holdout is forget, and asks the original, which met neither half.
    """
    attack, setting = evaluation.attack, evaluation.setting
    membership = attack if isinstance(attack, MembershipAttack) else None
    claim, places, by_role = UNTOLD, evaluation.places, evaluation.scores
    roles = [role for role in setting.models.references() if role in by_role]
    try:
        if not roles and membership and by_role:
            claim, arms = UNTOLD_HALVES, [_halves(evaluation)]
        else:
            if not roles:
                raise MissingReference("; ".join({*evaluation.missing.values()}) or "it takes a retrained model")
            if one_sided(attack, setting.request):
                claim, roles = UNTOLD_BY_TAUGHT, roles[:1]
                places, by_role = _taught_from_both(attack, setting, roles[0])
            arms = [_spent(by_role[role], places) for role in roles]
    except (NotSupported, MissingReference) as reason:
        return claim.untested(str(reason))
    inflation, upwards = (membership.inflation, membership.learns_arms) if membership else (1.0, False)
    return tells_nothing(arms, claim, inflation=inflation, upwards=upwards)


def _spent(scores: Scores, places: Mapping[Arm, ArmIndices]) -> Arms:
    """What a model shows of each tested example once something was spent: the mean over all points."""
    if "holdout" not in places:
        raise MissingReference("it takes a holdout")
    later = scores.budgets > 0 if (scores.budgets > 0).any() else np.ones(len(scores.budgets), bool)
    return Arms(*(scores.at(places[arm])[later].mean(0) for arm in ("forget", "holdout")))


def _taught_from_both(
    attack: ScoredAttack, setting: Setting, role: str
) -> tuple[Mapping[Arm, ArmIndices], Mapping[str, Scores]]:
    """Where the arms stand, and the model's scores, when the attack is taught from both arms alike."""
    if "dose" not in {field.name for field in fields(attack)}:
        raise NotSupported("it is taught from forget alone, and knows no other form")
    both: ScoredAttack = replace(attack, dose="both")  # type: ignore[call-arg]
    draw = draw_for(both, setting)
    subject = next(subject for subject in setting.subjects if subject.role == role)
    return draw.places, {role: score(both, subject, setting, draw)}


def _halves(evaluation: Evaluation) -> Arms:
    """What a membership attack says of the halves of the holdout in the original, one of them taken for forget."""
    attack, setting = evaluation.attack, evaluation.setting
    if not isinstance(attack, MembershipAttack):
        raise NotSupported(f"{type(attack).__name__}: expected a membership attack.")
    order = np.random.default_rng(setting.seed).permutation(len(setting.request.holdout))
    half = len(order) // 2
    original = next(subject for subject in setting.subjects if subject.role == "original")
    evidence = attack.evidence(original, setting).between(np.sort(order[:half]), np.sort(order[half:]))
    scores = [attack.score_each(evidence, arm) for arm in ARMS]
    check_finite(attack, scores)
    return Arms(*scores)
