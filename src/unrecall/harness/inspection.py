"""Looks inside every model in the same way, and at a copy of the original that only hides, to see that it shows."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from unrecall.attacks.inspection import Inspection, InspectionAttack
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Setting
from unrecall.harness.controls import sees_hidden, sees_none, with_negative, with_positive
from unrecall.harness.finding import Finding, report_of, said_by
from unrecall.models.influence import weight_gradients
from unrecall.models.observe import batches, device_of, observe
from unrecall.nn.waiting import ask_for
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Curve, Series

HIDDEN = "hidden"
"""The role of the copy of the original that only hides."""
DECADES = 1000
"""An axis that spans this factor is logarithmic."""


def copy_that_hides(setting: Setting) -> nn.Module:
    """A copy of the original that hides by construction: weights that work against the answers grow, all others stay.

    Weights phi with phi * d log P/d phi < 0, P the probability of the forgotten answers, are multiplied by 1 + c, with
    the first c of 0.01, 0.014, 0.02 ... 1.28 that halves the mean of P (P to the power of one over its rows).
    """
    original, request, task = setting.models.original, setting.request, setting.task
    copied = copy.deepcopy(original).eval().requires_grad_(True)
    weights = dict(copied.named_parameters())
    data = batches(request.forget, task, device=device_of(copied))
    against = {
        name: weights[name].detach() * (weights[name].detach() * gradient < 0)
        for name, gradient in weight_gradients(copied, task, data, weights, "log").items()
    }
    start, added = observe(original, task, request.forget).confidence.mean(), 0.0
    for k in range(15):
        grown = 0.01 * 2 ** (k / 2)
        with torch.no_grad():
            for name, part in against.items():
                weights[name].add_(part, alpha=grown - added)
        added = grown
        if observe(copied, task, request.forget).confidence.mean() <= start / 2:
            break
    return copied.requires_grad_(False)


def inspection_finding(attack: InspectionAttack, setting: Setting) -> Finding:
    """What lies inside each model: a line over the layers or neurons, and one number."""
    frame = report_of(attack)
    row = Row(frame.name, f"{frame.title}: {attack.shows}", "inside", attack.leak)
    try:
        setting = setting.with_task(attack.adapted(setting.task))
        ask_for(setting.models.original)
        subjects = setting.models.by_role() | {HIDDEN: attack.disguise(setting) or copy_that_hides(setting)}
        by_role = attack.inspect_all(subjects, setting)
    except (NotSupported, MissingReference) as reason:
        note = said_by(attack, reason)
        return Finding(report=frame.model_copy(update={"note": note}), measurements=[row.absent(note)])
    hidden = by_role.pop(HIDDEN)
    measurement = row.measured({role: inspection.value for role, inspection in by_role.items()})
    shown = by_role["unlearned"]
    curves = [_curve(attack, frame, name, by_role) for name in shown.lines] if shown.x else []
    conclusion = attack.conclusion(measurement.unlearned, measurement.reference)
    frame = frame.model_copy(update={"curves": curves, "note": conclusion})
    sign = {"above": 1, "below": -1, None: 0}[attack.leak]
    values = [estimate.value for estimate in measurement.references if estimate.value is not None]
    frame = with_positive(frame, sees_hidden(hidden.value, values, sign, attack.sees))
    return Finding(report=with_negative(frame, sees_none(values, sign)), measurements=[measurement])


def _curve(attack: InspectionAttack, frame: AttackReport, name: str, by_role: Mapping[str, Inspection]) -> Curve:
    """One of the attack's lines, for every model."""
    x = by_role["unlearned"].x
    return Curve(
        name=name,
        title=f"{frame.title}: {name}",
        x_label=attack.axis,
        y_label=attack.unit,
        log="x" if x[0] > 0 and x[-1] >= DECADES * x[0] else "",
        series=[
            Series(role=role, x=list(inside.x), y=list(inside.lines[name]))
            for role, inside in by_role.items()
            if inside.x
        ],
    )
