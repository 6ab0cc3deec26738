"""Numbers as people read them: short, and with a dash or a word where there is none."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from unrecall.record.never_trained import ALPHA, LEAKS, STRANGE
from unrecall.record.never_trained_lines import BLIND, PLACEBO
from unrecall.record.never_trained_lines import p as digits_of_p

FORMS: Final = ((1e9, ".3g"), (1000, ",.0f"), (10, ".1f"), (0.001, ".3f"))
"""How a number is written, by its least size."""
RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""The digits of a power of ten."""
LEVELS: Final = (0.0, STRANGE, LEAKS, ALPHA, BLIND, PLACEBO, 1.0)
"""What no other p may be written as: the levels that are held against it, and both ends."""
MOST_DECIMALS: Final = 12


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing, NaN or infinite: those have no place on an axis."""
    return value if value is not None and math.isfinite(value) else None


def minus(after: float | None, before: float | None) -> float | None:
    """A difference, where both are known."""
    after, before = finite(after), finite(before)
    return None if after is None or before is None else after - before


def present(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [v for v in map(finite, values) if v is not None]


def number(value: float | None) -> str:
    """A number short enough to read: three digits that matter, no more than a measurement deserves."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "not a finite number"
    size = abs(value)
    form = next((form for least, form in FORMS if size >= least), ".1e" if size else ".3f")
    digits, _, power = format(value, ",.0f" if 2 <= size < 1000 and value == round(value) else form).partition("e")
    text = f"{digits} × 10{str(int(power)).translate(RAISED)}" if power else digits
    return text.replace("-", "−")


def exact(value: Any) -> str:
    """A hyper-parameter as its author would write it: 0.03, not 0.030."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def percent_of(part: float | None, whole: float | None) -> str:
    """A cost as a percentage of retraining's; a dash where either is unknown."""
    if part is None or whole is None or whole <= 0 or not math.isfinite(part / whole):
        return "–"
    return percent(part / whole)


def percent(part: float | None) -> str:
    """A share as a percentage, in whole points; with decimals, or in words, where these would say none or all of it.

    A dash where it can't be given.
    """
    if part is None:
        return "–"
    exact_percent = 100 * part
    for decimals in range(3):
        text = f"{exact_percent:.{decimals}f}"
        if float(text) not in (0, 100) or float(text) == exact_percent:
            return f"{text} %".replace("-", "−")
    nearest = float(text)
    if nearest == 0:
        return "less than 0.01 %" if part > 0 else "just below 0 %"
    return "more than 99.99 %" if part < 1 else "just above 100 %"


def p(value: float | None) -> str:
    """A p in a sentence, with as many digits as show on which side of a level it lies."""
    text = digits_of_p(value)
    if value is None:
        return text
    decimals = len(text.partition(".")[2])
    while float(text) in LEVELS and float(text) != value and decimals < MOST_DECIMALS:
        decimals += 1
        text = f"{value:.{decimals}f}"
    return text


def span(values: Sequence[float | None]) -> str:
    """One number, or the lowest and highest of several."""
    present = sorted(value for value in values if value is not None)
    texts = list(dict.fromkeys([number(present[0]), number(present[-1])])) if present else ["none"]
    return " to ".join(texts)
