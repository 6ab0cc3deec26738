"""A table for a paper, in LaTeX: methods in rows, key measurements in columns, bold only where intervals separate."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from unrecall.report import numbers
from unrecall.report.numbers import present
from unrecall.report.table import ALL_P, AS_IT_IS, P_LEAK, P_STANDS_OUT, Line

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
Writer: TypeAlias = Callable[[float | None], str]
"""How a number is written."""


def as_latex(rows: Sequence[Line], names: Sequence[str]) -> str:
    """A table for each case, for the package booktabs: methods in rows, the measurements of these names in columns.

    The verdict stands last. Beside the methods stand what the original gives and what retrained models give, where
    there are any; an audit without them adds its p and the share left as the model is. A value over several seeds has
    its deviation, and says of how many seeds it is where others have none. It is bold where it is the nearest to
    retrained models' and its interval overlaps no other method's, all held beside the same retrained models and with
    intervals of one kind.
    """
    names = [*names, P_LEAK, P_STANDS_OUT, AS_IT_IS]
    by_case: dict[str, list[Line]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    tables = (_table(of_one, names, number) for number, of_one in enumerate(by_case.values(), 1))
    return MARK + "\n" + "\n".join(tables)


def _table(rows: Sequence[Line], names: Sequence[str], number: int) -> str:
    """The table of one case, with a caption and a label to be uncommented; columns without any value are left out."""
    columns = {name: column for name in names if (column := {r.method: r for r in rows if r.measurement == name})}
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
    known = present(value for value, _ in values)
    return next(iter(texts), "--") if len(texts) < 2 else f"{written(min(known))} to {written(max(known))}"


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
    return max(_number(value), numbers.p(value), key=len)


def _escaped(text: str) -> str:
    """A text in LaTeX."""
    return "".join(SPECIAL.get(letter, letter) for letter in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
