"""The numbers of records as a table for people who write papers: CSV, JSON, or LaTeX; needs no torch."""

import csv
import io
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from unrecall.disk.files import check_writable, write_text
from unrecall.errors import BadInput
from unrecall.record import stats
from unrecall.record.judgement import judged
from unrecall.record.schema import Measurement, Record
from unrecall.report.page import key_measurements
from unrecall.report.strips import finite, present
from unrecall.report.summary import Audits, methods

COLUMNS: Final = (
    "scenario", "method", "seeds", "measurement", "title", "unit", "judged", "leak",
    "original", "unlearned", "sd", "sd_training", "sd_unlearning", "sd_evaluation", "low", "high",
    "retrained", "retrained_sd", "retrained_models", "verdict",
)  # fmt: skip
MARK: Final = "% Written by unrecall from records."
SPECIAL: Final = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""What LaTeX would take for a command."""
SMALLEST: Final = 0.001
"""Below it three decimals say little of a number."""
P_LEAK: Final = "p_never_trained"
AS_IT_IS: Final = "memory_left_as_it_is"
"""The names of the p over all attacks and of the share left, beside records never trained on."""
Bounds: TypeAlias = tuple[float | None, float | None]
NONE: Final[Bounds] = (None, None)
Values: TypeAlias = Sequence[tuple[Record, float | None]]
"""A number of each audit."""
FORMS: Final = (".csv", ".json", ".tex")
"""How the name of a table ends."""


class OverSeeds(NamedTuple):
    """A number of the unlearned models over seeds.

    `mean`: over what the interval is over, whose own seeds are averaged first. `sd`: over all; None for one seed.
    `sd_training` to `sd_evaluation`: what each level of seeds adds to it (`variance_components`), unless cells of the
    grid are missing. `low` and `high`: an interval at 95 %. Of one seed it is over examples; else it is Student's, of
    the mean over originals; where all share one, over its unlearnings; else over evaluations. None where these are all
    the same: how far others would lie is then unknown.
    """

    mean: float | None
    sd: float | None
    sd_training: float | None
    sd_unlearning: float | None
    sd_evaluation: float | None
    low: float | None
    high: float | None


class Line(NamedTuple):
    """One measurement of one method on one scenario, over all its seeds.

    `original`: a mean over seeds. `retrained`, `retrained_sd`: over the retrained models. `verdict`: of the row, at
    each seed.
    """

    scenario: str
    method: str
    seeds: int
    measurement: str
    title: str
    unit: str
    judged: bool
    leak: str
    original: float | None
    unlearned: OverSeeds
    retrained: float | None
    retrained_sd: float | None
    retrained_models: int
    verdict: str

    @property
    def cells(self) -> dict[str, Any]:
        """The values by column."""
        place = self._fields.index("unlearned")
        return dict(zip(COLUMNS, (*self[:place], *self.unlearned, *self[place + 1 :]), strict=True))


def lines(records: Sequence[Record]) -> list[Line]:
    """All measurements of all methods, in the order of the records; verdicts are derived anew."""
    groups = methods([judged(record) for record in records])
    return [
        line for group in groups for line in (*(_line(group, name) for name in _names(group)), *_beside_others(group))
    ]


def write(records: Sequence[Record], path: Path) -> None:
    """Writes the table of records in the form that the file's name ends in: .csv, .json or .tex.

    BadInput where there is no record, the form is another, or something else than such a table is at `path`.
    """
    if not records:
        raise BadInput("report: expected at least one record, got none. Name a record or a folder that holds one.")
    check(path)
    rows = lines(records)
    write_text(path, {".csv": as_csv, ".json": as_json, ".tex": as_latex}[path.suffix](rows, records))


def check(path: Path) -> None:
    """BadInput where a file's name ends in no form of a table, or another file is there already."""
    if path.suffix not in FORMS:
        raise BadInput(f"{path}: expected a name that ends in {', '.join(FORMS)}, got '{path.suffix}'. Name it so.")
    check_writable(path)
    starts = {".csv": (",".join(COLUMNS),), ".json": ('[\n {\n  "scenario"', "[]"), ".tex": (MARK,)}
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(starts[path.suffix]):
        raise BadInput(f"{path}: expected a table of unrecall's, or nothing, got another file. Choose another name.")


def as_csv(rows: Sequence[Line], _: Sequence[Record]) -> str:
    """A line for each measurement, with a head; empty cells have no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_safe(value) for value in row.cells.values()] for row in rows)
    return text.getvalue()


def as_json(rows: Sequence[Line], _: Sequence[Record]) -> str:
    """A list of objects with the columns as keys; null has no value."""
    return json.dumps([row.cells for row in rows], indent=1, ensure_ascii=False) + "\n"


def as_latex(rows: Sequence[Line], records: Sequence[Record]) -> str:
    """A table for each scenario, for the package booktabs: methods in rows, the key measurements in columns.

    Beside the methods stand what the original gives and what retrained models give, where there are any; an audit
    without them adds its p and the share left as the model is. A value over several seeds has its deviation; it is bold
    where it is the nearest to retrained models' and its interval overlaps no other method's.
    """
    names = [*(name for name, _ in key_measurements([judged(record) for record in records])), P_LEAK, AS_IT_IS]
    return (
        MARK + "\n" + "\n".join(_table(scenario, rows, names) for scenario in dict.fromkeys(r.scenario for r in rows))
    )


def _names(group: Audits) -> list[str]:
    return list(dict.fromkeys(m.name for record in group.records for m in record.measurements))


def _line(group: Audits, name: str) -> Line:
    audits = [(record, m) for record in group.records if (m := record.measurement(name)) is not None]
    own = [m for _, m in audits]
    first, references = own[0], _references(audits)
    values = [(record, m.unlearned.value) for record, m in audits]
    estimates = [m.unlearned for m in own if finite(m.unlearned.value) is not None]
    bounds = (estimates[0].low, estimates[0].high) if len(estimates) == 1 else None
    return Line(
        group.scenario,
        group.name,
        len(own),
        name,
        first.title,
        first.unit,
        any(m.judged for m in own),
        first.leak or "",
        _mean(present(m.original.value for m in own)),
        _over_seeds(values, bounds),
        _mean(references),
        _deviation(references),
        len(references),
        "; ".join(dict.fromkeys(m.verdict for m in own)),
    )


def _beside_others(group: Audits) -> Iterator[Line]:
    """What was measured beside records never trained on: p over all attacks, then the share left by each."""
    audits = [(record, of) for record in group.records if (of := record.never_trained) is not None and of.attacks]
    if not audits:
        return
    labels = "; ".join(dict.fromkeys(of.label for _, of in audits))

    def line(name: str, title: str, leak: str, values: Values, bounds: Bounds | None, original: float | None) -> Line:
        head = (group.scenario, group.name, len(values), name, title, "share", True, leak, original)
        return Line(*head, _over_seeds(values, bounds), None, None, 0, labels)

    ps = [(record, of.leak) for record, of in audits if of.leak is not None]
    original = _mean(present(of.original for _, of in audits))
    yield line(P_LEAK, "p beside records never trained on", "below", ps, NONE, original)
    titles = {attack.name: attack.title for _, of in audits for attack in of.attacks}
    for name, title in titles.items():
        attacks = [(record, attack) for record, of in audits for attack in of.attacks if attack.name == name]
        own = [(record, attack) for record, attack in attacks if finite(attack.rho) is not None]
        bounds = (own[0][1].rho_low, own[0][1].rho_high) if len(own) == 1 else None
        words = f"Share of the original's memory left: {title}"
        shares = [(record, attack.rho) for record, attack in own]
        yield line(f"memory_left_{name}", words, "above", shares, bounds, 1.0 if own else None)


def _references(audits: Sequence[tuple[Record, Measurement]]) -> list[float]:
    """The value of each retrained model, the mean over its evaluations.

    A model is known by its weights; where a record has none, by its place and by the values of all beside it.
    """
    by_model: dict[str, list[float]] = {}
    for record, m in audits:
        values = [finite(e.value) for e in m.references]
        for i, value in enumerate(values):
            weights = record.provenance.weights.get(f"retrained {i}", "")
            key = weights or f"{i} of {values}"
            if value is not None and (weights or key not in by_model):
                by_model.setdefault(key, []).append(value)
    return [statistics.fmean(values) for values in by_model.values()]


def _over_seeds(values: Values, bounds: Bounds | None) -> OverSeeds:
    """What a number is over the seeds of its audits. `bounds`: its interval where it isn't Student's over seeds."""
    numbers = [(record, value) for record, value in values if finite(value) is not None and value is not None]
    by_original: dict[str, dict[int, list[float]]] = {}
    for record, number in numbers:
        unlearnings = by_original.setdefault(_original(record), {})
        unlearnings.setdefault(record.seeds.get("unlearning", record.seed), []).append(number)
    grid = [list(unlearnings.values()) for unlearnings in by_original.values()]
    own = [number for _, number in numbers]
    means = [[statistics.fmean(chain(*unlearnings)) for unlearnings in grid]]
    means += [[statistics.fmean(evaluations) for evaluations in unlearnings] for unlearnings in grid]
    units = next((level for level in means if len(level) > 1), own)
    if bounds is None:
        bounds = stats.student(np.array(units)) if len(set(units)) > 1 else NONE
    whole = len({(len(unlearnings), len(each)) for unlearnings in grid for each in unlearnings}) == 1
    components = stats.variance_components(np.array(grid)) if whole else stats.Components(None, None, None)
    return OverSeeds(_mean(units), _deviation(own), *components, *map(finite, bounds))


def _original(record: Record) -> str:
    """Which training the original comes from: one that was given is the same whatever the seed."""
    seed = record.seeds.get("training", record.seed)
    return record.provenance.weights.get("original", str(seed))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, whatever stands before it that can't be seen."""
    if not isinstance(value, str):
        return value
    seen = "".join(letter for letter in value if letter.isprintable()).lstrip()
    return f"'{value}" if seen.startswith(("=", "+", "-", "@")) else value


def _table(scenario: str, rows: Sequence[Line], names: Sequence[str]) -> str:
    """One scenario's table; measurements that it lacks are left out."""
    own = {(row.method, row.measurement): row for row in rows if row.scenario == scenario}
    names = [name for name in names if any(measurement == name for _, measurement in own)]
    by_method = list(dict.fromkeys(method for method, _ in own))
    titles = [next(row.title for (_, measurement), row in own.items() if measurement == name) for name in names]
    head = " & ".join(["method", *map(_escaped, titles)])
    first = {name: next(row for (_, measurement), row in own.items() if measurement == name) for name in names}
    beside = [
        ["original", *(_number(first[name].original) for name in names)],
        ["retrained", *(_with_deviation(first[name].retrained, first[name].retrained_sd) for name in names)],
    ]
    beside = [row for row in beside if set(row[1:]) != {"--"}]
    cells = [[_escaped(method), *(_cell(own, method, name) for name in names)] for method in by_method]
    body = "\n".join(" & ".join(row) + r" \\" for row in beside) + "\n\\midrule\n"
    body += "\n".join(" & ".join(row) + r" \\" for row in cells)
    return (
        f"% {_one_line(scenario)}\n\\begin{{tabular}}{{l{'r' * len(names)}}}\n\\toprule\n{head} \\\\\n\\midrule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _cell(own: Mapping[tuple[str, str], Line], method: str, name: str) -> str:
    row = own.get((method, name))
    if row is None:
        return "--"
    others = [other for (m, n), other in own.items() if n == name and m != method]
    text = _with_deviation(row.unlearned.mean, row.unlearned.sd)
    return f"\\textbf{{{text}}}" if _stands_out(row, others) else text


def _stands_out(row: Line, others: Sequence[Line]) -> bool:
    """Whether a value is nearer to retrained models' than all others', and its interval apart from theirs."""
    own = row.unlearned
    if own.mean is None or row.retrained is None or own.low is None or own.high is None or not others:
        return False
    for other in (line.unlearned for line in others):
        if other.mean is None or other.low is None or other.high is None:
            return False
        nearer = abs(own.mean - row.retrained) < abs(other.mean - row.retrained)
        if not nearer or not (other.high < own.low or other.low > own.high):
            return False
    return True


def _with_deviation(value: float | None, deviation: float | None) -> str:
    if value is None or deviation is None:
        return _number(value)
    return f"{_number(value)} $\\pm$ {_number(deviation)}"


def _number(value: float | None) -> str:
    """A number with three decimals, or two digits that count where these would be none of them."""
    if value is None:
        return "--"
    if value == 0 or not abs(value) < SMALLEST:
        return f"{value:.3f}"
    digits, power = f"{value:.1e}".split("e")
    return f"${digits} \\times 10^{{{int(power)}}}$"


def _escaped(text: str) -> str:
    """A text in LaTeX."""
    return "".join(SPECIAL.get(letter, letter) for letter in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
