"""Copies a run's records to results/, without examples, paths, points of ROC curves and scores, and writes papers.md.

python -m recipes.publish RUN_FOLDER NAME
"""

import re
import sys
from pathlib import Path

from recipes.papers import RECORDS, short, write_papers
from unrecall.disk.run_folder import records_in
from unrecall.record.schema import load

PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+)+/?")


def publish(folder: Path, name: str) -> None:
    for path in records_in([folder]):
        record = load(path)
        command = PATH.sub("PATH", record.provenance.command)
        provenance = record.provenance.model_copy(update={"command": command})
        attacks = [a.model_copy(update={"curves": [c for c in a.curves if c.name != "roc"]}) for a in record.attacks]
        cleaned = {"provenance": provenance, "attacks": attacks, "exhibits": [], "readings": [], "scores": {}}
        label = re.sub(r"[^\w=.-]+", "-", short(record.method)) + ("-tuned" if record.tuning else "")
        record.model_copy(update=cleaned).save(RECORDS / name / f"{label}-{record.seed}.json")


if __name__ == "__main__":
    publish(Path(sys.argv[1]), sys.argv[2])
    write_papers()
