"""What membership scores come to: how well they tell forget, as members, from holdout, as non-members."""

from collections.abc import Mapping

import numpy as np

from unrecall.attacks.base import MembershipAttack
from unrecall.attacks.loss import Loss
from unrecall.evidence.pool import Arm
from unrecall.harness.controls import tells_members, with_positive
from unrecall.harness.evaluation import Evaluation
from unrecall.harness.finding import Finding, is_judged, report_of
from unrecall.harness.memory_left import MEMORY, rows_of_memory
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Curve, Estimate, Measurement, Series


def finding(evaluation: Evaluation) -> Finding:
    """AUC, TPR at 1 % FPR and the whole ROC, for every model; of the plain loss also the memory that is left."""
    attack, frame = evaluation.attack, report_of(evaluation.attack)
    areas = {role: Estimate(value=None, note=reason) for role, reason in evaluation.missing.items()}
    rates, lines = dict(areas), list[Series]()
    inflation, learns = 1.0, False
    if isinstance(attack, MembershipAttack):
        inflation, learns = attack.inflation, attack.learns_arms
    for role, scores in evaluation.scores.items():
        members, others = (scores.at(evaluation.places[arm])[0] for arm in ("forget", "holdout"))
        areas[role] = stats.auc(members, others, inflation=inflation)
        rates[role] = stats.tpr_at_fpr(members, others)
        fpr, tpr = stats.roc(members, others)
        lines.append(Series(role=role, x=fpr.tolist(), y=tpr.tolist()))
    curve = Curve(
        name="roc",
        title=f"{frame.title}: forget against holdout",
        x_label="false-positive rate",
        y_label="true-positive rate",
        log="xy",
        series=lines,
    )
    judged = is_judged(attack, "auc")
    order = [subject.role for subject in evaluation.setting.subjects]
    area = Row(
        f"{frame.name}_auc", f"{frame.title}, AUC", "privacy", "above", judged, chance=None if learns else 0.5
    ).measured({role: areas[role] for role in order})
    rate = Row(f"{frame.name}_tpr", f"{frame.title}, TPR at 1 % FPR", "privacy", "above").measured(
        {role: rates[role] for role in order}
    )
    frame = frame.model_copy(update={"curves": [curve] if lines else [], "note": area.note})
    memory = memory_of(evaluation) if type(attack) is Loss else []
    return Finding(report=with_positive(frame, tells_members(area.original)), measurements=[area, rate, *memory])


def memory_of(evaluation: Evaluation) -> list[Measurement]:
    """What the plain loss's scores say of the memory that is left."""
    if evaluation.missing:
        reason = next(iter(evaluation.missing.values()))
        return [row.absent(reason) for row in MEMORY]
    losses: dict[str, Mapping[Arm, np.ndarray]] = {
        role: {arm: -scores.at(place)[0] for arm, place in evaluation.places.items()}
        for role, scores in evaluation.scores.items()
    }
    return rows_of_memory(losses, evaluation.setting.request.kind)
