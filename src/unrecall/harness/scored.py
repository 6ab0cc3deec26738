"""Scored attacks: every model gets its scores from one pool, and one file for each reading makes figures of them."""

from collections.abc import Callable, Mapping

from unrecall.attacks.base import ScoredAttack, ScoreReading
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.harness import membership, recognition, recovery
from unrecall.harness.evaluation import Evaluation, evaluated
from unrecall.harness.finding import Finding, absent

FIGURES: Mapping[ScoreReading, Callable[[Evaluation], Finding]] = {
    "membership": membership.finding,
    "recovery": recovery.over_budget,
    "time": recovery.until_shown,
    "recognition": recognition.finding,
}
ENDINGS: Mapping[ScoreReading, str] = {"membership": "auc", "recovery": "mean", "time": "mean", "recognition": "sums"}
"""What the first measurement of each reading ends in: the row that says why, where nothing could be scored."""


def scored(attack: ScoredAttack, setting: Setting) -> Finding:
    """What the attack found. Where the request or a model lacks what it needs, a row with the reason."""
    try:
        evaluation = evaluated(attack, setting)
        finding = FIGURES[attack.reading](evaluation)
    except (NotSupported, MissingReference) as reason:
        return absent(attack, str(reason), ENDINGS[attack.reading], "recovery")
    judged = any(row.judged for row in finding.measurements)
    return finding.model_copy(update={"scores": evaluation.kept()}) if judged else finding
