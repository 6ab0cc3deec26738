"""What an audit leaves behind: typed, JSON in and out, with a schema version. Needs no torch."""

import math
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unrecall.data.kinds import Kind
from unrecall.disk.files import read_text, write_text
from unrecall.disk.json_files import parse_json
from unrecall.errors import BadInput
from unrecall.record.migrate import SCHEMA, migrated

SCORES = "scores"
"""The folder, beside a record or in its `parts`, that holds a file of scores for each judged attack."""
NEVER_TRAINED = "never_trained"
"""The name of the file of scores that the verdict beside records never trained on follows from."""

Label: TypeAlias = Literal[
    "like retrained",
    "leaks",
    "over-forgets",
    "inconclusive",
    "not judged",
    "unchanged",
    "stands out",
    "damaged",
    "can't be told",
    "no more than 25 %",
    "no more than 50 %",
]
Basis: TypeAlias = Literal["retrained", "never trained"]
Side: TypeAlias = Literal["above", "below"]
BroughtBack: TypeAlias = Literal["shown", "loss"]
"""What of an attack counts where strengths are tuned against it: what it shows, or the loss."""
Severity: TypeAlias = Literal["note", "warning", "serious"]


def verbatim(text: str, answer: str) -> bool:
    """Whether a text gives the answer word for word; it may go on after that, but not within the last word."""
    text, answer = text.strip(), answer.strip()
    goes_on = answer[-1:].isalnum() and text[len(answer) :][:1].isalnum()
    return bool(answer) and text.startswith(answer) and not goes_on


class Frozen(BaseModel):
    """Base of all parts of a record: immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Frozen):
    """A number with its 95 % interval over examples; where it can't be computed `value` is None and `note` says why.

    All three are finite: what isn't has no value, and an interval without an end is none.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = Field(default=0, ge=0, le=10**12)
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def only_finite(cls, stated: Any) -> Any:
        """What is stated, without a value or an interval that isn't finite, and with the reason where it had no other.

        Here, and not where numbers are made, so that no comparison with NaN ever decides a label.
        """
        if not isinstance(stated, dict):
            return stated
        if _not_finite(stated.get("value")):
            reason = stated.get("note") or f"not a finite number ({stated['value']})"
            return stated | {"value": None, "low": None, "high": None, "note": reason}
        if _not_finite(stated.get("low")) or _not_finite(stated.get("high")):
            reason = stated.get("note") or "no interval: it is not finite"
            return stated | {"low": None, "high": None, "note": reason}
        return stated


def _not_finite(value: object) -> bool:
    """Whether a value is a number that is infinite, or none at all (NaN)."""
    return isinstance(value, Real) and not isinstance(value, int) and not math.isfinite(value)


class Measurement(Frozen):
    """One number for the unlearned model beside the same number for all the others.

    `references` holds one value per retrained model and `reference` their mean, which is the ideal unless `ideal` says
    otherwise. `leak` is the side of the reference on which the forgotten shows; the other side is over-forgetting.
    `chance` is what guessing gives, where a value below it tells the forgotten apart as well as one above it.
    `undefined` counts the terms of the unlearned model's number that have no value and were left out.
    `bound_low` and `bound_high` are where another retrained model would fall; `margin` is the smallest difference worth
    naming (docs/verdict.md). `prior`: where retrained models differ by as much as the intervals over examples say, how
    many retrained models more those intervals are worth; 0 where they say nothing about it.
    """

    name: str
    title: str
    group: str
    unit: str = ""
    unlearned: Estimate
    original: Estimate
    null: Estimate
    references: list[Estimate] = Field(default_factory=list)
    reference: float | None = None
    ideal: str = "retrained"
    leak: Side | None = None
    chance: float | None = None
    undefined: int = 0
    margin: float = 0.05
    bound_low: float | None = None
    bound_high: float | None = None
    judged: bool = True
    verdict: Label = "not judged"
    note: str = ""
    prior: int = 0


class ThreatModel(Frozen):
    """Who the attacker is: what they can reach, what data they hold, and what they may spend."""

    access: str
    data: str
    budget: str


class Series(Frozen):
    """One line of a curve: `role` is original, unlearned, retrained, null, or one of these with a control named."""

    role: str
    x: list[float]
    y: list[float | None]
    low: list[float | None] = Field(default_factory=list)
    high: list[float | None] = Field(default_factory=list)


class Curve(Frozen):
    """A result over a budget, a radius or a threshold, for every model."""

    name: str
    title: str
    x_label: str
    y_label: str
    log: Literal["", "x", "y", "xy"] = ""
    series: list[Series]
    note: str = ""


NO_USE = "No attacked copy of the unlearned model stayed useful, so its row shows the model before the attack."
"""The note of an attack that ruined all that it made of the unlearned model, and of no retrained one."""


class AttackReport(Frozen):
    """What an attack promises and was set to, whether its controls hold, and the curves it drew."""

    name: str
    title: str
    threat: ThreatModel
    reference: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    curves: list[Curve] = Field(default_factory=list)
    positive_control: str = ""
    positive_holds: bool | None = None
    negative_control: str = ""
    negative_holds: bool | None = None
    note: str = ""


class Doubt(Frozen):
    """A reason to doubt the audit itself; `id` is an anchor in docs/checks.md."""

    id: str
    severity: Severity
    message: str


class Exhibit(Frozen):
    """One example worth looking at: a picture as a data URI, or a text.

    `content` is empty where examples were not asked for. `index`: which of forget it is, counted from 0.
    """

    kind: Literal["picture", "text"]
    content: str
    caption: str
    index: int | None = None

    def without_content(self, caption: str) -> "Exhibit":
        """The same without what the example says, under words that don't say it either."""
        return self.model_copy(update={"content": "", "caption": caption})


class Piece(Frozen):
    """One word or part of a word of an answer, and the probability that each model gives it, by role, in [0, 1]."""

    text: str
    probability: dict[str, float]


class Reading(Frozen):
    """One forget example of a task that writes text: prompt, true answer, and what each model made of it, by role.

    `pieces` are the true answer's; `written` is what each model writes after the prompt. All of these are empty where
    examples were not asked for. `index`: which of forget it is, counted from 0. `verbatim`: whether each model writes
    the true answer word for word. `mean`: the mean probability of the answer's pieces.
    """

    prompt: str
    answer: str
    pieces: list[Piece]
    written: dict[str, str]
    index: int | None = None
    verbatim: dict[str, bool] = Field(default_factory=dict)
    mean: dict[str, float] = Field(default_factory=dict)

    def without_texts(self) -> "Reading":
        """The same without what the example says, and without what models write about it."""
        return self.model_copy(update={"prompt": "", "answer": "", "pieces": [], "written": {}})


class Matrix(Frozen):
    """What becomes of each class: `values[role][i][j]`, the share of examples of class i that are predicted as j.

    Roles are original, unlearned and retrained (the mean of all of them). `forgotten`: which labels are to be forgotten
    whole. `paid` and `gained`, by role but for the original: by how much the accuracy of each class fell against the
    original's, and how much more of the other classes' examples is predicted as it (the mean over them). None where a
    class has no examples.
    """

    name: str
    title: str
    labels: list[str]
    forgotten: list[int] = Field(default_factory=list)
    values: dict[str, list[list[float | None]]]
    paid: dict[str, list[float | None]] = Field(default_factory=dict)
    gained: dict[str, list[float | None]] = Field(default_factory=dict)
    note: str = ""


class Trial(Frozen):
    """One strength that tuning tried, how unequal forget and validation still were, and what was lost.

    `retain_drop`, `near_drop`, `validation_drop`: shares of examples that the original got right and the unlearned
    model does not: of retain that unlearning didn't see, of retain nearest to forget, of validation (below 0: gained).
    Of a recommender: nats of mean log-likelihood.
    `kl`: KL(original || unlearned) on the first, in nats, where strengths are tuned against an attack; `gap` is then
    what the attack brings back. `sparing`: whether it damages no more than it may.
    """

    strength: float
    gap: float
    retain_drop: float
    near_drop: float | None = None
    validation_drop: float | None = None
    kl: float | None = None
    sparing: bool


UNMET = "; none that was tried does that, so this is what comes nearest"
"""How a criterion ends that no strength met."""


class Tuning(Frozen):
    """What tuning searched and chose, before any audit; `untouched` is the gap of the original.

    `against`, `most_kl`: the attack that strengths were tuned against, and the KL that a trial might spend, in nats.
    `measure`: whether gaps are of what that attack shows, or of losses in nats. `seconds`: what all trials took; None
    where another run made them.
    """

    parameter: str
    chosen: float
    untouched: float | None = None
    criterion: str
    against: str = ""
    most_kl: float | None = None
    measure: BroughtBack = "shown"
    trials: list[Trial]
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @property
    def met(self) -> bool:
        """Whether a strength that was tried does what the criterion asks for, as far as it says."""
        return not self.criterion.endswith(UNMET)


class Cost(Frozen):
    """What a model took: seconds, examples passed forward, optimiser steps, peak memory in MiB.

    `phases`: the steps of each run of the loop, in order; 0 where one had nothing left to do.
    `notes`: what the method noted of its steps, by name; the median over steps.

    No seconds: another run made the model, or began to; its clock can't be held against this run's.
    """

    seconds: float | None
    passes: int
    steps: int
    peak_mib: float
    phases: list[int] = Field(default_factory=list)
    notes: dict[str, float] = Field(default_factory=dict)


class Provenance(Frozen):
    """Where the numbers come from. `identity`: a key of each thing that decides them, by its name."""

    created: str
    command: str
    versions: dict[str, str]
    commit: str
    dirty: bool | None
    device: str
    fingerprint: str
    weights: dict[str, str]
    identity: dict[str, str] = Field(default_factory=dict)

    @property
    def unchanged(self) -> bool:
        """Whether the unlearned model is the original, by the sha256 of both."""
        return "unlearned" in self.weights and self.weights["unlearned"] == self.weights.get("original")


class AttackTest(Frozen):
    """What one attack of the fixed suite shows of forget beside records that were never trained on.

    `z`, `z_original`: the statistic of the unlearned model and of the original, in standard deviations. `p`: step-down,
    of the unlearned model; None where the attack is shown and doesn't count. `auc`, `auc_original`: of scores that are
    adjusted for difficulty. `rho`: the share of the original's memory that is left, `bound` its one-sided 95 % upper
    bound. `smallest`: the smallest share that it finds with probability 0.8. None where a figure can't be given.
    `losses`: mean loss on retain and on the pool after the attack, in nats. `steps`: how many steps of
    fine-tuning each attacked copy took, 0 where it diverged or no weight moved; empty where none is taken.
    """

    name: str
    title: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    z: float
    z_original: float
    p: float | None
    auc: float
    auc_original: float
    rho: float | None = None
    rho_low: float | None = None
    rho_high: float | None = None
    bound: float | None = None
    smallest: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)
    steps: list[int] = Field(default_factory=list)


class Damage(Frozen):
    """How much less the unlearned model gets right of a split than the original, example by example."""

    split: str
    difference: Estimate
    damaged: bool


class NeverTrained(Frozen):
    """The verdict beside records that were never trained on, and all that it rests on (docs/verdict.md).

    `leak`, `strange`: the p over all attacks that forget looks more trained on than holdout, and less; `original`: the
    first for the model before unlearning. `level`, `strange_level`: below which p a label is given; 0 where too few
    labellings allow it. `unit`: what changes places, "record" or "group". `forget`, `holdout`: how many of them.
    `control`, `grade`: how the holdout came to be, and what that is worth, A to E. `blind`: p that covariates alone
    tell the arms apart; `placebo`: p between two halves of the holdout. `dilution`: in what share of draws a quarter of
    forget, mixed with holdout, was found in the original. `covariates`: what scores are adjusted by, each with
    its kind, and `trained_on`, sha256 of what those were fitted on. `needed`: how many units would
    allow "no more than 50 %". `absent`: attacks that could not be run, with the reason. `epsilon`: a lower bound, with
    95 % confidence, for the whole request; `recognised`: how many units are recognised one by one.
    """

    label: Label
    line: str
    leak: float | None = None
    strange: float | None = None
    original: float | None = None
    level: float = 0.0
    strange_level: float = 0.0
    draws: int = 0
    seed: int = 0
    unit: Literal["record", "group"] = "record"
    forget: int = 0
    holdout: int = 0
    control: str = "matched"
    grade: Literal["A", "B", "C", "D", "E"] = "E"
    blind: float | None = None
    placebo: float | None = None
    dilution: float | None = None
    covariates: dict[str, str] = Field(default_factory=dict)
    trained_on: str = ""
    attacks: list[AttackTest] = Field(default_factory=list)
    absent: dict[str, str] = Field(default_factory=dict)
    damage: list[Damage] = Field(default_factory=list)
    needed: int | None = None
    epsilon: float | None = None
    recognised: int | None = None


class Verdict(Frozen):
    """The whole audit in one line, and how many judged measurements fell on each side; `rule` is the id of the rule.

    `basis`: what the unlearned model was held against: retrained models, or records that were never trained on.
    """

    rule: str
    label: Label
    line: str
    counts: dict[str, int]
    alpha: float
    judged: int
    basis: Basis = "retrained"


class Run(Frozen):
    """What a record says of how the unlearned model was made, beside its numbers.

    `method`: the line that the command line reads, such as "rurk:tau=0.05"; `title`: what people call it. `parameters`:
    the method's. `costs`: what original, unlearned and retrained models took. `identity`: see `Provenance`. `seeds`: as
    in `Record`. `reported`: a paper's values, by measurement.
    """

    scenario: str = "custom"
    summary: str = ""
    method: str = "not stated"
    title: str = "An unlearned model"
    parameters: dict[str, Any] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    tuning: Tuning | None = None
    identity: dict[str, str] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)
    reported: dict[str, float] = Field(default_factory=dict)


class Record(Frozen):
    """Everything about one unlearning and its audit; the page reads this and nothing else.

    `seed`: of the evaluation, and of training and unlearning where `seeds` doesn't name others.
    `observed`: on how many examples of a split models were looked at, where not on all, by split.
    `scores`: sha256 of the file of scores, beside the record, of each judged attack by name. `never_trained`: the
    verdict beside records that were never trained on, where it was asked for or no other could be given.
    """

    schema_version: int = SCHEMA
    scenario: str
    scenario_summary: str
    sizes: dict[str, int]
    observed: dict[str, int] = Field(default_factory=dict)
    kind: Kind
    method: str
    method_title: str
    parameters: dict[str, Any]
    seed: int
    seeds: dict[str, int] = Field(default_factory=dict)
    tuning: Tuning | None = None
    verdict: Verdict
    measurements: list[Measurement]
    attacks: list[AttackReport]
    doubts: list[Doubt]
    exhibits: list[Exhibit] = Field(default_factory=list)
    readings: list[Reading] = Field(default_factory=list)
    matrices: list[Matrix] = Field(default_factory=list)
    costs: dict[str, Cost]
    provenance: Provenance
    reported: dict[str, float] = Field(default_factory=dict)
    scores: dict[str, str] = Field(default_factory=dict)
    never_trained: NeverTrained | None = None

    def measurement(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.measurements if m.name == name), None)

    def comparable(self) -> dict[str, Any]:
        """All that must come out the same when the same run is done again: everything but clocks and memory."""
        data = self.model_dump(mode="json", exclude={"costs": True, "provenance": True, "tuning": {"seconds"}})
        stable = {"cost_time", "cost_memory"}
        data["measurements"] = [m for m in data["measurements"] if m["name"] not in stable]
        data["provenance"] = {"fingerprint": self.provenance.fingerprint, "weights": self.provenance.weights}
        data["costs"] = {k: {"passes": v.passes, "steps": v.steps} for k, v in self.costs.items()}
        return data

    def save(self, path: str | Path) -> None:
        """Writes the record as JSON, all of it or nothing, for its owner alone to read."""
        write_text(Path(path), self.model_dump_json(indent=1) + "\n", private=True)


def load(path: str | Path) -> Record:
    """Reads a record of this schema or an older one; BadInput says which field is off, or what wrote a newer one."""
    hint = "Name a record.json, or a folder that holds some."
    data = parse_json(read_text(Path(path)), str(path), "an unrecall record (JSON)", hint)
    if not isinstance(data, dict) or "schema_version" not in data:
        raise BadInput(f"{path}: expected an unrecall record, got JSON without schema_version. {hint}")
    version = data["schema_version"]
    try:
        data = migrated(data)
        if data["schema_version"] == SCHEMA:
            return Record.model_validate(data)
        writer = data["provenance"]["versions"]["unrecall"]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: expected a valid record, got {first['msg']} at {where}.") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: expected a valid record of schema version {version}, got one that lacks a part: {error}."
        ) from error
    raise BadInput(f"{path}: expected schema version {SCHEMA}, got {version}. Read it with unrecall {writer} or later.")
