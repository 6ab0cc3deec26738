"""What residual knowledge comes to: how much more of the perturbed examples a model recognises than retrained ones."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from unrecall.attacks.residual_knowledge import (
    Recognition,
    ResidualKnowledge,
    disagreement_bounds,
    near_disagreement,
    ratio_of_sums,
    ratios,
    set_level,
    share_above_one,
    sums,
    zero_denominators,
)
from unrecall.errors import NotSupported
from unrecall.evidence.scores import mean_of_defined
from unrecall.harness.controls import recognises, with_positive
from unrecall.harness.evaluation import Evaluation
from unrecall.harness.finding import Figures, Finding, is_judged, report_of
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Curve, Estimate, Series

NO_PEER = Estimate(value=None, note="needs a retrained model other than itself that recognises forget examples")


def figures_of(by_role: Mapping[str, Recognition]) -> Figures:
    """The ratio of sums, the paper's mean of ratios and the share above 1 at the largest radius, and all over radii."""
    means = {role: _of_ratios(counts) for role, counts in by_role.items()}
    rows = {
        "sums": {role: sums(counts)[-1] for role, counts in by_role.items()},
        "": means,
        "share": {role: _above_one(counts) for role, counts in by_role.items()},
    }
    defined = {role: counts for role, counts in by_role.items() if means[role].value is not None}
    curves = [
        _over_radius("radius", "Residual knowledge over the radius", defined, set_level),
        _over_radius("radius_sums", "The same as a ratio of sums", defined, ratio_of_sums),
        _over_radius("radius_share", "Share of forget examples with r above 1", defined, share_above_one),
    ]
    return Figures(rows, curves if defined else [])


def finding(evaluation: Evaluation) -> Finding:
    """Residual knowledge of every model beside the retrained ones, over all radii.

    The paper's mean of ratios is dominated by examples that a retrained model hardly recognises; the ratio of sums is
    not, and is the one that is judged.
    """
    attack, frame = evaluation.attack, report_of(evaluation.attack)
    if not isinstance(attack, ResidualKnowledge):
        raise NotSupported(f"{type(attack).__name__}: expected counts over radii, got another attack's scores.")
    by_role = {
        role: attack.recognition(role, evaluation.scores, evaluation.places["forget"]) for role in evaluation.scores
    }
    figures = figures_of(by_role)
    totals, means = figures.rows["sums"], figures.rows[""]
    name, where = frame.name, "at the largest radius"
    undefined = int(zero_denominators(by_role["unlearned"])[-1]) if means["unlearned"].value is not None else 0
    judged = is_judged(attack, "sums")
    rows = [
        Row(f"{name}_sums", f"{frame.title} {where}, ratio of sums", "recovery", "above", judged).measured(
            totals, _disagreement(by_role["unlearned"], attack.perturbation == "gaussian")
        ),
        Row(name, f"{frame.title} {where}", "recovery", "above")
        .measured(means, means["unlearned"].note)
        .model_copy(update={"undefined": undefined}),
        Row(f"{name}_share", "Share of forget examples with r above 1", "recovery", "above").measured(
            figures.rows["share"]
        ),
    ]
    frame = frame.model_copy(update={"curves": figures.curves})
    return Finding(report=with_positive(frame, recognises(totals["original"])), measurements=rows)


def _of_ratios(counts: Recognition) -> Estimate:
    """The paper's figure: the mean over retrained models of the mean over examples that have a ratio."""
    if not len(counts.references) or not (counts.references[:, -1] > 0).any():
        return NO_PEER
    level = float(set_level(counts)[-1])
    per_example = mean_of_defined(ratios(counts)[:, -1], axis=0)
    spread = stats.mean(per_example[~np.isnan(per_example)])
    shift = level - (spread.value or 0.0)
    return Estimate(
        value=level,
        low=None if spread.low is None else spread.low + shift,
        high=None if spread.high is None else spread.high + shift,
        n=spread.n,
        note=f"{int(zero_denominators(counts)[-1])} zero denominators",
    )


def _disagreement(counts: Recognition, gaussian: bool) -> str:
    """What the counts at the largest radius say about how often subject and retrained models must disagree.

    Nothing beside fewer than two of those: the row then says that they are too few.
    """
    if len(counts.references) < 2:
        return ""
    low, high = (float(bound[-1]) for bound in disagreement_bounds(counts))
    note = f"By these counts it disagrees with retrained models on {low:.1%} to {high:.1%} of the perturbed examples"
    if gaussian and counts.radii[-1] > 0:
        near = float(near_disagreement(counts)[-1])
        note += f"; at least {near:.1%} of those lie within one radius of a disagreement"
    return f"{note}."


def _above_one(counts: Recognition) -> Estimate:
    """The share of (retrained model, example) pairs in which the subject recognises more."""
    if not len(counts.references):
        return NO_PEER
    return stats.mean((counts.subject[-1] > counts.references[:, -1]).mean(0), share=True)


def _over_radius(
    name: str, title: str, by_role: Mapping[str, Recognition], level: Callable[[Recognition], np.ndarray]
) -> Curve:
    """One figure of every model, over the radius."""
    lines = [
        Series(
            role=role,
            x=list(counts.radii),
            y=[None if math.isnan(value) else value for value in level(counts).tolist()],
        )
        for role, counts in by_role.items()
    ]
    y_label = "share" if level is share_above_one else "r (1 = retrained)"
    return Curve(name=name, title=title, x_label="radius (share of the inputs' range)", y_label=y_label, series=lines)
