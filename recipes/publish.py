"""Copies a run's records to benchmarks/records, without pictures, paths and ROC points, and writes papers.md from all.

python recipes/publish.py [RUN_FOLDER NAME]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from unrecall.folder import records_in
from unrecall.records import Record, load

HOME = Path(__file__).parent.parent
RECORDS = HOME / "benchmarks" / "records"
FIGURES = {
    "retain_accuracy": "retain",
    "forget_accuracy": "forget",
    "test_accuracy": "test",
    "mia_failure": "MIA",
    "average_gap": "gap",
}
PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+)+/?")


def publish(folder: Path, name: str) -> None:
    for path in records_in([folder]):
        record = load(path)
        command = PATH.sub("PATH", record.provenance.command)
        provenance = record.provenance.model_copy(update={"command": command})
        attacks = [a.model_copy(update={"curves": [c for c in a.curves if c.name != "roc"]}) for a in record.attacks]
        clean = record.model_copy(update={"exhibits": [], "provenance": provenance, "attacks": attacks})
        label = re.sub(r"[^\w=.-]+", "-", short(record.method)) + ("-tuned" if record.tuning else "")
        clean.save(RECORDS / name / f"{label}-{record.seed}.json")


def short(method: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found.group()):.3g}", method)


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def row(record: Record) -> str:
    cells = []
    for figure in FIGURES:
        found = record.measurement(figure)
        value = None if found is None else found.unlearned.value
        reported = record.reported.get(figure)
        cells.append(share(value) + (f" ({share(reported)})" if reported is not None else ""))
    knowledge, null = record.measurement("residual_knowledge"), record.measurement("forget_accuracy")
    r = "" if knowledge is None or knowledge.unlearned.value is None else f"{knowledge.unlearned.value:.2f}"
    at_zero = "" if null is None else share(null.null.value)
    back = record.measurement("recalibration_worst")
    again = "" if back is None else share(back.unlearned.value)
    time = record.measurement("relearn_time")
    epochs = (
        "" if time is None or time.unlearned.value is None else time.unlearned.note or f"{time.unlearned.value:.0f}"
    )
    tuned = f", tuned x {record.tuning.chosen:.3g}" if record.tuning else ""
    columns = [f"`{short(record.method)}`{tuned}", *cells, at_zero, again, r, epochs, record.verdict.label]
    return f"| {' | '.join(columns)} |"


def table(records: list[Record]) -> list[str]:
    first = records[0]
    lines = [
        "| method | "
        + " | ".join(FIGURES.values())
        + " | forget at lr 0 | forget, recalibrated | RK | re-learn | verdict |",
        "|---|" + "---|" * (len(FIGURES) + 5),
    ]
    for role in ("original", "retrained"):
        cells = []
        for figure in FIGURES:
            found = first.measurement(figure)
            value = None if found is None else found.reference if role == "retrained" else found.original.value
            cells.append(share(0.0 if figure == "average_gap" and role == "retrained" else value))
        lines.append(f"| *{role}* | {' | '.join(cells)} | | | | | |")
    return lines + [row(record) for record in records]


def write_papers() -> None:
    head = (HOME / "recipes" / "papers_head.md").read_text(encoding="utf-8")
    parts = [head.rstrip(), ""]
    for folder in sorted(p for p in RECORDS.iterdir() if p.is_dir()):
        records = sorted((load(path) for path in folder.glob("*.json")), key=lambda r: (r.tuning is not None, r.method))
        parts += [f"## {folder.name}", "", (folder / "README.md").read_text(encoding="utf-8").rstrip(), ""]
        parts += [*table(records), ""]
    (HOME / "papers.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        publish(Path(sys.argv[1]), sys.argv[2])
    write_papers()
