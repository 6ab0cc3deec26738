"""Asks every model the same questions: one forward pass a split, then attacks that only look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from unrecall.attacks.base import MembershipAttack, Recognition, RecognitionAttack
from unrecall.attacks.residual_knowledge import (
    ratio_of_sums,
    ratios,
    set_level,
    share_above_one,
    sums,
    zero_denominators,
)
from unrecall.data.examples import Absent
from unrecall.data.request import SPLITS, Request, Split
from unrecall.data.signals import Evidence, Seen, Signals
from unrecall.disk.cache import cache_folder, code_key
from unrecall.disk.files import content_key, writing
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, MissingReference, NotSupported
from unrecall.harness.findings import Finding, Models, absent, lay_out, report_of, show
from unrecall.models.observe import observe, one_size
from unrecall.record import stats
from unrecall.record.schema import Curve, Estimate, Series
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


def evidence(models: Models, request: Request, task: Task, session: Session | None = None) -> dict[str, Evidence]:
    """One forward pass of each model over each split; a retrained model is held against the others, not itself.

    With a session that has a folder the signals are kept in the cache: originals and retrained models come back.
    """
    session = session or Session()
    there = [split for split in SPLITS if len(request[split])]
    size = one_size(task, (request[split] for split in there))
    absent = {split: one.reason for split in SPLITS if isinstance(one := request[split], Absent)}
    signals = {
        role: Seen(dict(_observed(model, request, there, task, session, size)), absent)
        for role, model in models.by_role().items()
    }
    for role, own in signals.items():
        if not all(np.isfinite(seen.loss).all() for seen in own.values()):
            raise BadInput(
                f"{role}: expected finite outputs, got NaN or infinity. It has diverged: lower lr, or set clip."
            )
    references = models.references()
    return {
        role: Evidence(request, own, tuple(signals[name] for name in references if name != role), signals["original"])
        for role, own in signals.items()
    }


def _observed(
    model: nn.Module, request: Request, splits: Sequence[Split], task: Task, session: Session, size: int | None
) -> Iterator[tuple[Split, Signals]]:
    """The model's signals on each split, from the cache where it has answered before."""
    digest = "" if session.folder is None else digest_of(model)
    for split in splits:
        if session.folder is None:
            yield split, observe(model, task, request[split], size)
            continue
        parts = (digest, request.fingerprint, split, repr(task), str(session.place()), code_key())
        path = cache_folder() / f"signals-{content_key(*parts)}.npz"
        if not path.exists():
            seen = observe(model, task, request[split], size)
            with writing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **{name: getattr(seen, name) for name in Signals.__dataclass_fields__})
        with np.load(path, allow_pickle=False) as kept:
            yield split, Signals(**kept)


def membership(
    attack: MembershipAttack, models: Models, seen: Mapping[str, Evidence], task: Task, seed: int
) -> Finding:
    """Forget as members against holdout as non-members: AUC, TPR at 1 % FPR and the whole ROC, for every model."""
    frame = report_of(attack)
    subjects = models.by_role()
    looks: dict[nn.Module, Mapping[Split, np.ndarray]] = {}
    areas: dict[str, Estimate] = {}
    rates: dict[str, Estimate] = {}
    lines: list[Series] = []
    for role, one in seen.items():
        try:
            model = subjects[role]
            if model not in looks:
                looks[model] = attack.look(model, one.request, task, seeded(seed))
            one = replace(one, looked=looks[model])  # noqa: PLW2901
            members, others = attack.score(one, "forget"), attack.score(one, "holdout")
        except (MissingReference, NotSupported) as reason:
            areas[role] = rates[role] = Estimate(value=None, note=str(reason))
            continue
        areas[role] = stats.auc(members, others, inflation=attack.inflation)
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
    area = lay_out(f"{frame.name}_auc", f"{frame.title}, AUC", "privacy", areas, leak="above")
    rate = lay_out(f"{frame.name}_tpr", f"{frame.title}, TPR at 1 % FPR", "privacy", rates, leak="above")
    first, mean = areas["original"], area.reference
    frame = frame.model_copy(
        update={
            "curves": [curve] if lines else [],
            "note": area.note,
            "positive_control": f"tells forget from holdout in the original: AUC {show(first.value)}",
            "positive_holds": None if first.low is None else first.low > 0.5,
            "negative_control": f"tells them apart less well in retrained models: mean AUC {show(mean)}",
            "negative_holds": None if mean is None or first.low is None else mean < first.low,
        }
    )
    return Finding(frame, [area, rate])


def recognition(
    attack: RecognitionAttack, models: Models, request: Request, task: Task, seed: int, session: Session
) -> Finding:
    """Residual knowledge of every model against the retrained ones, over all radii.

    The paper's mean of ratios is dominated by examples that a retrained model hardly recognises; the ratio of sums is
    not, and is the one that is judged.
    """
    frame = report_of(attack)
    try:
        task = attack.seen(task)
        found = attack.recognise(models.by_role(), models.references(), request, task, seeded(seed), session)
    except (NotSupported, MissingReference) as reason:
        return absent(frame, str(reason), "_sums", "recovery")
    totals, means, shares = {}, {}, {}
    for role, one in found.items():
        totals[role], means[role], shares[role] = sums(one)[-1], _of_ratios(one), _above_one(one)
    known = {role: one for role, one in found.items() if means[role].value is not None}
    curves = [
        _over_radius("radius", "Residual knowledge over the radius", known, set_level),
        _over_radius("radius_sums", "The same as a ratio of sums", known, ratio_of_sums),
        _over_radius("radius_share", "Share of forget examples with r above 1", known, share_above_one),
    ]
    name, where = frame.name, "at the largest radius"
    rows = [
        lay_out(f"{name}_sums", f"{frame.title} {where}, ratio of sums", "recovery", totals, leak="above"),
        lay_out(name, f"{frame.title} {where}", "recovery", means, leak="above", note=means["unlearned"].note),
        lay_out(f"{name}_share", "Share of forget examples with r above 1", "recovery", shares, leak="above"),
    ]
    first, mean = totals["original"], rows[0].reference
    frame = frame.model_copy(
        update={
            "curves": curves if known else [],
            "positive_control": f"the original recognises more than retrained models do: r = {show(first.value)}",
            "positive_holds": None if first.value is None else first.low is not None and first.low > 1,
            "negative_control": f"retrained models against each other stay near 1: r = {show(mean)}",
            "negative_holds": None if mean is None else abs(mean - 1) < 0.15,
        }
    )
    return Finding(frame, rows)


NO_PEER = Estimate(value=None, note="needs a retrained model other than itself that recognises forget examples")


def _of_ratios(one: Recognition) -> Estimate:
    """The paper's: mean over retrained models of the mean over examples that have a ratio."""
    if not len(one.references) or not (one.references[:, -1] > 0).any():
        return NO_PEER
    level = float(set_level(one)[-1])
    per_example = _nan_mean(ratios(one)[:, -1])
    spread = stats.mean(per_example[~np.isnan(per_example)])
    shift = level - (spread.value or 0.0)
    return Estimate(
        value=level,
        low=None if spread.low is None else spread.low + shift,
        high=None if spread.high is None else spread.high + shift,
        n=spread.n,
        note=f"{int(zero_denominators(one)[-1])} zero denominators",
    )


def _above_one(one: Recognition) -> Estimate:
    """The share of (retrained model, example) pairs in which the subject recognises more."""
    if not len(one.references):
        return NO_PEER
    return stats.mean((one.subject[-1] > one.references[:, -1]).mean(0), share=True)


def _over_radius(
    name: str, title: str, found: Mapping[str, Recognition], level: Callable[[Recognition], np.ndarray]
) -> Curve:
    lines = [Series(role=role, x=list(one.radii), y=[_finite(v) for v in level(one)]) for role, one in found.items()]
    y_label = "share" if level is share_above_one else "r (1 = retrained)"
    return Curve(name=name, title=title, x_label="radius (input units)", y_label=y_label, series=lines)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined, nan where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    result: np.ndarray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return result
