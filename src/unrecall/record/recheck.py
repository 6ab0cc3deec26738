"""Reads a record again and says whether it agrees with itself and the files beside it; needs no model and no data.

What is judged, and on which side it leaks, comes from the code and not from the record; bounds, labels, verdict, means
and doubts follow from the record's numbers. What can't be checked is said too.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from numpy.linalg import LinAlgError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unrecall.disk.files import file_key
from unrecall.errors import BadInput
from unrecall.record.doubts import Facts, doubts
from unrecall.record.judgement import RULES, declared_by_own_rule, judged_by_own_rule
from unrecall.record.never_trained import FIXED_SUITES, TAUGHT_STEPS, concluded, judge, possible_levels, seed_of
from unrecall.record.pool_scores import PoolScores, Stated
from unrecall.record.schema import (
    NEVER_TRAINED,
    SCORES,
    AttackTest,
    Estimate,
    Measurement,
    NeverTrained,
    Record,
    Side,
    Tuning,
    Verdict,
    load,
)
from unrecall.record.verdict import ALPHA

NO_CHECKPOINT = "the weights: no unlearned checkpoint lies beside the record"
"""What a check says it can't see where the weights lie elsewhere."""
WIDEST = 0.1
"""The largest margin of a judged measurement."""


class Recheck(NamedTuple):
    """A record, all that is off about it, and what the check can't see."""

    record: Record
    problems: list[str]
    unseen: list[str]

    @property
    def agreement(self) -> str:
        """With what a record agrees that has no problems."""
        beside = ["scores"] * bool(self.record.scores) + ["weights"] * (NO_CHECKPOINT not in self.unseen)
        also = f", and with the {' and '.join(beside)} beside it" if beside else ""
        return f"agrees with itself and the rule{also}"


def recheck(path: Path, declared: Mapping[str, Side | None]) -> Recheck:
    """Judges, sums and doubts the record at `path` anew, and hashes the scores and weights beside it.

    `declared`: the measurements that a verdict may rest on, by name, and the side on which each leaks.
    """
    record, folder = load(path), path.parent
    problems = [*_rows(record, declared), *_judgement(record), *_numbers(record)]
    problems += [*_weights(record, folder), *_scores(record, folder)]
    problems += _never_trained(record, folder)
    return Recheck(record, problems or [*_doubts(record)], [*_unseen(record, folder)])


def _rows(record: Record, declared: Mapping[str, Side | None]) -> Iterator[str]:
    """What is judged, which side leaks and how wide a margin may be is the code's to say."""
    declared = declared_by_own_rule(record, declared)
    word = {True: "judged", False: "not judged"}
    for m in record.measurements:
        if m.judged != (m.name in declared):
            yield f"{m.name}: the record has it {word[m.judged]}, the rule has it {word[not m.judged]}."
        if m.name in declared and m.leak != (side := declared[m.name]):
            yield f"{m.name}: the record says it leaks {m.leak or 'nowhere'}, the rule says {side or 'nowhere'}."
        if m.name in declared and not 0 <= m.margin <= WIDEST:
            yield f"{m.name}: expected a margin of at most {WIDEST:g}, got {m.margin:g}."


def _judgement(record: Record) -> Iterator[str]:
    """Labels, bounds and verdict must be those that the numbers have under the rule that the record names."""
    rejudged = judged_by_own_rule(record)
    if rejudged is None:
        rules = ", ".join(f"'{rule}'" for rule in RULES)
        yield f"verdict: the record was judged by the rule '{record.verdict.rule}'; can be checked here: {rules}."
        return
    if record.verdict.alpha != ALPHA:
        yield f"verdict: the record was judged at alpha {record.verdict.alpha:g}, the rule says {ALPHA:g}."
    for written, derived in zip(record.measurements, rejudged.measurements, strict=True):
        if written.verdict != derived.verdict:
            yield f"{written.name}: the record says '{written.verdict}', its numbers say '{derived.verdict}'."
        if not _same_bounds(written, derived):
            yield f"{written.name}: its bounds are not those of its references."
    yield from _verdict(record.verdict, rejudged.verdict)


def _verdict(written: Verdict, derived: Verdict) -> Iterator[str]:
    """How a verdict differs from the one that the numbers give; nothing where it doesn't."""
    if written.label != derived.label:
        yield f"verdict: the record says '{written.label}', its numbers say '{derived.label}'."
    if written.line != derived.line:
        yield f"verdict: the record says '{written.line}', its numbers say '{derived.line}'."
    elif written != derived and written.label == derived.label:
        yield "verdict: the record says other counts, or another basis, than its numbers have."


def _same_bounds(written: Measurement, derived: Measurement) -> bool:
    pairs = ((written.bound_low, derived.bound_low), (written.bound_high, derived.bound_high))
    return all(
        a is b is None or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9))
        for a, b in pairs
    )


LOSS = "by how much lower its loss is"
"""What the criterion says of a strength that was tuned by losses."""


def _within_budget(tuning: Tuning, most: float) -> Iterator[str]:
    """Trials within their budget, and no others, must count; and what is said of it must name attack and budget."""
    for trial in tuning.trials:
        if trial.kl is not None and trial.sparing != (trial.kl <= most):
            yield f"tuning: the strength {trial.strength:g} spent {trial.kl:g} nats of {most:g}, and is said otherwise."
    if not tuning.criterion.startswith(f"the least that {tuning.against} ") or f"{most:g} nats" not in tuning.criterion:
        yield "tuning: its criterion names another attack or budget."
    if (tuning.measure == "loss") != (LOSS in tuning.criterion):
        yield "tuning: its criterion names another measure of what comes back."


def _numbers(record: Record) -> Iterator[str]:
    """Means must be those of their references, intervals hold their values, and choices be among the trials."""
    for m in record.measurements:
        values = [e.value for e in m.references if e.value is not None]
        mean = sum(values) / len(values) if values else None
        if (m.reference is None) != (mean is None) or not math.isclose(m.reference or 0.0, mean or 0.0, abs_tol=1e-9):
            yield f"{m.name}: the mean of its references is not its reference."
        for estimate in (m.unlearned, m.original, m.null, *m.references):
            if not _ordered(estimate):
                yield f"{m.name}: the interval {estimate.low} to {estimate.high} does not hold {estimate.value}."
    if record.tuning and record.tuning.chosen not in [trial.strength for trial in record.tuning.trials]:
        yield f"tuning: the strength {record.tuning.chosen:g} was chosen, but not tried."
    if record.tuning and record.tuning.most_kl is None and record.tuning.measure != "shown":
        yield "tuning: it names a measure of what comes back, and no attack."
    if record.tuning and record.tuning.most_kl is not None:
        yield from _within_budget(record.tuning, record.tuning.most_kl)
    if record.seeds and set(record.seeds) != {"training", "unlearning"}:
        yield f"seeds: expected those of training and unlearning, or none, got {', '.join(sorted(record.seeds))}."
    if record.sizes.get("forget", 0) < 1:
        yield f"sizes: expected at least one forget example, got {record.sizes.get('forget', 0)}."
    for role, digest in record.provenance.weights.items():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            yield f"weights of {role}: '{digest}' is no sha256."


def _ordered(estimate: Estimate) -> bool:
    if estimate.value is None:
        return estimate.low is estimate.high is None
    if estimate.low is None or estimate.high is None:
        return True
    return estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9


def _doubts(record: Record) -> Iterator[str]:
    """The doubts must be those that the record gives rise to, word for word.

    An older record may hold a doubt of tuning without what that rests on, or in the words for samples where something
    else was sought, and of controls on which no verdict rests.
    """
    due, tuning = doubts(Facts.of(record)), record.tuning
    otherwise = tuning is not None and (tuning.untouched is None or bool(tuning.against) or record.kind != "samples")
    formerly = ["tuning"] if otherwise else []
    for doubt in due:
        if doubt not in record.doubts and not (doubt.id in formerly and doubt.id in {own.id for own in record.doubts}):
            yield f"doubts: the record leaves out '{doubt.message}' [{doubt.id}]."
    formerly += ["positive-control", "negative-control"] if record.verdict.basis == "never trained" else []
    for doubt in record.doubts:
        if doubt not in due and doubt.id not in formerly:
            yield f"doubts: nothing in the record gives rise to '{doubt.message}' [{doubt.id}]."


def checkpoints(folder: Path) -> list[Path]:
    """The unlearned checkpoints beside a record: files, or the folder of a Transformers model."""
    models = [config.parent for config in folder.glob("unlearned/config.json")]
    return [*folder.glob("unlearned.safetensors"), *models, *sorted(folder.glob("parts/unlearned-*.safetensors"))]


def _weights(record: Record, folder: Path) -> Iterator[str]:
    """An unlearned checkpoint in the record's folder must be the one that was audited."""
    for checkpoint in checkpoints(folder):
        from unrecall.disk.weights import digest_of_file

        try:
            if digest_of_file(checkpoint) != record.provenance.weights.get("unlearned"):
                yield f"{checkpoint.name}: its weights are not those that were audited."
        except BadInput as error:
            yield str(error)


def _scores(record: Record, folder: Path) -> Iterator[str]:
    """Each file of scores that the record names must be there, byte for byte, and no other; each is of an attack."""
    files = sorted(places_of_scores(folder, "*"))
    attacks = [report.name for report in record.attacks]
    for name, digest in record.scores.items():
        places = [file for file in files if file.stem == name]
        if not places:
            place = f"{SCORES}/{name}.safetensors"
            yield f"scores of {name}: missing. Expected {place} beside the record, or in its folder of parts."
        elif any(file_key(place) != digest for place in places):
            yield f"scores of {name}: the file is not the one that the record was made from."
        if name not in attacks and not (name == NEVER_TRAINED and record.never_trained is not None):
            yield f"scores of {name}: the record holds no report of an attack of that name."
    for file in files:
        if file.stem not in record.scores:
            yield f"{SCORES}/{file.name}: the record names no such scores."


def _never_trained(record: Record, folder: Path) -> list[str]:
    """The verdict beside records never trained on must be the one that the kept scores come to, p by p."""
    written = record.never_trained
    if written is None:
        return []
    if not written.attacks:
        return _of_no_attack(record, written)
    problems = []
    if (*[test.name for test in written.attacks], *written.absent) not in _orders(written):
        problems.append("never trained: its attacks are no fixed suite.")
    if any(test.steps and not _possible(test) for test in written.attacks):
        problems.append("never trained: its fine-tuning can't have taken these steps.")
    if written.seed != seed_of(record.provenance.fingerprint, record.seed):
        problems.append("never trained: its seed is not the one that data and audit give.")
    problems += _not_following(record, written)
    if NEVER_TRAINED not in record.scores:
        return problems + ([f"scores of {NEVER_TRAINED}: the record names none."] if record.scores else [])
    for place in places_of_scores(folder, NEVER_TRAINED):
        try:
            rejudged = _judged_again(record, place)
        except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, LinAlgError) as error:
            return [f"scores of {NEVER_TRAINED}: expected those of forget and holdout, got: {error}."]
        written_figures, figures = written.model_dump(), rejudged.model_dump()
        differing = [name for name in figures if not _close(written_figures[name], figures[name])]
        problems += [f"never trained: its {name} is not what the scores beside it come to." for name in differing]
    return problems


def _not_following(record: Record, written: NeverTrained) -> Iterator[str]:
    """What doesn't follow from the figures that stand in the record, scores or not."""
    follows = concluded(written, unchanged=record.provenance.unchanged)
    for name in ("label", "line", "grade", "needed", "epsilon"):
        if not _close(getattr(written, name), getattr(follows, name)):
            yield f"never trained: its {name} does not follow from its other figures."
    counted = [test.p for test in written.attacks if test.p is not None]
    if not _close(written.leak, min(counted, default=None)):  # step-down: the strongest attack's p is that of all
        yield "never trained: its leak is not the smallest p of its attacks."
    least = 1 / (written.draws + 1) - 1e-12
    p_values = {"leak": written.leak, "strange": written.strange, "original": written.original}
    for name, p in p_values.items():
        if p is None or not least <= p <= 1:
            yield f"never trained: its {name} is no p of {written.draws} labellings."
    if (written.level, written.strange_level) not in possible_levels(written.leak, written.strange):
        yield "never trained: its levels can't be those of its p."


def _of_no_attack(record: Record, written: NeverTrained) -> list[str]:
    """Without attacks there is no verdict, unless nothing was changed at all."""
    unchanged = record.provenance.unchanged
    figures = (written.leak, written.strange, written.original, written.blind, written.needed, written.recognised)
    if written.label != ("unchanged" if unchanged else "not judged") or any(f is not None for f in figures):
        return [f"never trained: the record says '{written.label}' without any attack."]
    return [f"scores of {NEVER_TRAINED}: no attack is of them."] if NEVER_TRAINED in record.scores else []


def _orders(written: NeverTrained) -> list[tuple[str, ...]]:
    """Each fixed suite, with the attacks that could not be run at the end."""
    return [
        (*(name for name in suite if name not in written.absent), *(name for name in suite if name in written.absent))
        for suite in FIXED_SUITES
    ]


def _possible(test: AttackTest) -> bool:
    """Whether fine-tuning can have taken these steps: those that its name says; relearning, any at which it looks."""
    if test.name == "symmetric":
        return len(test.steps) <= 2 and {*test.steps} <= {0, *TAUGHT_STEPS}
    return [f"benign_{step or test.name.removeprefix('benign_')}" for step in test.steps] == [test.name]


def _judged_again(record: Record, place: Path) -> NeverTrained:
    """What the scores of a file come to, and what is stated beside them in it."""
    arrays = load_file(place)
    stated = Stated.from_array(arrays["stated"], unchanged=record.provenance.unchanged)
    scores = PoolScores.from_arrays(arrays, list(stated.attacks), list(stated.covariates.values()))
    return judge(scores, stated, rule=record.verdict.rule)


def _close(first: object, second: object) -> bool:
    """Whether two figures, or all of what they hold, are the same up to rounding."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_close(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(_close(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    return first == second


def places_of_scores(folder: Path, name: str) -> list[Path]:
    """The files of an attack's scores beside a record, or in its folder of parts; "*" for those of all attacks."""
    return [file for home in (folder, folder / "parts") for file in (home / SCORES).glob(f"{name}.safetensors")]


def _unseen(record: Record, folder: Path) -> Iterator[str]:
    """What agrees with everything and can be wrong all the same."""
    yield "whether numbers were forged to fit each other, or rows or attacks left out: only doing the run again shows"
    if not record.scores:
        yield "scores of single examples: the record names none"
    if record.never_trained is not None and NEVER_TRAINED not in record.scores:
        yield "the verdict beside records never trained on: no scores of it are kept"
    if not checkpoints(folder):
        yield NO_CHECKPOINT
