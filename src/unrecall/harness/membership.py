"""What membership scores come to: how well they tell forget, as members, from holdout, as non-members."""

from collections.abc import Mapping

import numpy as np

from unrecall.attacks.base import MembershipAttack, ScoredAttack
from unrecall.attacks.loss import Loss
from unrecall.evidence.pool import Arm
from unrecall.harness.controls import tells_members, with_positive
from unrecall.harness.evaluation import Evaluation
from unrecall.harness.finding import Figures, Finding, is_judged, report_of
from unrecall.harness.memory_left import MEMORY, estimates_of_memory
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Curve, Estimate, Measurement, Series


def figures_of(attack: ScoredAttack, by_role: Mapping[str, Mapping[Arm, np.ndarray]], kind: str) -> Figures:
    """AUC, TPR at 1 % FPR and the whole ROC, for every model; of the plain loss also the memory that is left.

    `by_role`: scores by role and arm `[n]`. `kind`: the request's.
    """
    inflation = attack.inflation if isinstance(attack, MembershipAttack) else 1.0
    rows, lines = {"auc": dict[str, Estimate](), "tpr": dict[str, Estimate]()}, list[Series]()
    for role, scores in by_role.items():
        members, others = scores["forget"], scores["holdout"]
        rows["auc"][role] = stats.auc(members, others, inflation=inflation)
        rows["tpr"][role] = stats.tpr_at_fpr(members, others)
        fpr, tpr = stats.roc(members, others)
        lines.append(Series(role=role, x=fpr.tolist(), y=tpr.tolist()))
    if type(attack) is Loss:
        losses = {role: {arm: -values for arm, values in scores.items()} for role, scores in by_role.items()}
        rows |= {name.removeprefix("loss_"): row for name, row in estimates_of_memory(losses, kind).items()}
    curve = Curve(
        name="roc",
        title=f"{report_of(attack).title}: forget against holdout",
        x_label="false-positive rate",
        y_label="true-positive rate",
        log="xy",
        series=lines,
    )
    return Figures(rows, [curve] if lines else [])


def finding(evaluation: Evaluation) -> Finding:
    """Those figures, with the reason where a model has no scores."""
    attack, frame = evaluation.attack, report_of(evaluation.attack)
    by_role = {
        role: {arm: scores.at(place)[0] for arm, place in evaluation.places.items()}
        for role, scores in evaluation.scores.items()
    }
    figures = figures_of(attack, by_role, evaluation.setting.request.kind)
    absent = {role: Estimate(value=None, note=reason) for role, reason in evaluation.missing.items()}
    order = [subject.role for subject in evaluation.setting.subjects]
    areas, rates = ({role: (figures.rows[row] | absent)[role] for role in order} for row in ("auc", "tpr"))
    judged = is_judged(attack, "auc")
    chance = None if isinstance(attack, MembershipAttack) and attack.learns_arms else 0.5
    area = Row(f"{frame.name}_auc", f"{frame.title}, AUC", "privacy", "above", judged, chance=chance).measured(areas)
    rate = Row(f"{frame.name}_tpr", f"{frame.title}, TPR at 1 % FPR", "privacy", "above").measured(rates)
    frame = frame.model_copy(update={"curves": figures.curves, "note": area.note})
    rows = [area, rate, *(_memory(evaluation, figures) if type(attack) is Loss else [])]
    return Finding(report=with_positive(frame, tells_members(area.original)), measurements=rows)


def _memory(evaluation: Evaluation, figures: Figures) -> list[Measurement]:
    """What the plain loss's scores say of the memory that is left, once every model has some."""
    if evaluation.missing:
        reason = next(iter(evaluation.missing.values()))
        return [row.absent(reason) for row in MEMORY]
    return [row.measured(figures.rows[row.name.removeprefix("loss_")]) for row in MEMORY]
