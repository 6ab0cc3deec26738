"""Records written by hand for the tests of the page: full, minimal, hostile, and many."""

import math
from typing import Any

from unrecall.record.never_trained import as_verdict
from unrecall.record.schema import (
    AttackReport,
    AttackTest,
    Cost,
    Curve,
    Damage,
    Doubt,
    Estimate,
    Exhibit,
    Label,
    Matrix,
    Measurement,
    NeverTrained,
    Provenance,
    Record,
    Series,
    ThreatModel,
    Trial,
    Tuning,
    Verdict,
)
from unrecall.record.verdict import ORDER, RULE, judge

HOSTILE = "</script><img src=x onerror=alert(1)><b>\u2028'\"&amp;{{ 7*7 }}"
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAGUlEQVR4nGMQgQIGIP7//z+EAWSiMQ"
    "hJAQAiqxDwx8BCZgAAAABJRU5ErkJggg=="
)


def estimate(value: float | None, half: float = 0.03, note: str = "") -> Estimate:
    if value is None:
        return Estimate(value=None, note=note)
    return Estimate(value=value, low=value - half, high=value + half, n=200, note=note)


def measurement(
    name: str,
    title: str,
    group: str,
    values: tuple[float, ...],
    references: tuple[float, ...],
    verdict: Label,
    **more: Any,
) -> Measurement:
    mean = sum(references) / len(references) if references else None
    unlearned, original, null = (estimate(value) for value in values)
    bounds = {"bound_low": mean - 0.03, "bound_high": mean + 0.03} if mean is not None else {}
    given = {"references": [estimate(v) for v in references], "reference": mean, "verdict": verdict, **bounds, **more}
    models = {"unlearned": unlearned, "original": original, "null": null}
    return Measurement(name=name, title=title, group=group, **models, **given)


ROWS: list[tuple[str, str, str, tuple[float, ...], tuple[float, ...], Label, dict[str, Any]]] = [
    ("forget_accuracy", "Accuracy on forget", "forgetting", (0.62, 0.99, 0.97), (0.57, 0.6), "inconclusive", {}),
    ("forget_loss", "Mean loss on forget", "forgetting", (2.4, 0.02, 0.05), (1.31, 1.33, 1.29), "over-forgets",
     {"leak": "below"}),
    ("retain_accuracy", "Accuracy on retain", "utility", (0.971, 0.998, 0.99), (0.997, 0.998, 0.997), "like retrained",
     {"margin": 0.1}),
    ("test_accuracy", "Accuracy on test", "utility", (0.93, 0.951, 0.95), (0.949, 0.95, 0.949), "like retrained",
     {"margin": 0.1}),
    ("membership_auc", "Membership: area under the ROC curve", "privacy", (0.64, 0.93, 0.91), (0.5, 0.502, 0.498),
     "leaks", {"leak": "above", "note": "the strongest of four membership attacks"}),
    ("residual_knowledge", "Residual knowledge at radius 0.03", "privacy", (1.02, 1.9, 1.88), (1.0, 1.01, 1.005),
     "like retrained", {"leak": "above", "ideal": "1", "margin": 0.1}),
    ("relearn_steps", "Steps to relearn", "recovery", (12, 0, 0), (84, 86, 82), "leaks",
     {"leak": "below", "unit": "steps", "margin": 5.0}),
]  # fmt: skip


def measurements(shift: float = 0.0) -> list[Measurement]:
    rows = [measurement(*row[:6], **row[6]) for row in ROWS]
    forget = measurement(*ROWS[0][:3], (0.62 + shift, 0.99, 0.97), *ROWS[0][4:6])
    none = estimate(None, note="needs at least 8 retrained models, got 3")
    lira = {"name": "lira_auc", "title": "LiRA: area under the ROC curve", "group": "privacy", "judged": False}
    unknown = {"null": estimate(None), "references": [estimate(None, note="no shadow models")]}
    return [forget, *rows[1:], Measurement(unlearned=none, original=none, **unknown, **lira)]


def ranked(label: Label) -> int:
    """How good a label is, from 0 for the worst; what is not judged is none."""
    return ORDER.index(label) if label in ORDER else -1


def roc(role: str, power: float) -> Series:
    x = [round(10 ** (-3 + 3 * i / 40), 6) for i in range(41)]
    y: list[float | None] = [round(v**power, 6) for v in x]
    low: list[float | None] = [max(v**power * 0.8, 1e-4) for v in x]
    high: list[float | None] = [min(v**power * 1.2, 1.0) for v in x]
    return Series(role=role, x=[0.0, *x], y=[0.0, *y], low=[0.0, *low], high=[0.0, *high])


def rising(role: str, start: float, end: float, rate: float) -> Series:
    x = [0.0, 1, 2, 5, 10, 20, 50]
    y: list[float | None] = [round(end - (end - start) * math.exp(-rate * v), 4) for v in x]
    low: list[float | None] = [v - 0.03 for v in y if v is not None]
    high: list[float | None] = [min(v + 0.03, 1) for v in y if v is not None]
    return Series(role=role, x=x, y=y, low=low, high=high)


def line(role: str, x: list[float], *ys: list[float | None]) -> Series:
    return Series(role=role, x=x, **dict(zip(("y", "low", "high"), ys, strict=False)))


def curve(name: str, title: str, labels: tuple[str, str], series: list[Series], **more: Any) -> Curve:
    return Curve(name=name, title=title, x_label=labels[0], y_label=labels[1], series=series, **more)


def curves() -> dict[str, Curve]:
    learned = [rising("original", 0.99, 1, 0.3), rising("unlearned", 0.62, 0.99, 0.25), rising("null", 0.97, 1, 0.3)]
    learned += [rising(f"retrained {i}", v, 0.9, 0.04) for i, v in enumerate((0.57, 0.6, 0.55))]
    learned += [rising("unlearned, labels shuffled", 0.62, 0.6, 0.2)]
    powers = {"original": 0.3, "unlearned": 0.7, "retrained 0": 0.98, "retrained 1": 1.03, "null": 0.35}
    radii = [0.01, 0.03, 0.1, 0.3]
    odds = [
        line("original", radii, [1.9, 1.8, 1.7, None]),
        line("unlearned", radii, [1.1, 1.35, 1.5, 1.2], [1, 1.2, 1.3, None], [1.2, 1.5, 1.7, None]),
        line("retrained 0", radii, [1.0, 1.0, 1.02, 1.0]),
    ]
    again = [line("unlearned", [0, 64, 256], [0.62, 0.66, 0.67]), line("retrained 0", [0, 64, 256], [0.57, 0.57, 0.58])]
    rates, accuracy = ("false positive rate", "true positive rate"), "accuracy on forget"
    told = [roc(role, power) for role, power in powers.items()]
    return {
        "roc": curve("membership_roc", "Membership: who is told apart from holdout", rates, told, log="xy"),
        "relearn": curve(
            "relearn", "Accuracy on forget after a few steps", ("steps", accuracy), learned, note="3 draws"
        ),
        "residual": curve("residual", "Residual knowledge", ("radius", "odds against retrained"), odds, log="x"),
        "again": curve("again", "After statistics were taken again", ("unlabelled images", accuracy), again),
    }


def attacks() -> list[AttackReport]:
    weights = ThreatModel(access="weights", data="10 examples of forget", budget="50 steps, lr 1e-3")
    box = ThreatModel(access="output probabilities", data="forget and holdout examples", budget="one query an example")
    drawn = curves()

    def attack(name: str, title: str, threat: ThreatModel, drawing: str, negative: bool | None) -> AttackReport:
        return AttackReport(
            name=name,
            title=title,
            threat=threat,
            reference="Carlini et al., Membership Inference Attacks From First Principles, S&P 2022",
            curves=[drawn[drawing]],
            positive_control="On the original model the attack reaches 0.93, and at least 0.75 was asked for.",
            positive_holds=True,
            negative_control="On retrained models it stays within 0.05 of chance.",
            negative_holds=negative,
            note="The retrained models learn fast too." if negative is False else "",
        )

    return [
        attack("membership", "Membership inference", box, "roc", True),
        attack("relearn", "Relearning", weights, "relearn", False),
        attack("residual_knowledge", "Residual knowledge", box, "residual", None),
        attack("recalibration", "Recalibration of statistics", weights, "again", True),
    ]


def matrix() -> Matrix:
    """Of 100 digits a class: eights are to be forgotten, threes and nines pay, threes gain; no zero was looked at."""
    before = [[None] * 4, [0.0, 0.9, 0.1, 0.0], [0.0, 0.05, 0.95, 0.0], [0.0, 0.0, 0.02, 0.98]]
    after = [[None] * 4, [0.0, 0.8, 0.1, 0.1], [0.0, 0.65, 0.1, 0.25], [0.0, 0.28, 0.02, 0.7]]
    usual = [[None] * 4, [0.0, 0.88, 0.02, 0.1], [0.0, 0.6, 0.0, 0.4], [0.0, 0.01, 0.01, 0.98]]
    return Matrix(
        name="contamination",
        title="Changes class by class",
        labels=["zero", "three", "eight", "nine"],
        forgotten=[2],
        values={"original": before, "unlearned": after, "retrained": usual},
        paid={"unlearned": [None, 0.1, 0.85, 0.28], "retrained": [None, 0.02, 0.95, 0.0]},
        gained={"unlearned": [0.0, 0.44, 0.0, 0.175], "retrained": [0.0, 0.28, -0.045, 0.25]},
        note="300 examples of test and holdout, on which no model was trained. No examples: zero.",
    )


def full(method: str = "rurk", seed: int = 0, label: Label = "leaks", shift: float = 0.0) -> Record:
    """Seven measurements that their numbers put on every side; those with a worse label than asked for don't count."""
    rows = [
        m.model_copy(update={"judged": m.judged and ranked(m.verdict) >= ranked(label)}) for m in measurements(shift)
    ]
    labelled, verdict = judge(rows)
    assert verdict.label == label
    return Record(
        scenario="digits",
        scenario_summary="A small convolutional network on 8 by 8 handwritten digits; "
        "200 of the 1,200 training images are to be forgotten.",
        sizes={"forget": 200, "retain": 1000, "holdout": 200, "test": 397},
        kind="samples",
        method=method,
        method_title=method.upper(),
        parameters={"tau": 0.03, "lambda_a": 0.03, "epochs": 5, "nested": {"lr": 0.01}, "freeze": False},
        seed=seed,
        tuning=Tuning(
            parameter="tau",
            chosen=0.03,
            criterion="smallest gap between forget and validation loss while retain accuracy drops by at most 0.02",
            trials=[
                Trial(strength=s, gap=abs(math.log10(s / 0.03)) * 0.2 + 0.02, retain_drop=s / 5, sparing=s < 0.3)
                for s in (0.003, 0.01, 0.03, 0.1, 0.3)
            ],
        ),
        verdict=verdict,
        measurements=labelled,
        attacks=attacks(),
        doubts=[
            Doubt(
                id="few-references",
                severity="note",
                message="Three retrained models: the range for another one is wide.",
            ),
            Doubt(id="control-failed", severity="serious", message="Relearning: the negative control failed."),
            Doubt(
                id="small-forget", severity="warning", message="200 forget examples can't show differences below 0.05."
            ),
        ],
        exhibits=[
            Exhibit(kind="picture", content=PNG, caption="forget 17: a 3; unlearned 0.98, retrained 0.31"),
            Exhibit(kind="picture", content=PNG, caption="forget 90: a 7; unlearned 0.95, retrained 0.22"),
            Exhibit(
                kind="text", content="Q: Where was the author born?\nA: In Lisbon, in 1974.", caption="word for word"
            ),
        ],
        matrices=[matrix()],
        costs={
            "original": Cost(seconds=9.4, passes=120_000, steps=940, peak_mib=210.0),
            "unlearned": Cost(seconds=0.8, passes=6000, steps=48, peak_mib=230.0),
            "retrained": Cost(seconds=8.1, passes=100_000, steps=780, peak_mib=210.0),
        },
        provenance=Provenance(
            created="2026-05-04T10:00:00Z",
            command="unrecall run --scenario digits --method rurk --seeds 1 --out runs/digits",
            versions={"unrecall": "0.1.0", "torch": "2.9.0"},
            commit="0123456789abcdef0123456789abcdef01234567",
            dirty=True,
            device="cpu (2 threads)",
            fingerprint="9f2c" * 16,
            weights={"original": "ab" * 32, "unlearned": "cd" * 32},
        ),
        reported={"forget_accuracy": 0.6, "paper_only": 0.5, "lira_auc": 0.51},
    )


def alone() -> Record:
    """A record without retrained models."""
    tested = never_trained()
    return full().model_copy(update={"measurements": [], "never_trained": tested, "verdict": as_verdict(tested)})


def never_trained() -> NeverTrained:
    """Two attacks, one of which has no bounds, and one that could not be run."""
    figures = {"z": 3.1, "z_original": 4.0, "p": 0.002, "auc": 0.6, "auc_original": 0.63}
    return NeverTrained(
        label="leaks",
        line="Leaks: the forgotten records are recognised better than records never trained on.",
        leak=0.002,
        strange=0.9,
        original=0.0001,
        level=0.04,
        strange_level=0.01,
        draws=9_999,
        seed=7,
        forget=250,
        holdout=400,
        control="random split",
        grade="B",
        blind=0.4,
        placebo=0.6,
        dilution=0.25,
        covariates={"class 1": "class", "c": "cheap"},
        attacks=[
            AttackTest(name="as_it_is", title="As it is", rho=0.77, rho_low=0.52, rho_high=1.04, bound=1.0, **figures),
            AttackTest(name="benign_20", title="Benign fine-tuning", losses={"retain": 0.1, "pool": 0.2}, **figures),
        ],
        absent={"head_refit": "no head"},
        damage=[Damage(split="test", difference=Estimate(value=-0.01, low=-0.02, high=0.0, n=400), damaged=False)],
        needed=900,
        epsilon=3.2,
        recognised=4,
    )


def minimal() -> Record:
    return Record(
        scenario="custom",
        scenario_summary="",
        sizes={},
        kind="class",
        method="m",
        method_title="M",
        parameters={},
        seed=1,
        verdict=Verdict(
            rule=RULE,
            label="not judged",
            line="Nothing was judged: there is no retrained model.",
            counts={},
            alpha=0.05,
            judged=0,
        ),
        measurements=[],
        attacks=[],
        doubts=[],
        costs={},
        provenance=Provenance(
            created="", command="", versions={}, commit="", dirty=None, device="", fingerprint="", weights={}
        ),
    )


def poisoned(value: Any) -> Any:
    """The same data with markup in every text that has no fixed choice of words."""
    fixed = {"label", "verdict", "severity", "leak", "log", "basis", "unit", "grade", "measure", "kind"}
    if isinstance(value, dict):
        return {k: v if k in fixed and isinstance(v, str) else poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return value + HOSTILE if isinstance(value, str) else value


def hostile() -> Record:
    data = poisoned(full().model_copy(update={"never_trained": never_trained()}).model_dump(mode="json"))
    for exhibit in data["exhibits"]:
        exhibit["kind"] = "picture"
    data["exhibits"][1]["content"] = "javascript:alert(1)"
    for entry, kept in zip(data["measurements"], measurements(), strict=True):
        entry["name"] = kept.name
    data["costs"] = {k + HOSTILE: v for k, v in data["costs"].items()}
    for key in ("parameters", "sizes"):
        data[key] = {k + HOSTILE: v for k, v in data[key].items()}
    for key in ("versions", "weights"):
        data["provenance"][key] = {k + HOSTILE: v for k, v in data["provenance"][key].items()}
    data["reported"] = {k + HOSTILE: v for k, v in data["reported"].items()}
    return Record.model_validate(data)


def many(count: int = 20) -> list[Record]:
    labels: tuple[Label, ...] = ("like retrained", "leaks", "over-forgets", "inconclusive")
    methods = (
        "rurk",
        "spotter(salun)",
        "roka",
        "ssiuu",
        "npo",
        "finetune",
        "random_label",
        "scrub",
        "a_rather_long_method_name(with(a_wrapper))",
    )
    return [full(methods[i % 9], i // 9, labels[i % 4], shift=(i % 12 - 10) / 50) for i in range(count)]
