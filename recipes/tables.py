"""Prints what `tables.sh` measured as Markdown: a row a measurement and a column a method, and the labels of all runs.

python recipes/tables.py OUT_FOLDER/CASE

Reads CASE/beside.csv, and the records in CASE/beside and CASE/alone, of what there is.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from unrecall.record.schema import Record, load

MEASUREMENTS = (
    *("forget_accuracy", "forget_rouge", "extraction_strength"),
    *("relearn_mean", "relearn_benign_mean", "quantise_mean", "quantise_nf4_mean", "prune_mean", "weight_noise_mean"),
    *("recalibration_mean", "few_shot_mean", "multi_turn_mean", "leak_at_k_mean", "prefix_mean", "interpolate"),
    *("loss_auc", "min_k_plus_plus_auc", "rmia_auc", "loss_left", "completeness"),
    *("retain_accuracy", "test_accuracy", "average_gap"),
)
"""Measurements in the table, in order; those that a case doesn't have are left out."""
LEVELS = ("sd_training", "sd_unlearning", "sd_evaluation")


def table(path: Path) -> Iterator[str]:
    """A row a measurement; in brackets what originals, unlearnings of one, and evaluations of one of these add."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by_name = {(row["measurement"], row["method"]): row for row in rows}
    yield "| measurement | original | retrained (sd) | " + " | ".join(map(short, methods)) + " |"
    yield "|---" * (3 + len(methods)) + "|"
    for name in MEASUREMENTS:
        of_each = [by_name.get((name, method)) for method in methods]
        first = next((row for row in of_each if row and row["unlearned"]), None)
        if first is None:
            continue
        cells = [cell(row["unlearned"], [row[level] for level in LEVELS]) if row else "" for row in of_each]
        retrained = cell(first["retrained"], [first["retrained_sd"]])
        yield f"| {title(first)} | {cell(first['original'])} | {retrained} | {' | '.join(cells)} |"


def title(row: dict[str, str]) -> str:
    """The measurement's title; in bold where the verdict rests on it."""
    return f"**{row['title']}**" if row["judged"] == "True" else row["title"]


def short(method: str) -> str:
    """A method's line without what it was tuned for."""
    return f"`{method.partition(' (tuned')[0]}`"


def cell(value: str, spreads: Sequence[str] = ()) -> str:
    """A value and, in brackets, its spreads, "-" for one that isn't known; nothing where there is no value."""
    if not value:
        return ""
    levels = ", ".join(f"{float(spread):.2f}" if spread else "-" for spread in spreads)
    return f"{float(value) + 0.0:.2f}".replace("-0.00", "0.00") + (f" ({levels})" if any(spreads) else "")


def labels(folder: Path) -> Iterator[str]:
    """A row a method: how often each label was given, and which measurements or attacks lay beyond their bounds."""
    records: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("*/*/record.json")):
        records.setdefault(path.parent.parent.name, []).append(load(path))
    yield "| method | labels | beyond the bounds |\n|---|---|---|"
    for method, of_method in records.items():
        given: Counter[str] = Counter(record.verdict.label for record in of_method)
        beyond = Counter(name for record in of_method for name in outside(record))
        yield f"| `{method}` | {counted(given)} | {counted(beyond)} |"


def outside(record: Record) -> Iterator[str]:
    """Judged measurements outside their bounds; without retrained models, attacks whose p is below the level."""
    if record.never_trained is not None:
        level = record.never_trained.level
        yield from (test.name for test in record.never_trained.attacks if test.p is not None and test.p <= level)
    else:
        yield from (m.title for m in record.measurements if m.judged and m.verdict in ("leaks", "over-forgets"))


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.most_common())


def main(case: str) -> None:
    """All tables of one case."""
    for basis in ("beside", "alone"):
        folder = Path(case) / basis
        if not any(folder.glob("*/*/record.json")):
            continue
        print(f"\n{basis}\n")
        if basis == "beside" and folder.with_suffix(".csv").exists():
            print(*table(folder.with_suffix(".csv")), "", sep="\n")
        print(*labels(folder), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
