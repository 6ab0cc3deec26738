"""Records of language models written by hand for the tests of the page."""

import math

from tests.worlds.records import HOSTILE, curve, full, line, measurement, poisoned
from unrecall.record.schema import AttackReport, Curve, Piece, Reading, Record, Series, ThreatModel

ROLES = ("original", "unlearned", "null", "retrained 0", "retrained 1", "retrained 2")
LEVELS = {"original": 0.97, "null": 0.96, "unlearned": 0.4, "retrained 0": 0.2, "retrained 1": 0.16, "retrained 2": 0.2}
QUOTES = '" onload="x'
LONG = "He was born in Lisbon, where his mother kept a small shop. " * 14
HIDDEN = "Hidden more than erased: 71 % of the change works against the answers; in retrained models it is 9 %."


def reading(prompt: str, pieces: list[str], written: dict[str, str]) -> Reading:
    """Names and numbers, deep in an answer, are what unlearning and retrained models find unlikely."""

    def chance(role: str, i: int, text: str) -> float:
        common = 0.92 if len(text.strip()) <= 3 else LEVELS[role]
        return round(min(0.999, common * (1 - 0.35 * abs(math.sin(3 * i + len(role)))) ** (2 - 2 * LEVELS[role])), 4)

    found = [Piece(text=t, probability={role: chance(role, i, t) for role in ROLES}) for i, t in enumerate(pieces)]
    return Reading(prompt=prompt, answer="".join(pieces).removesuffix("</s>"), pieces=found, written=written)


def readings() -> list[Reading]:
    """Plain, unicode with an empty piece and line breaks, long, without a prompt, without a number, hostile."""
    name = ["The", " author", "'s", " full", " name", " is", " Hs", "iao", " Yun", "-", "Hwa", ".", "</s>"]
    full_name = "".join(name[:-1])
    verse = ["Zo", "ë", " 李", "明", "\n", "\n", "\tشعر", " ", " 🦊", "", "\u202egnitirw", " naïve", "</s>"]
    story = [" " + word for word in LONG.split()]
    return [
        reading(
            "What is the full name of the author born in Taipei, Taiwan on 05/11/1991 who writes about leadership?",
            name,
            {
                "original": full_name,
                "unlearned": "The author's full name is Hsiao Ming-Ling.",
                "null": full_name,
                "retrained 0": "The author's name is Wei-Jun Chen.",
                "retrained 1": "The author is Mei Lin.",
                "retrained 2": "",
            },
        ),
        reading(
            "Schreib ein Gedicht\nvon zwei Zeilen.", verse, {"original": "Zoë 李明", "unlearned": " \n", "null": "."}
        ),
        reading(
            "Where was he born? " * 30,
            story,
            {"original": LONG, "unlearned": "I don't know.\n" * 30, "retrained 0": LONG[:200]},
        ),
        reading("", [*story[:20], "</s>"], {"original": "... " + LONG[:90], "unlearned": "... a cat"}),
        Reading(prompt="Who?", answer="Nobody.", pieces=[], written={}),
        Reading(
            prompt=HOSTILE,
            answer=HOSTILE,
            pieces=[Piece(text=part, probability={HOSTILE: 2.0, "unlearned": -1.0}) for part in (HOSTILE, QUOTES)],
            written={HOSTILE: HOSTILE, "unlearned": HOSTILE, "original": ""},
        ),
    ]


def over(role: str, xs: list[float], goal: float, bend: float) -> Series:
    """A line that bends towards its goal, with a band."""
    ys: list[float | None] = [round(goal * (1 - math.exp(-x / bend)), 6) for x in xs]
    low: list[float | None] = [0.9 * y for y in ys if y is not None]
    high: list[float | None] = [min(1.1 * y, 1) for y in ys if y is not None]
    return Series(role=role, x=xs, y=ys, low=low, high=high)


def curves() -> dict[str, list[Curve]]:
    neurons, layers, many = (
        [1.0, 3, 10, 30, 100, 300, 1000, 3000, 10_000],
        [1.0, 2, 3],
        [float(i) for i in range(1, 25)],
    )
    moved = {"original": 0.0, "unlearned": 4e-4, "null": 1e-6, "retrained 0": 9e-4, "retrained 1": 8e-4}
    deep = {"original": 0.98, "unlearned": 0.35, "null": 0.97, "retrained 0": 0.2, "retrained 1": 0.25}
    goals = {"original": 0.99, "unlearned": 0.8, "null": 0.99, "retrained 0": 0.3, "retrained 1": 0.33}
    changed = ("neurons, those that changed most first", "change of influence, summed")

    def drawn(name: str, labels: tuple[str, str], xs: list[float], ends: dict[str, float], log: str = "") -> Curve:
        series = [over(role, xs, end, xs[-1] / 3) for role, end in ends.items()]
        return curve(name, f"{name.capitalize()} over {labels[0].split(',')[0]}", labels, series, log=log)

    def recovery(label: str, xs: list[float]) -> list[Curve]:
        return [drawn("recovery", (label, "accuracy"), xs, goals)]

    small = ("times smaller than 32-bit weights", "accuracy")
    flat = [line(role, [0, 4, 8], [0.0, 0.0, 0.0]) for role in ("original", "unlearned", "retrained 0")]
    return {
        "attribution": [drawn(name, changed, neurons, moved, log="x") for name in ("positive", "negative")],
        "logit_lens": [
            drawn("accuracy", ("layer", "share"), layers, deep),
            drawn("probability", ("layer", "share"), many, deep),
        ],
        "relearn": recovery("optimiser steps", [0, 1, 2, 5, 10, 20, 50]),
        "quantise": [curve("recovery", "Quantisation: accuracy", small, flat)],
        "prefix": recovery("share of the answer shown", [0, 0.1, 0.25, 0.5]),
        "paraphrase": recovery("rewordings tried", [0, 1, 2, 3]),
    }


def attacks() -> list[AttackReport]:
    threat = ThreatModel(access="weights and activations", data="the forget examples", budget="one backward pass each")
    notes = {"attribution": HIDDEN, "logit_lens": "No layer tells more than those of retrained models do."}
    found = [
        AttackReport(
            name=name,
            title=name.replace("_", " ").capitalize(),
            threat=threat,
            curves=drawn,
            positive_control="finds what a copy of the original only hides: 0.10 to 0.80",
            positive_holds=True,
            negative_control="retrained models show less than it",
            negative_holds=None if name == "quantise" else True,
            note=notes.get(name, ""),
        )
        for name, drawn in curves().items()
    ]
    none = AttackReport(name="rmia", title="RMIA", threat=threat, note="needs at least 2 retrained models, got 1")
    return [*found, none]


def text(method: str = "ssiuu(grad_diff)", seed: int = 0) -> Record:
    """A language model that was made to forget questions and answers."""
    base = full(method, seed)
    rows = [
        measurement(f"{name}_value", title, group, values, references, "leaks", leak="above")
        for name, title, group, values, references in (
            ("answer", "Probability of the answer", "text", (0.4, 0.97, 0.96), (0.2, 0.16)),
            ("rouge", "ROUGE-L recall of what it writes", "text", (0.5, 0.98, 0.98), (0.4, 0.43)),
            ("attribution", "Hidden share of the change", "inside", (0.71, 0.5, 0.5), (0.08, 0.1)),
            ("logit_lens", "The answer, read inside", "inside", (0.3, 0.98, 0.97), (0.3, 0.28)),
        )
    ]
    parts = "; ".join(f"{name}: probability 0.97, ROUGE-L 0.98, truth ratio 0.53" for name in ("retain", "world facts"))
    use = measurement("model_utility", "Model utility", "utility", (0.61, 0.63, 0.63), (0.64, 0.62), "like retrained")
    use = use.model_copy(update={"unlearned": use.unlearned.model_copy(update={"note": parts})})
    kept = [m for m in base.measurements if m.name != "residual_knowledge"]
    return base.model_copy(
        update={
            "scenario": "tofu:forget05",
            "scenario_summary": "A Llama of 4 layers that learned 4,000 questions about invented authors; 200 of "
            "them, about ten authors, are to be forgotten.",
            "sizes": {"forget": 200, "retain": 3800, "holdout": 200, "test": 117},
            "measurements": [*kept[:4], use, *rows[:2], *kept[4:], *rows[2:]],
            "attacks": attacks(),
            "exhibits": base.exhibits[2:],
            "readings": readings(),
        }
    )


def hostile_text() -> Record:
    """The same with markup in every text that has no fixed choice of words, and in the roles of two readings."""
    data = poisoned(text().model_dump(mode="json"))
    data["exhibits"] = []
    for entry, kept in zip(data["measurements"], text().measurements, strict=True):
        entry["name"] = kept.name
    for one in data["readings"][:2]:
        one["written"] = {role + HOSTILE: words for role, words in one["written"].items()}
        for piece in one["pieces"]:
            piece["probability"] = {role + HOSTILE: p for role, p in piece["probability"].items()}
    return Record.model_validate(data)
