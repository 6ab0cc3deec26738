"""Eight runs whose numbers must not change when code only moves.

    python tests/end_to_end/golden.py keep FOLDER            # runs all eight; PYTHONPATH decides by which code
    python tests/end_to_end/golden.py compare OLD NEW        # every number that differs; exit code 1 if any does

Numbers depend on the processor's last bits, so both folders must come from one machine under one setting.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "golden_cases.py"

DIGITS = "digits:train=500,epochs=12,references=3,forget="
OTHERS = (
    "rea_sample grad_norm attribution residual_knowledge:perturbation=fgsm,points=2,draws=8,batch_size=64 "
    "residual_knowledge:perturbation=pgd,points=2,draws=4,batch_size=64,pgd_steps=2 "
    "prototypical:metric=l2 relearn:share=0.1 relearn:data=benign linear_probe quantise uma remind cka:most=50"
)
RUNS: dict[str, tuple[str, ...]] = {
    "samples-tuned": (DIGITS + "share:0.2", "rurk", "standard", "--tune"),
    "samples": (DIGITS + "share:0.2", "scrub", "standard"),
    "half": (DIGITS + "half:3", "neggrad_plus", "standard"),
    "class": (DIGITS + "class:3", "spotter(salun)", "standard"),
    "class-others": (DIGITS + "class:3", "grad_ascent:lr=0.001,epochs=5", OTHERS),
    "llama": ("cases.py:llama", "npo:lr=1e-3", "standard"),
    "clip": ("cases.py:clip", "grad_diff:lr=1e-3", "standard"),
    "indirect": (
        DIGITS + "share:0.1",
        "grad_ascent:lr=0.001,epochs=10,batchnorm=frozen",
        "indirect:victim=3,answered_as=8,sizes=10+20,controls=2,retrain=1,victims=50",
    ),
}
"""Each a scenario, a method, a suite and further options."""


def keep(folder: Path) -> None:
    """Runs all eight below `folder`, by the unrecall that Python finds."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CASES, folder / "cases.py")
    code = str(Path(os.environ.get("PYTHONPATH", "src")).resolve())
    place = {
        **os.environ,
        "PYTHONPATH": code,
        "UNRECALL_CACHE": str(folder.resolve() / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    unrecall = [sys.executable, "-m", "unrecall"]
    shown = subprocess.run(
        [*unrecall, "run", "--help"], cwd=folder, env=place, capture_output=True, text=True, check=True
    )
    suite_option = "--suite" if "--suite" in shown.stdout else "--audit"
    for name, (scenario, method, suite, *more) in RUNS.items():
        named = ["--scenario", scenario, "--method", method, suite_option, suite, "--device", "cpu", "--out", name]
        shows = ["--show-examples"] if "--show-examples" in shown.stdout else []
        subprocess.run([*unrecall, "run", *named, *more, *shows], cwd=folder, env=place, check=True)


def numbers(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every number of a record, and every label that follows from numbers, by a path that says which it is."""
    for row in record["measurements"]:
        if row["name"] in ("cost_time", "cost_memory"):
            continue
        for role in ("unlearned", "original", "null"):
            yield f"{row['name']}/{role}", [row[role][key] for key in ("value", "low", "high", "n")]
        for i, one in enumerate(row["references"]):
            yield f"{row['name']}/retrained {i}", [one[key] for key in ("value", "low", "high", "n")]
        for key in ("reference", "leak", "margin", "judged", "verdict", "bound_low", "bound_high", "group"):
            yield f"{row['name']}/{key}", row[key]
    for attack in record["attacks"]:
        for key in ("positive_holds", "negative_holds"):
            yield f"{attack['name']}/{key}", attack[key]
        for curve in attack["curves"]:
            for line in curve["series"]:
                for axis in ("x", "y", "low", "high"):
                    yield f"{attack['name']}/{curve['name']}/{line['role']}/{axis}", line[axis]
    for matrix in record["matrices"]:
        for key in ("labels", "forgotten", "values", "paid", "gained"):
            yield f"{matrix['name']}/{key}", matrix[key]
    yield "readings", [[one["pieces"], one["written"]] for one in record["readings"]]
    yield "exhibits", [[one["content"], one["caption"]] for one in record["exhibits"]]
    yield "tuning", record["tuning"] and [record["tuning"]["chosen"], record["tuning"]["trials"]]
    yield "doubts", sorted(one["id"] for one in record["doubts"] if one["id"] != "modified")
    yield "verdict", [record["verdict"][key] for key in ("label", "counts", "alpha", "judged")]
    yield "fingerprint", record["provenance"]["fingerprint"]
    yield "weights", record["provenance"]["weights"]


def differences(old: Path, new: Path) -> Iterator[str]:
    """What is not the same to the last digit in two folders that `keep` filled."""
    for name in RUNS:
        before, after = (
            dict(numbers(json.loads((folder / name / "seed-0" / "record.json").read_text(encoding="utf-8"))))
            for folder in (old, new)
        )
        for path in sorted(before.keys() | after.keys()):
            if before.get(path) != after.get(path):
                yield f"{name}: {path}: {str(before.get(path))[:100]} -> {str(after.get(path))[:100]}"


def main(words: list[str]) -> int:
    """The command line of this file."""
    if words[:1] == ["keep"] and len(words) == 2:
        keep(Path(words[1]))
        return 0
    if words[:1] == ["compare"] and len(words) == 3:
        found = list(differences(Path(words[1]), Path(words[2])))
        print("\n".join(found) or "every number is the same")
        return bool(found)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
