"""The numbers of records as rows: a measurement of a method on a case, over all its seeds."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from unrecall.record import stats
from unrecall.record.schema import Measurement, Record
from unrecall.report import scales
from unrecall.report.numbers import finite, present
from unrecall.report.readable import by_this_version
from unrecall.report.summary import Audits, cases, methods

COLUMNS: Final = (
    "scenario", "method", "seeds", "without_value", "request", "measurement", "title", "unit", "judged", "leak",
    "original", "unlearned", "sd", "sd_training", "sd_unlearning", "sd_evaluation", "interval_over", "low", "high",
    "retrained", "retrained_sd", "retrained_models", "verdict", "case", "worst_verdict",
)  # fmt: skip
P_LEAK: Final = "p_never_trained"
P_STANDS_OUT: Final = "p_stands_out"
AS_IT_IS: Final = "memory_left_as_it_is"
"""The names of both p over all attacks and of the share left, beside records never trained on."""
ONE_AUDIT: Final = "examples"
"""What an interval is over where one audit has a value."""
ALL_P: Final = "smallest and largest"
"""What stands in place of an interval where several audits have a p: their mean would be no p."""
Bounds: TypeAlias = tuple[float | None, float | None]
NONE: Final[Bounds] = (None, None)
Values: TypeAlias = Sequence[tuple[Record, float | None]]
"""A number of each audit."""


class OverSeeds(NamedTuple):
    """A number of the unlearned models over seeds.

    `mean`: over what the interval is over, whose own seeds are averaged first. `sd`: over all; None for one seed.
    `sd_training` to `sd_evaluation`: what each level of seeds adds to it (`variance_components`), unless cells of the
    grid are missing. `low` and `high`: an interval at 95 %. Of one seed it is over examples; else it is Student's, of
    the mean over originals; where all share one, over its unlearnings; else over evaluations; `interval_over` says
    which. None where these are all the same: how far others would lie is then unknown.
    """

    mean: float | None
    sd: float | None
    sd_training: float | None
    sd_unlearning: float | None
    sd_evaluation: float | None
    interval_over: str
    low: float | None
    high: float | None


class Line(NamedTuple):
    """One measurement of one method on one scenario, over all its seeds.

    `seeds`: how many audits have a value; `without_value`: how many of them have none. `request`: the first digits of
    what tells it from others. `original`: a mean over seeds. `retrained`, `retrained_sd`: over the retrained models.
    `verdict`: of the row, at each seed. `case`: what methods are compared on. `worst`: the audits' worst verdict.
    """

    scenario: str
    method: str
    seeds: int
    without_value: int
    request: str
    measurement: str
    title: str
    unit: str
    judged: bool
    leak: str
    original: float | None
    unlearned: OverSeeds
    retrained: float | None
    retrained_sd: float | None
    retrained_models: int
    verdict: str
    case: str = ""
    worst: str = ""

    @property
    def cells(self) -> dict[str, Any]:
        """The values by column."""
        place = self._fields.index("unlearned")
        return dict(zip(COLUMNS, (*self[:place], *self.unlearned, *self[place + 1 :]), strict=True))


def lines(records: Sequence[Record]) -> list[Line]:
    """All measurements of all methods, in the order of the records; verdicts are derived anew."""
    groups = methods(list(map(by_this_version, records)))
    names = {group.alike: case for case, members in cases(groups).items() for group in members}
    return [
        line._replace(case=names[group.alike], worst=group.label)
        for group in groups
        for line in (*(_line(group, name) for name in _names(group)), *_beside_others(group))
    ]


def _names(group: Audits) -> list[str]:
    return list(dict.fromkeys(m.name for record in group.records for m in record.measurements))


def _line(group: Audits, name: str) -> Line:
    audits = [(record, m) for record in group.records if (m := record.measurement(name)) is not None]
    own = [m for _, m in audits]
    first, references = own[0], _references(audits)
    estimates = [m.unlearned for m in own if finite(m.unlearned.value) is not None]
    bounds = (estimates[0].low, estimates[0].high) if estimates else NONE
    unlearned = _over_seeds([(record, m.unlearned.value) for record, m in audits], bounds)
    low, high = scales.clipped(first, unlearned.low, unlearned.high) or NONE
    return Line(
        *(group.scenario, group.name, len(estimates), len(group.records) - len(estimates), _request(group)),
        *(name, first.title, first.unit, any(m.judged and m.verdict != "not judged" for m in own), first.leak or ""),
        _mean(present(m.original.value for m in own)),
        unlearned._replace(low=low, high=high),
        _mean(references),
        _deviation(references),
        len(references),
        "; ".join(dict.fromkeys(m.verdict for m in own)),
    )


def _request(group: Audits) -> str:
    """What tells the group's request from others, shortened."""
    return group.alike.request[:12]


def _beside_others(group: Audits) -> Iterator[Line]:
    """What was measured beside records never trained on: both p over all attacks, then the share left by each.

    A share whose interval can't be given is none: the original shows too little.
    """
    audits = [(record, of) for record in group.records if (of := record.never_trained) is not None and of.attacks]
    if not audits:
        return
    labels = "; ".join(dict.fromkeys(of.label for _, of in audits))
    head, tail = (group.scenario, group.name, 0, 0, _request(group)), (None, None, 0, labels)

    def line(name: str, title: str, count: int, unlearned: OverSeeds) -> Line:
        row = Line(*head, name, title, "share", True, "below", None, unlearned, *tail)
        return row._replace(seeds=count, without_value=len(group.records) - count)

    leaks, strange = (present(getattr(of, name) for _, of in audits) for name in ("leak", "strange"))
    leaking = line(P_LEAK, "p beside records never trained on", len(leaks), _of_p(leaks))
    originals = {of.original for _, of in audits}
    yield leaking._replace(original=originals.pop() if len(originals) == 1 else None)
    yield line(P_STANDS_OUT, "p of standing out from records never trained on", len(strange), _of_p(strange))
    titles = {attack.name: attack.title for _, of in audits for attack in of.attacks}
    for name, title in titles.items():
        attacks = [(record, attack) for record, of in audits for attack in of.attacks if attack.name == name]
        own = [(record, a) for record, a in attacks if finite(a.rho) is not None and a.rho_low is not None]
        bounds = (own[0][1].rho_low, own[0][1].rho_high) if own else NONE
        left = _over_seeds([(record, attack.rho) for record, attack in own], bounds)
        row = line(f"memory_left_{name}", f"Share of the original's memory left: {title}", len(own), left)
        counted = any(attack.p is not None for _, attack in attacks)
        yield row._replace(leak="above", judged=counted, original=1.0 if own else None)


def _of_p(values: Sequence[float]) -> OverSeeds:
    """The p of one audit, or the smallest and the largest of several."""
    if len(values) < 2:
        return OverSeeds(_mean(values), None, None, None, None, "", None, None)
    return OverSeeds(None, None, None, None, None, ALL_P, min(values), max(values))


def _references(audits: Sequence[tuple[Record, Measurement]]) -> list[float]:
    """The value of each retrained model, the mean over its evaluations.

    A model is known by its weights; where a record has none, by its place and by the values of all beside it.
    """
    by_model: dict[str, list[float]] = {}
    for record, m in audits:
        values = [finite(e.value) for e in m.references]
        for i, value in enumerate(values):
            weights = record.provenance.weights.get(f"retrained {i}", "")
            key = weights or f"{i} of {values}"
            if value is not None and (weights or key not in by_model):
                by_model.setdefault(key, []).append(value)
    return [statistics.fmean(values) for values in by_model.values()]


def _over_seeds(values: Values, bounds: Bounds) -> OverSeeds:
    """What a number is over the seeds of its audits. `bounds`: its interval over examples, for where it is one's."""
    numbers = [(record, value) for record, value in values if finite(value) is not None and value is not None]
    by_original: dict[str, dict[int, list[float]]] = {}
    for record, number in numbers:
        unlearnings = by_original.setdefault(_original(record), {})
        unlearnings.setdefault(record.seeds.get("unlearning", record.seed), []).append(number)
    grid = [list(unlearnings.values()) for unlearnings in by_original.values()]
    own = [number for _, number in numbers]
    levels = {
        "originals": [statistics.fmean(chain(*unlearnings)) for unlearnings in grid],
        "unlearnings": [statistics.fmean(evaluations) for evaluations in chain(*grid[:1])],
        "evaluations": own,
    }
    over, units = next((level for level in levels.items() if len(level[1]) > 1), (ONE_AUDIT, own))
    if over != ONE_AUDIT:
        bounds = stats.student(np.array(units)) if len(set(units)) > 1 else NONE
    low, high = map(finite, bounds)
    whole = len({(len(unlearnings), len(each)) for unlearnings in grid for each in unlearnings}) == 1
    components = stats.variance_components(np.array(grid)) if whole else stats.Components(None, None, None)
    over = "" if low is None and high is None else over
    return OverSeeds(_mean(units), _deviation(own), *components, over, low, high)


def _original(record: Record) -> str:
    """Which training the original comes from: one that was given is the same whatever the seed."""
    seed = record.seeds.get("training", record.seed)
    return record.provenance.weights.get("original", str(seed))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
