"""The numbers of records as a table for people who write papers: CSV, JSON, or LaTeX; needs no torch."""

import csv
import io
import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from unrecall.disk.files import check_writable, write_text
from unrecall.errors import BadInput
from unrecall.record import stats
from unrecall.record.schema import Measurement, Record
from unrecall.report import scales, sentences
from unrecall.report.page import judged_anew, key_measurements
from unrecall.report.strips import finite, present
from unrecall.report.summary import Audits, cases, methods

COLUMNS: Final = (
    "scenario", "method", "seeds", "without_value", "request", "measurement", "title", "unit", "judged", "leak",
    "original", "unlearned", "sd", "sd_training", "sd_unlearning", "sd_evaluation", "interval_over", "low", "high",
    "retrained", "retrained_sd", "retrained_models", "verdict", "case", "worst_verdict",
)  # fmt: skip
MARK: Final = "% Written by unrecall from records."
SPECIAL: Final = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""What LaTeX would take for a command."""
LONG_NUMBER: Final = re.compile(r"(?<![\w.])\d+\.\d{3,}(?:e[+-]?\d+)?(?![\w.])")
"""A number in a method's line that may have more digits than a table needs."""
SMALLEST: Final = 0.001
"""Below it three decimals say little of a number."""
P_LEAK: Final = "p_never_trained"
P_STANDS_OUT: Final = "p_stands_out"
AS_IT_IS: Final = "memory_left_as_it_is"
"""The names of both p over all attacks and of the share left, beside records never trained on."""
ONE_AUDIT: Final = "examples"
"""What an interval is over where one audit has a value."""
ALL_P: Final = "smallest and largest"
"""What stands in place of an interval where several audits have a p: their mean would be no p."""
Bounds: TypeAlias = tuple[float | None, float | None]
NONE: Final[Bounds] = (None, None)
Values: TypeAlias = Sequence[tuple[Record, float | None]]
"""A number of each audit."""
Writer: TypeAlias = Callable[[float | None], str]
"""How a number is written."""
FORMS: Final = (".csv", ".json", ".tex")
"""How the name of a table ends."""


class OverSeeds(NamedTuple):
    """A number of the unlearned models over seeds.

    `mean`: over what the interval is over, whose own seeds are averaged first. `sd`: over all; None for one seed.
    `sd_training` to `sd_evaluation`: what each level of seeds adds to it (`variance_components`), unless cells of the
    grid are missing. `low` and `high`: an interval at 95 %. Of one seed it is over examples; else it is Student's, of
    the mean over originals; where all share one, over its unlearnings; else over evaluations; `interval_over` says
    which. None where these are all the same: how far others would lie is then unknown.
    """

    mean: float | None
    sd: float | None
    sd_training: float | None
    sd_unlearning: float | None
    sd_evaluation: float | None
    interval_over: str
    low: float | None
    high: float | None


class Line(NamedTuple):
    """One measurement of one method on one scenario, over all its seeds.

    `seeds`: how many audits have a value; `without_value`: how many of them have none. `request`: the first digits of
    what tells it from others. `original`: a mean over seeds. `retrained`, `retrained_sd`: over the retrained models.
    `verdict`: of the row, at each seed. `case`: what methods are compared on. `worst`: the audits' worst verdict.
    """

    scenario: str
    method: str
    seeds: int
    without_value: int
    request: str
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
    case: str = ""
    worst: str = ""

    @property
    def cells(self) -> dict[str, Any]:
        """The values by column."""
        place = self._fields.index("unlearned")
        return dict(zip(COLUMNS, (*self[:place], *self.unlearned, *self[place + 1 :]), strict=True))


def lines(records: Sequence[Record]) -> list[Line]:
    """All measurements of all methods, in the order of the records; verdicts are derived anew."""
    groups = methods(list(map(judged_anew, records)))
    names = {group.alike: case for case, members in cases(groups).items() for group in members}
    return [
        line._replace(case=names[group.alike], worst=group.label)
        for group in groups
        for line in (*(_line(group, name) for name in _names(group)), *_beside_others(group))
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
    starts = {".csv": (",".join(COLUMNS[:3]),), ".json": ('[\n {\n  "scenario"', "[]"), ".tex": (MARK,)}
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
    """A table for each case, for the package booktabs: methods in rows, key measurements and the verdict in columns.

    Beside the methods stand what the original gives and what retrained models give, where there are any; an audit
    without them adds its p and the share left as the model is. A value over several seeds has its deviation, and says
    of how many seeds it is where others have none. It is bold where it is the nearest to retrained models' and its
    interval overlaps no other method's, all held beside the same retrained models and with intervals of one kind.
    """
    names = [name for name, _ in key_measurements(records)]
    names += [P_LEAK, P_STANDS_OUT, AS_IT_IS]
    by_case: dict[str, list[Line]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    tables = (_table(of_one, names, number) for number, of_one in enumerate(by_case.values(), 1))
    return MARK + "\n" + "\n".join(tables)


def _names(group: Audits) -> list[str]:
    return list(dict.fromkeys(m.name for record in group.records for m in record.measurements))


def _line(group: Audits, name: str) -> Line:
    audits = [(record, m) for record in group.records if (m := record.measurement(name)) is not None]
    own = [m for _, m in audits]
    first, references = own[0], _references(audits)
    estimates = [m.unlearned for m in own if finite(m.unlearned.value) is not None]
    bounds = (estimates[0].low, estimates[0].high) if estimates else NONE
    unlearned = _over_seeds([(record, m.unlearned.value) for record, m in audits], bounds)
    low, high = scales.clipped(first, unlearned.low, unlearned.high) or NONE
    return Line(
        *(group.scenario, group.name, len(estimates), len(group.records) - len(estimates), _request(group)),
        *(name, first.title, first.unit, any(m.judged and m.verdict != "not judged" for m in own), first.leak or ""),
        _mean(present(m.original.value for m in own)),
        unlearned._replace(low=low, high=high),
        _mean(references),
        _deviation(references),
        len(references),
        "; ".join(dict.fromkeys(m.verdict for m in own)),
    )


def _request(group: Audits) -> str:
    """What tells the group's request from others, shortened."""
    return group.alike.request[:12]


def _beside_others(group: Audits) -> Iterator[Line]:
    """What was measured beside records never trained on: both p over all attacks, then the share left by each.

    A share whose interval can't be given is none: the original shows too little.
    """
    audits = [(record, of) for record in group.records if (of := record.never_trained) is not None and of.attacks]
    if not audits:
        return
    labels = "; ".join(dict.fromkeys(of.label for _, of in audits))
    head, tail = (group.scenario, group.name, 0, 0, _request(group)), (None, None, 0, labels)

    def line(name: str, title: str, count: int, unlearned: OverSeeds) -> Line:
        row = Line(*head, name, title, "share", True, "below", None, unlearned, *tail)
        return row._replace(seeds=count, without_value=len(group.records) - count)

    leaks, strange = (present(getattr(of, name) for _, of in audits) for name in ("leak", "strange"))
    leaking = line(P_LEAK, "p beside records never trained on", len(leaks), _of_p(leaks))
    originals = {of.original for _, of in audits}
    yield leaking._replace(original=originals.pop() if len(originals) == 1 else None)
    yield line(P_STANDS_OUT, "p of standing out from records never trained on", len(strange), _of_p(strange))
    titles = {attack.name: attack.title for _, of in audits for attack in of.attacks}
    for name, title in titles.items():
        attacks = [(record, attack) for record, of in audits for attack in of.attacks if attack.name == name]
        own = [(record, a) for record, a in attacks if finite(a.rho) is not None and a.rho_low is not None]
        bounds = (own[0][1].rho_low, own[0][1].rho_high) if own else NONE
        left = _over_seeds([(record, attack.rho) for record, attack in own], bounds)
        row = line(f"memory_left_{name}", f"Share of the original's memory left: {title}", len(own), left)
        counted = any(attack.p is not None for _, attack in attacks)
        yield row._replace(leak="above", judged=counted, original=1.0 if own else None)


def _of_p(values: Sequence[float]) -> OverSeeds:
    """The p of one audit, or the smallest and the largest of several."""
    if len(values) < 2:
        return OverSeeds(_mean(values), None, None, None, None, "", None, None)
    return OverSeeds(None, None, None, None, None, ALL_P, min(values), max(values))


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


def _over_seeds(values: Values, bounds: Bounds) -> OverSeeds:
    """What a number is over the seeds of its audits. `bounds`: its interval over examples, for where it is one's."""
    numbers = [(record, value) for record, value in values if finite(value) is not None and value is not None]
    by_original: dict[str, dict[int, list[float]]] = {}
    for record, number in numbers:
        unlearnings = by_original.setdefault(_original(record), {})
        unlearnings.setdefault(record.seeds.get("unlearning", record.seed), []).append(number)
    grid = [list(unlearnings.values()) for unlearnings in by_original.values()]
    own = [number for _, number in numbers]
    levels = {
        "originals": [statistics.fmean(chain(*unlearnings)) for unlearnings in grid],
        "unlearnings": [statistics.fmean(evaluations) for evaluations in chain(*grid[:1])],
        "evaluations": own,
    }
    over, units = next((level for level in levels.items() if len(level[1]) > 1), (ONE_AUDIT, own))
    if over != ONE_AUDIT:
        bounds = stats.student(np.array(units)) if len(set(units)) > 1 else NONE
    low, high = map(finite, bounds)
    whole = len({(len(unlearnings), len(each)) for unlearnings in grid for each in unlearnings}) == 1
    components = stats.variance_components(np.array(grid)) if whole else stats.Components(None, None, None)
    over = "" if low is None and high is None else over
    return OverSeeds(_mean(units), _deviation(own), *components, over, low, high)


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


def _table(rows: Sequence[Line], names: Sequence[str], number: int) -> str:
    """The table of one case, with a caption and a label to be uncommented; columns without any value are left out."""
    columns = {name: found for name in names if (found := {r.method: r for r in rows if r.measurement == name})}
    worst = {row.method: row.worst for row in rows}
    written = [
        [
            _escaped(next(iter(column.values())).title),
            _shared([(row.original, None) for row in column.values()], _writer(name)),
            _shared([(row.retrained, row.retrained_sd) for row in column.values()], _writer(name)),
            *(_cell(column, method) for method in worst),
        ]
        for name, column in columns.items()
    ]
    first = ["method", "original", "retrained", *map(_escaped, _short(list(worst)))]
    valued = [column for column in written if set(column[1:]) != {"--"}]
    verdicts = ["verdict", "", "", *map(_escaped, worst.values())]
    head, original, retrained, *cells = zip(first, *valued, verdicts, strict=True)
    beside = [row for row in (original, retrained) if set(row[1:-1]) != {"--"}]
    parts = ["\n".join(" & ".join(row) + r" \\" for row in part) for part in ([head], beside, cells)]
    case = rows[0].case + (f" (request {rows[0].request})" if rows[0].request else "")
    return (
        f"% {_one_line(case)}\n% \\caption{{{_escaped(rows[0].case)}}}\n% \\label{{tab:unrecall-{number}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(valued)}l}}\n\\toprule\n"
        + "\n\\midrule\n".join(filter(None, parts))
        + "\n\\bottomrule\n\\end{tabular}\n"
    )


def _short(names: Sequence[str]) -> list[str]:
    """Methods' names, their numbers with three digits that count; as they are where two would be the same."""
    short = [LONG_NUMBER.sub(lambda number: f"{float(number[0]):.3g}", name) for name in names]
    return [brief if short.count(brief) == 1 else name for brief, name in zip(short, names, strict=True)]


def _shared(values: Sequence[tuple[float | None, float | None]], written: Writer) -> str:
    """What all methods of a column are held beside, a value and its deviation; where these differ, from which to which.

    Methods with other seeds have other originals.
    """
    texts = dict.fromkeys(_with_deviation(*value, written) for value in values if value[0] is not None)
    numbers = present(value for value, _ in values)
    return next(iter(texts), "--") if len(texts) < 2 else f"{written(min(numbers))} to {written(max(numbers))}"


def _cell(column: Mapping[str, Line], method: str) -> str:
    row = column.get(method)
    if row is None:
        return "--"
    own, written = row.unlearned, _writer(row.measurement)
    text = _with_deviation(own.mean, own.sd, written)
    if own.interval_over == ALL_P:
        text = f"{written(own.low)} to {written(own.high)}"
    if row.seeds and row.without_value:
        text += f" ({row.seeds} of {row.seeds + row.without_value} seeds)"
    return f"\\textbf{{{text}}}" if _stands_out(row, [column[other] for other in column if other != method]) else text


def _stands_out(row: Line, others: Sequence[Line]) -> bool:
    """Whether a value is nearer to retrained models' than all others', and its interval apart from theirs.

    Not where another is held beside other retrained models, or its interval is of another kind.
    """
    own = row.unlearned
    if own.mean is None or row.retrained is None or own.low is None or own.high is None or not others:
        return False
    for line in others:
        other = line.unlearned
        if other.mean is None or other.low is None or other.high is None or _held_beside(line) != _held_beside(row):
            return False
        nearer = abs(own.mean - row.retrained) < abs(other.mean - row.retrained)
        if not nearer or not (other.high < own.low or other.low > own.high):
            return False
    return True


def _held_beside(line: Line) -> tuple[object, ...]:
    """What two rows must share to be compared."""
    return line.retrained, line.retrained_sd, line.retrained_models, line.unlearned.interval_over


def _with_deviation(value: float | None, deviation: float | None, written: Writer) -> str:
    if value is None or deviation is None:
        return written(value)
    return f"{written(value)} $\\pm$ {written(deviation)}".replace("$ $", " ")


def _writer(name: str) -> Writer:
    return _p if name in (P_LEAK, P_STANDS_OUT) else _number


def _number(value: float | None) -> str:
    """A number with three decimals, or two digits that count where these would be none of them."""
    if value is None:
        return "--"
    if value == 0 or not abs(value) < SMALLEST:
        return f"{value:.3f}"
    digits, power = f"{value:.1e}".split("e")
    return f"${digits} \\times 10^{{{int(power)}}}$"


def _p(value: float | None) -> str:
    """A p with three decimals, or more where these would put it on a level that it doesn't have."""
    if value is None or value < SMALLEST:
        return _number(value)
    return max(_number(value), sentences.p(value), key=len)


def _escaped(text: str) -> str:
    """A text in LaTeX."""
    return "".join(SPECIAL.get(letter, letter) for letter in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
