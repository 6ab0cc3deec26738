"""Checks a record against the code: which rows there must be, how they are read, and what its scores come to.

record/recheck.py asks whether a record agrees with itself and the files beside it; here is what only the metrics, the
attacks and the harness's own figures can tell.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unrecall.attacks.base import Attack, MembershipAttack, RecoveryAttack, ScoredAttack
from unrecall.attacks.relearn import Relearn
from unrecall.attacks.residual_knowledge import Recognition, ResidualKnowledge
from unrecall.errors import UnrecallError
from unrecall.evidence.pool import Arm, ArmIndices
from unrecall.evidence.scores import Scores, Trace, best
from unrecall.harness import membership, recognition, recovery
from unrecall.harness.finding import Figures, is_judged
from unrecall.harness.memory_left import MEMORY
from unrecall.harness.recovery import RecoveryTraces
from unrecall.harness.suites import built_in, judged_names, own_judged
from unrecall.metrics import METRICS
from unrecall.metrics.gap import NAMES, average_gap
from unrecall.record import stats
from unrecall.record.provenance import commit, versions, without_folders
from unrecall.record.recheck import Recheck, places_of_scores, recheck
from unrecall.record.row import ROLES, Row
from unrecall.record.schema import AttackReport, Estimate, Measurement, Record, load
from unrecall.record.verdict import FORMER, RULE, SINCE
from unrecall.spec.catalog import entries
from unrecall.spec.lines import parse, settings, taken_apart

ROWS: Mapping[str, Row] = {row.name: row for metric in METRICS for row in metric.rows}
BESIDE = {"_auc": "_tpr", "_mean": "_worst", "_sums": "_share"}
"""Which row of an attack stands beside which other, where that has a value."""
PER_SET = ("_mcq", "_rouge")
"""How the rows end that are made for each set of questions, whatever it is called."""
WHERE_IT_APPLIES = {"restoration", "contamination_worst", "completeness", "members_left"}
"""Rows that some audits of any task have, and others, or those of before, don't; none is judged."""
LATER = {"retain_loss"}
"""Rows that records of the first rule beside retrained models don't have."""
ROWS_WITHOUT_REFERENCES = {"average_gap", "cost_time", "cost_passes", "cost_memory"}
"""Rows that retrained models have no value in."""


@np.errstate(all="ignore")  # forged figures may be of any size
def check(path: Path) -> Recheck:
    """The record at `path`, all that is off about it, and what can't be seen from it."""
    record, folder = load(path), path.parent
    checked = recheck(path, judged_names(record))
    problems = [*_rows(record), *_attacks(record), *_references(record), *_counts(record), *_sums(record)]
    problems += [*_identity(record), *_method(record), *_kind(record), *_curves(record), *_figures(record, folder)]
    return Recheck(record, [*checked.problems, *problems], [*checked.unseen, *_unseen(record)])


def _rows(record: Record) -> Iterator[str]:
    """Every row that any audit has must be there, once, and be read as its metric declares."""
    names = [m.name for m in record.measurements]
    yield from (f"{name}: the record has this row twice." for name in sorted({n for n in names if names.count(n) > 1}))
    for metric in METRICS:
        for row in () if metric.needs else metric.rows:
            older = row.name in LATER and record.verdict.rule not in (RULE, *FORMER)
            if row.name not in names and row.name not in WHERE_IT_APPLIES and not older:
                yield f"{row.name}: every audit measures it, but the record has no such row."
    reports = [report.name for report in record.attacks]
    for m in record.measurements:
        declared = ROWS.get(m.name)
        if declared is None and not m.name.endswith(PER_SET) and not any(_row_is_of(m.name, name) for name in reports):
            yield f"{m.name}: no metric makes it, and the record holds no report of an attack that does."
        for key in ("group", "unit", "ideal", "chance", "margin", "prior") if declared else ():
            if getattr(m, key) != getattr(declared, key):
                yield f"{m.name}: its {key} is {getattr(m, key)!r}, the code says {getattr(declared, key)!r}."
        if declared and _uncounted(m.title) != _uncounted(declared.title):
            yield f"{m.name}: its title is '{m.title}', the code says '{declared.title}'."


def _uncounted(title: str) -> str:
    """A row's title without how many it was retrieved from, which only the run knows."""
    return re.sub(r"among [\d,]+", "among", title)


def _kind(record: Record) -> Iterator[str]:
    """What was to be forgotten must be what rows and tables are of."""
    has_value = {m.name for m in record.measurements if m.unlearned.value is not None}
    whole_class = "class_margin" in has_value
    whole = whole_class or any(matrix.forgotten for matrix in record.matrices)
    single = "members_left" in has_value or (record.never_trained is not None and bool(record.never_trained.attacks))
    if whole_class and record.kind != "class":
        yield f"kind: the record says '{record.kind}', its rows are of a whole class."
    elif whole and record.kind not in ("class", "concept"):
        yield f"kind: the record says '{record.kind}', its tables are of classes that are forgotten whole."
    elif single and record.kind in ("class", "concept"):
        yield f"kind: the record says '{record.kind}', its rows are of single records."


def _row_is_of(row: str, report: str) -> bool:
    """Whether an attack of that name makes the row."""
    return row == report or row.startswith(f"{report}_")


def _attack(name: str) -> Attack | None:
    """The attack that a report of that name is of, with its defaults; None for a user's own."""
    catalogued = built_in(name)
    if catalogued is None:
        return None
    try:
        attack: Attack = parse(catalogued, "attacks")
    except UnrecallError:  # it has parameters that must be given
        return None
    return attack


def _attacks(record: Record) -> Iterator[str]:
    """Every attack must have its rows, and be the attacker that its class declares."""
    rows = {m.name: m for m in record.measurements}
    names = [report.name for report in record.attacks]
    yield from (
        f"{name}: the record has two reports of it." for name in sorted({n for n in names if names.count(n) > 1})
    )
    for report in record.attacks:
        attack = _attack(report.name)
        if not any(_row_is_of(name, report.name) for name in rows):
            yield f"{report.name}: the record holds a report of this attack, but no row of it."
        if attack is None:
            continue
        row_name = f"{report.name}_{attack.judged}"
        if attack.judged and row_name not in rows and (row_name not in SINCE or record.verdict.rule in (RULE, *FORMER)):
            yield f"{row_name}: the record holds a report of this attack, but not this row."
        elif row_name in rows:
            yield from _read_otherwise(rows[row_name], attack, report.title)
        for ending, beside in BESIDE.items():
            first = rows.get(report.name + ending)
            if first is not None and first.unlearned.value is not None and report.name + beside not in rows:
                yield f"{report.name}{beside}: the record has {first.name}, but not this row beside it."
        if report.threat != attack.threat:
            yield f"{report.name}: its threat model is not the one that the attack declares."
        if not _titled(report.title, attack.title):
            yield f"{report.name}: its title is '{report.title}', the attack is called '{attack.title}'."


def _titled(title: str, own: str) -> bool:
    """Whether a title is an attack's own, with or without what was chosen in brackets."""
    return title == own or title.startswith(f"{own} (")


def _read_otherwise(m: Measurement, attack: Attack, title: str) -> Iterator[str]:
    """How the row of an attack is read, that a verdict may rest on; `title`: of the attack's report."""
    group = "privacy" if isinstance(attack, MembershipAttack) else "recovery"
    due = next((row for row in MEMORY if row.name == m.name), Row(m.name, m.title, group))
    for key in ("group", "ideal", "unit", "margin", "prior") if m.judged and isinstance(attack, ScoredAttack) else ():
        if getattr(m, key) != getattr(due, key):
            yield f"{m.name}: its {key} is {getattr(m, key)!r}, the code says {getattr(due, key)!r}."
    if m.title != due.title or (due not in MEMORY and not m.title.startswith(title)):
        yield f"{m.name}: its title is '{m.title}', its attack is called '{title}'."


def _references(record: Record) -> Iterator[str]:
    """Each row must have a value for each retrained model, and those must be models of their own."""
    digests = record.provenance.weights
    retrained = [role for role in digests if role.startswith("retrained")]
    yield from (
        f"weights: the record has none of the {r} model." for r in ("original", "unlearned") if r not in digests
    )
    for role in retrained:
        same = [other for other in digests if other != role and digests[other] == digests[role]]
        if same:
            yield f"weights of {role}: they are those of {same[0]}; a reference is a model of its own."
    for m in record.measurements:
        if m.name not in ROWS_WITHOUT_REFERENCES and len(m.references) not in (0, len(retrained)):
            yield f"{m.name}: {len(m.references)} references, but there are {len(retrained)} retrained models."
        if m.judged and m.unlearned.value is not None and len(m.references) != len(retrained):
            yield f"{m.name}: it is judged without its {len(retrained)} references."
        if m.unlearned.value is None and m.original.value is not None and m.reference is not None:
            yield f"{m.name}: every other model has a value, the unlearned one has none."


def _counts(record: Record) -> Iterator[str]:
    """Accuracies are of as many examples as there are, and where one counts examples its interval is exact."""
    for part, count in record.observed.items():
        if not 0 < count < record.sizes.get(part, 0):
            yield f"observed: expected fewer of {part} than there are ({record.sizes.get(part, 0)}), got {count}."
    for m in record.measurements:
        name, _, ending = m.name.rpartition("_")
        if ending != "accuracy" or name not in record.sizes:
            continue
        for estimate in _estimates(m):
            if estimate.value is None:
                continue
            if estimate.n != (due := record.observed.get(name, record.sizes[name])):
                yield f"{m.name}: of {estimate.n} examples, but {name} has {due}."
            if not 0 <= estimate.value <= 1:
                yield f"{m.name}: expected a share, got {estimate.value:g}."
        yield from _exact(m)


def _exact(m: Measurement) -> Iterator[str]:
    """Names the one value of a row that is no share of examples with its exact interval, where all others are.

    Others that are all 0 or 1 show nothing: a mean over tokens may be that too.
    """
    estimates = [e for e in _estimates(m) if e.value is not None and e.n > 0 and 0 <= e.value <= 1]
    others = [e for e in estimates if not _is_share(e)]
    if len(others) == 1 and len(estimates) > 2 and any(0 < (e.value or 0) < 1 for e in estimates if _is_share(e)):
        e = others[0]
        yield f"{m.name}: {e.value:g} ({e.low} to {e.high}) is no share of {e.n} examples with its interval."


def _is_share(e: Estimate) -> bool:
    hits = (e.value or 0.0) * e.n
    low, high = stats.clopper_pearson(round(hits), e.n)
    return abs(round(hits) - hits) < 1e-6 and _isclose(e.low, low) and _isclose(e.high, high)


def _estimates(m: Measurement) -> list[Estimate]:
    return [m.unlearned, m.original, m.null, *m.references]


def _isclose(first: float | None, second: float | None, tolerance: float = 1e-9) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)


def _sums(record: Record) -> Iterator[str]:
    """What follows from other parts of the record: the average gap, the costs, who paid."""
    rows = {m.name: m for m in record.measurements}
    figures = {name: rows[name] for name in NAMES if name in rows}
    reference = {name: row.reference for name, row in figures.items() if row.reference is not None}
    gap = rows.get("average_gap")
    for role in ROLES if gap and len(reference) == len(NAMES) else ():
        values = {name: getattr(row, role).value for name, row in figures.items()}
        written = getattr(gap, role).value
        defined = {name: value for name, value in values.items() if value is not None}
        if len(defined) == len(NAMES) and not _isclose(written, average_gap(defined, reference, NAMES)):
            yield f"average_gap: its value for {role} is not that of its four figures."
    unlearning, retraining = record.costs.get("unlearned"), record.costs.get("retrained")
    for name, key in (("cost_time", "seconds"), ("cost_passes", "passes")):
        row = rows.get(name)
        if row and row.unlearned.value is not None:
            whole = getattr(retraining, key, 0)
            if not unlearning or not whole or not _isclose(row.unlearned.value, getattr(unlearning, key) / whole):
                yield f"{name}: it does not follow from the costs."
    for role, cost in record.costs.items():
        if cost.phases and sum(cost.phases) != cost.steps:
            yield f"costs of {role}: {cost.steps} steps, but those of its phases are {sum(cost.phases)}."
    memory = rows.get("cost_memory")
    if memory and unlearning and not _isclose(memory.unlearned.value, unlearning.peak_mib):
        yield "cost_memory: it does not follow from the costs."
    for matrix in record.matrices:
        tables = [[v for v in row if v is not None] for values in matrix.values.values() for row in values]
        if any(min(row) < -1e-9 or abs(sum(row) - 1) > 1e-4 for row in tables if row):
            yield f"{matrix.name}: the predictions of a class are no shares of one whole."
        for role, paid in matrix.paid.items():
            before, after = (_kept_share(matrix.values.get(r, [])) for r in ("original", role))
            fell = [None if p is None else b - a for b, a, p in zip(before, after, paid, strict=False)]
            if not _same(fell, paid):
                yield f"{matrix.name}: what {role} paid does not follow from its predictions."


def _kept_share(values: Sequence[Sequence[float | None]]) -> list[float]:
    """The share of each class that is predicted as itself; nan where it has no examples."""
    diagonal = (row[i] if i < len(row) else None for i, row in enumerate(values))
    return [math.nan if share is None else share for share in diagonal]


def _identity(record: Record) -> Iterator[str]:
    """Seed and tuning must be those of the identity of the run."""
    identity = record.provenance.identity
    stated = {"seed": str(record.seed), "tuning": str(record.tuning is not None)}
    seeds = {f"{level} seed": str(seed) for level, seed in record.seeds.items()}
    for key, value in (stated | seeds).items():
        if key in identity and identity[key] != value:
            yield f"{key}: the record has {value}, the identity of its run has {identity[key]}."
    tuned = identity.get("tuned against", "")
    against = record.tuning.against if record.tuning else ""
    measure = ", measure='loss'" if record.tuning and record.tuning.measure == "loss" else ""
    expected = (
        f"Against(attack={against!r}, kl={record.tuning.most_kl!r}{measure}) " if record.tuning and against else ""
    )
    if identity and (bool(tuned) != bool(against) or not tuned.startswith(expected)):
        yield "tuned against: the record and the identity of its run name different attacks or budgets."
    if identity and (differing := sorted(seeds.keys() ^ {key for key in identity if key.endswith(" seed")})):
        yield f"{differing[0]}: the record and the identity of its run do not both have it."


def _method(record: Record) -> Iterator[str]:
    """A built-in method's title and parameters must be those that its line means; a user's own is never imported.

    Records of other code may lack parameters, and may have had other defaults for those that the line leaves out.
    """
    is_file = record.method_title == f"Checkpoint {record.method}" and not record.parameters
    if is_file and "unlearned" not in record.costs:
        return
    try:
        if not _is_built_in(record.method):
            return
        method, named = parse(record.method, "methods"), settings(record.method, "methods")
    except (UnrecallError, OSError):  # a checkpoint's name, or a method that reads a file which isn't here
        return
    if record.method_title != method.title:
        yield f"method_title: the record says '{record.method_title}', its method is called '{method.title}'."
    written, meant = _flat(record.parameters), _flat(without_folders(method.as_dict()))
    if meant and not written:
        yield "parameters: the record has none, its method has some."
    names, same_defaults = {key.rpartition(".")[2] for key in named}, _of_this_code(record)
    for key, value in written.items():
        last = key.rpartition(".")[2]
        if key not in meant and value is None:  # an older version's, that was set to nothing
            continue
        if key not in meant:
            yield f"parameters: they name {key}, which the method does not have."
        elif (last in names or same_defaults) and not _equal(value, meant[key]):
            yield f"parameters: the method's line says {last}={meant[key]}, they say {value}."
    for key in meant.keys() - written.keys() if written else ():
        if (last := key.rpartition(".")[2]) in names:
            yield f"parameters: the method's line says {last}={meant[key]}, they do not name it."


def _is_built_in(line: str) -> bool:
    """Whether a line names methods of the catalog alone, as the lines of records do."""
    spec = taken_apart(line)
    known = spec.name in {entry.name for entry in entries("methods")}
    return known and (spec.base is None or _is_built_in(spec.base))


def _of_this_code(record: Record) -> bool:
    """Whether the code that wrote a record is the one that checks it, by version and commit: defaults are the same."""
    made = record.provenance
    return made.versions.get("unrecall") == versions()["unrecall"] and made.commit == commit()


def _equal(first: Any, second: Any) -> bool:
    """Whether two parameters are the same, as far as twelve digits say."""
    if isinstance(first, float | int) and isinstance(second, float | int):
        return _isclose(float(first), float(second))
    return bool(first == second)


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Parameters by name, those of parameters as fit.lr."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat


def _curves(record: Record) -> Iterator[str]:
    """A line of a curve has as many values as places, and those of relearning are at the steps that it was set to."""
    for report in record.attacks:
        steps = report.parameters.get("steps") if isinstance(_attack(report.name), Relearn) else None
        places = {x for curve in report.curves for series in curve.series for x in series.x}
        if isinstance(steps, list) and not places <= {0, *steps}:
            yield f"{report.name}: it was set to {steps} steps, its curves are of {sorted(places)}."
        for curve in report.curves:
            for series in curve.series:
                lengths = {len(values) for values in (series.x, series.y, series.low, series.high) if values}
                if len(lengths) > 1:
                    yield f"{report.name}: {curve.name} of {series.role} has values of different lengths."
                bounds = zip(series.low, series.y, series.high, strict=False)
                if any(None not in b and not b[0] - 1e-9 <= b[1] <= b[2] + 1e-9 for b in bounds):  # type: ignore[operator]
                    yield f"{report.name}: {curve.name} of {series.role} lies outside its own interval."


def _figures(record: Record, folder: Path) -> Iterator[str]:
    """The rows and curves of a judged attack must be those that the scores beside the record come to."""
    rows = {m.name: m for m in record.measurements}
    for report in record.attacks:
        attack = _attack(report.name)
        if not isinstance(attack, ScoredAttack):
            continue
        judged_row = rows.get(f"{report.name}_{attack.judged}") if is_judged(attack, attack.judged) else None
        if report.name not in record.scores:
            if (
                record.scores
                and judged_row is not None
                and judged_row.judged
                and judged_row.unlearned.value is not None
            ):
                yield f"scores of {report.name}: it is judged, but the record names no scores of it."
            continue
        for place in places_of_scores(folder, report.name):
            try:
                yield from _differing(report, rows, _figures_of(attack, load_file(place), record.kind))
            except (SafetensorError, OSError, LookupError, ValueError, TypeError) as error:
                yield f"scores of {report.name}: expected those of both arms for every model, got: {error}."


def _figures_of(attack: ScoredAttack, arrays: Mapping[str, np.ndarray], kind: str) -> Figures:
    """What kept scores come to; nothing for an attack whose figures need more than its scores."""
    roles = sorted({name.rpartition("/")[0] for name in arrays if name.endswith("/budgets")})
    if isinstance(attack, ResidualKnowledge):
        return recognition.figures_of(_recognised(arrays, roles))
    if isinstance(attack, MembershipAttack):
        arms: tuple[Arm, ...] = ("forget", "holdout")
        shown = {role: {arm: arrays[f"{role}/{arm}"][0].astype(float) for arm in arms} for role in roles}
        return membership.figures_of(attack, shown, kind)
    if isinstance(attack, RecoveryAttack) and attack.reading == "recovery":
        traces = {role: _trace(arrays, role, attack) for role in roles}
        return recovery.figures_of(RecoveryTraces(attack, traces, {}))
    return Figures({}, [])


def _trace(arrays: Mapping[str, np.ndarray], role: str, attack: RecoveryAttack) -> Trace:
    """The attacker's best at each budget, as far as scores tell it; of losses and variants none are kept."""
    shown, budgets = arrays[f"{role}/forget"].astype(float), arrays[f"{role}/budgets"]
    positions = np.arange(shown.shape[1])
    scores = Scores(budgets, ("",) * len(budgets), (shown,), (np.full(len(budgets), np.nan),))
    return best(scores, ArmIndices(0, positions, positions), cumulative=attack.cumulative)


def _recognised(arrays: Mapping[str, np.ndarray], roles: Sequence[str]) -> dict[str, Recognition]:
    """The shares of noisy copies that each model recognises; only of those are scores kept."""
    shown = {role: arrays[f"{role}/forget"].astype(float) for role in roles}
    counts = {}
    for role, own in shown.items():
        beside = [other for name, other in shown.items() if name.startswith("retrained") and name != role]
        references = np.array(beside).reshape(-1, *own.shape)
        counts[role] = Recognition(tuple(arrays[f"{role}/budgets"].tolist()), 1, own, references)
    return counts


def _differing(report: AttackReport, written: Mapping[str, Measurement], figures: Figures) -> Iterator[str]:
    """Where rows and curves are not those that the scores come to, within the rounding of the scores."""
    for ending, estimates in figures.rows.items():
        row = written.get(f"{report.name}_{ending}" if ending else report.name)
        if row is None:
            continue
        references = {f"retrained {i}": estimate for i, estimate in enumerate(row.references)}
        for role, estimate in ({r: getattr(row, r) for r in ROLES} | references).items():
            due = estimates.get(role)
            if due is None and estimate.value is not None:
                yield f"{row.name}: the scores beside the record hold none of the {role} model."
            elif due is not None and not _alike(estimate, due):
                yield f"{row.name}: its value for {role} is not what the scores beside the record come to."
    for i, figure in enumerate(figures.curves):
        drawn = {series.role: series for curve in report.curves[i : i + 1] for series in curve.series}
        for due_series in figure.series:
            series = drawn.get(due_series.role)
            if series is None or not all(
                _same(getattr(series, k), getattr(due_series, k)) for k in ("x", "y", "low", "high")
            ):
                yield f"{report.name}: its curve of {due_series.role} is not what the scores beside the record come to."


def _alike(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates are the same but for the rounding of the scores, which can tie two of them."""
    return first.n == second.n and all(
        _isclose(getattr(first, k), getattr(second, k), 1e-3) for k in ("value", "low", "high")
    )


def _same(first: Sequence[float | None], second: Sequence[float | None]) -> bool:
    """Whether the values of two lines of a curve are within 0.001 of each other."""
    a, b = (np.array([math.nan if v is None else v for v in values], float) for values in (first, second))
    return len(a) == len(b) and bool(np.allclose(a, b, atol=1e-3, equal_nan=True))


def _unseen(record: Record) -> Iterator[str]:
    """What only a run could tell, beside what record/recheck.py names."""
    named = sorted(name for name in (report.name for report in record.attacks) if name not in record.scores)
    if named:
        yield f"the figures of {', '.join(named)}: no scores of theirs are kept"
    if names := sorted(own_judged(record)):
        listed = ", ".join(names)
        yield f"{listed}: only the code of these attacks, which are the user's own, says what is judged and how"
