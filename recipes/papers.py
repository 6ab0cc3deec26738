"""Writes papers.md: the papers behind each file, from the source, and what was measured, from the records in results/.

python recipes/papers.py
"""

import json
import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from unrecall.record.judgement import rejudge
from unrecall.record.schema import Measurement, Record, load
from unrecall.spec.catalog import CATALOGS, Entry, Kind, entries

HOME = Path(__file__).parent.parent
RECORDS = HOME / "results"
HEAD = """# Papers: where they live, how to run them, what they report, what is measured here

Written by `python recipes/papers.py`: the first table from the `Reference:` lines of the source, the others from the
records in `results/`. Nothing here is typed by hand but the note that opens each section (its folder's `README.md`).
"""
COMMANDS = {
    "methods": "`--method {}`",
    "attacks": "`--suite {}`",
    "metrics": "every audit",
    "scenarios": "`--scenario {}`",
}
FIGURES = {
    "retain_accuracy": "retain",
    "forget_accuracy": "forget",
    "test_accuracy": "test",
    "mia_failure": "MIA",
    "average_gap": "gap",
}


UNLISTED = {
    "training/objectives/nib.py": "`--scenario digits:objective=nib`",
    "training/objectives/ule.py": "`--scenario digits:objective=ule`",
    "models/recommenders.py": "`--scenario movielens:model=lightgcn`, `sasrec`, `gru`",
    "scenarios/corruptions.py": "`--scenario small-cifar5:corruption=blur:3`",
}
"""Files that no list names, and the command that runs them."""


def references() -> list[str]:
    """One row a file and paper, in the order of arXiv numbers, which is about that of time."""
    rows = {row for kind in CATALOGS for entry in entries(kind) for row in reference(kind, entry)}
    rows |= {row for path, command in UNLISTED.items() for row in cited(path, command)}
    lines = [f"| {paper} | `{file}` | {command} |" for _, paper, file, command in sorted(rows)]
    return ["| paper | file | command |", "|---|---|---|", *lines]


def reference(kind: Kind, entry: Entry) -> Iterator[tuple[str, str, str, str]]:
    """A file's paper with its arXiv number before it; how the file differs from it is said there."""
    paper = re.match(r".*?arXiv (\d{4}\.\d{5})", entry.reference)
    if paper is not None:
        stem = entry.owner if kind == "metrics" else entry.name.replace("-", "_")
        yield paper[1], paper[0], f"{kind}/{stem}.py", COMMANDS[kind].format(entry.name)


def cited(file: str, command: str) -> Iterator[tuple[str, str, str, str]]:
    """The papers with an arXiv number that a file's `Reference:` lines begin with."""
    text = " ".join((HOME / "src" / "unrecall" / file).read_text(encoding="utf-8").split())
    for paper in re.finditer(r'Reference: ((?:(?!"""|Differs).)*?arXiv (\d{4}\.\d{5}))', text):
        yield paper[2], paper[1], file, command


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


TEXT_FIGURES = {
    "retain_accuracy": "retain",
    "forget_accuracy": "forget",
    "forget_rouge": "ROUGE-L",
    "forget_quality": "log10 forget quality",
    "retain_rouge": "ROUGE-L, retain",
    "model_utility": "utility",
    "relearn_0.1_worst": "relearned, 10 %",
    "relearn_worst": "relearned, 30 %",
    "relearn_benign_alpaca_en_demo_worst": "relearned, benign",
    "quantise_worst": "4 or 8 bits",
    "attribution": "of the change, hides",
    "loss_auc": "loss AUC",
}
"""What stands in the table of a language scenario: one row a method, mean and standard deviation over seeds."""


PAIR_FIGURES = {
    "retain_accuracy": "retain",
    "test_zero_shot": "zero-shot, test",
    "forget_accuracy": "forget",
    "forget_zero_shot": "zero-shot, forget",
    "forget_retrieval_first": "retrieval, forget",
    "neighbours_retrieval_first": "retrieval, neighbours",
    "rest_retrieval_first": "retrieval, the rest",
    "attack_success": "attack success",
    "relearn_mean": "relearned",
    "cka": "CKA with the original",
    "loss_auc": "loss AUC",
}
"""What stands in the table of an image-text scenario."""


def mean_table(records: list[Record], figures: dict[str, str]) -> list[str]:
    """Original, retrained and a row a method: mean over seeds of what any record has."""
    known = {key: title for key, title in figures.items() if any(measured(record, key) for record in records)}
    methods = list(dict.fromkeys(record.method for record in records))
    lines = ["| method | seeds | " + " | ".join(known.values()) + " |", "|---|---|" + "---|" * len(known)]
    there = any(m.references for record in records for m in record.measurements)
    for role in ("original", "retrained") if there else ("original",):
        seeds = {record.seed: record for record in records}
        lines.append(mean_row(f"*{role}*", list(seeds.values()), role, known))
    for method in methods:
        own = [record for record in records if record.method == method]
        lines.append(mean_row(f"`{short(method)}`{noted(own)}", own, "unlearned", known))
    return lines


def noted(records: list[Record]) -> str:
    """What the method noted of its steps, the mean over seeds."""
    found = [record.costs["unlearned"].notes for record in records if "unlearned" in record.costs]
    names = dict.fromkeys(name for notes in found for name in notes)
    means = {name: statistics.mean(notes[name] for notes in found if name in notes) for name in names}
    return "".join(f", {name}: {mean:.2g}" for name, mean in means.items())


def measured(record: Record, figure: str) -> bool:
    found = record.measurement(figure)
    return found is not None and found.unlearned.value is not None


HARM_FIGURES = {
    "success": "newly as wished",
    "random": "by random requests",
    "excess": "beyond random",
    "alike": "by others as hard",
    "surrogate": "by the surrogate",
    "retrained": "retrained without the request",
    "accuracy": "victim, right",
    "others": "other classes, right",
    "left": "asked for, right",
}
"""What stands in the table of an indirect attack: one row a method; the interval of a single seed, or the deviation."""


def harm_table(records: list[Record]) -> list[str]:
    methods = list(dict.fromkeys((record.method, record.tuning is not None) for record in records))
    figures = [figure for figure in HARM_FIGURES if harm(figure, records)]
    titles = [HARM_FIGURES[figure] for figure in figures]
    lines = ["| method | seeds | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(figures)]
    lines.append(harm_row("*original*", [records[0]], "original", figures))
    for method, tuned in methods:
        own = [r for r in records if (r.method, r.tuning is not None) == (method, tuned)]
        lines.append(harm_row(f"`{short(method)}`{', tuned' if tuned else ''}", own, "unlearned", figures))
    return lines


def harm(figure: str, records: list[Record]) -> list[Measurement]:
    """What the records hold of one figure of an indirect attack, where it has a value."""
    rows = [m for r in records for m in r.measurements if m.group == "harm" and m.name.endswith(f"_{figure}")]
    return [m for m in rows if m.unlearned.value is not None]


def harm_row(name: str, records: list[Record], role: str, figures: list[str]) -> str:
    cells = []
    for figure in figures:
        found = harm(figure, records)
        each = [getattr(m, role) for m in found]
        one = each[0] if len(each) == 1 else None
        interval = one is not None and one.low is not None and f" ({share(one.low)} to {share(one.high)})"
        cells.append(over_seeds(figure, list(found), role) + (interval or ""))
    return f"| {name} | {len(records)} | {' | '.join(cells)} |"


def mean_row(name: str, records: list[Record], role: str, figures: dict[str, str]) -> str:
    cells = [over_seeds(figure, [record.measurement(figure) for record in records], role) for figure in figures]
    return f"| {name} | {len(records)} | {' | '.join(cells)} |"


def over_seeds(figure: str, found: list[Measurement | None], role: str) -> str:
    """Mean and standard deviation over seeds: in percent, but for p-values (log10) and areas."""
    values = [m.reference if role == "retrained" else getattr(m, role).value for m in found if m is not None]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if figure == "forget_quality":
        known = [math.log10(max(value, 1e-300)) for value in known]
    scale, digits = (1, 2) if figure in ("loss_auc", "cka") else (1, 1) if "quality" in figure else (100, 1)
    spread = f" ± {scale * statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{scale * statistics.mean(known):.{digits}f}{spread}"


def curve_table(path: Path) -> list[str]:
    """Accuracy on the forgotten class and on the others over iterations, a row a run; it says where one diverged."""
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    looks = [int(point[0]) for point in max((run["points"] for run in runs), key=len)]
    lines = ["| run, forget / rest | " + " | ".join(map(str, looks)) + " |", "|---|" + "---|" * len(looks)]
    for run in sorted(runs, key=lambda run: run["run"]):
        seen = {int(point[0]): point for point in run["points"] if len(point) > 1}
        cells = [f"{share(seen[k][1])} / {share(seen[k][2])}" if k in seen else "diverged" for k in looks]
        lines.append(f"| {run['run']} | {' | '.join(cells)} |")
    return lines


def layout_table(path: Path) -> list[str]:
    """Retain, forget and test accuracy of each setting: reported, and measured under each layout; and how far it is."""
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    layouts = list(dict.fromkeys(run["layout"] for run in runs))
    lines = ["| setting | reported | " + " | ".join(layouts) + " |", "|---|---|" + "---|" * len(layouts)]
    for setting in dict.fromkeys(run["setting"] for run in runs):
        own = {run["layout"]: run for run in runs if run["setting"] == setting}
        reported = next(iter(own.values()))["reported"]
        cells = [" / ".join(f"{x:.1f}" for x in own[k]["measured"]) if k in own else "" for k in layouts]
        lines.append(f"| {setting} | {' / '.join(f'{x:.1f}' for x in reported)} | {' | '.join(cells)} |")
    common = set.intersection(*({run["setting"] for run in runs if run["layout"] == layout} for layout in layouts))
    far = {k: [off(run) for run in runs if run["layout"] == k and run["setting"] in common] for k in layouts}
    cells = [f"{statistics.mean(far[layout]):.1f}" for layout in layouts]
    name = f"*forget and test, points off, mean over the {len(common)} settings that all layouts have*"
    return [*lines, f"| {name} | | {' | '.join(cells)} |"]


def off(run: dict[str, list[float]]) -> float:
    """By how many points forget and test accuracy miss what is reported, on average."""
    return statistics.mean(abs(a - b) for a, b in zip(run["measured"][1:], run["reported"][1:], strict=True))


def tabled(records: list[Record]) -> list[str]:
    """The table that suits what was measured."""
    first = records[0]
    if any(m.group == "harm" for m in first.measurements):
        return harm_table(records)
    if first.measurement("forget_rouge") is not None:
        return mean_table(records, TEXT_FIGURES)
    if first.measurement("test_zero_shot") is not None:
        return mean_table(records, PAIR_FIGURES)
    return table(records)


def lines_table(folder: Path) -> list[str]:
    """The table of a folder that holds no records but lines of runs; none where its note has its own."""
    curves, layouts = folder / "curves.jsonl", folder / "layouts.jsonl"
    return curve_table(curves) if curves.exists() else layout_table(layouts) if layouts.exists() else []


def papers() -> str:
    """The whole text of papers.md."""
    parts = [HEAD, *references(), ""]
    for folder in sorted(path.parent for path in RECORDS.glob("*/README.md")):
        records = [rejudge(load(path)) for path in folder.glob("*.json")]
        records.sort(key=lambda record: (record.tuning is not None, record.method, record.seed))
        parts += [f"## {folder.name}", "", (folder / "README.md").read_text(encoding="utf-8").rstrip(), ""]
        parts += [*(tabled(records) if records else lines_table(folder)), ""]
    return "\n".join(parts).rstrip() + "\n"


def write_papers() -> None:
    (HOME / "papers.md").write_text(papers(), encoding="utf-8")


if __name__ == "__main__":
    write_papers()
