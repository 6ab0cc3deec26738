"""Many audits in few lines: the seeds of a method together, and methods in order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from unrecall.record.schema import Label, Record
from unrecall.record.verdict import excess, family, gap
from unrecall.report import numbers
from unrecall.report.answers import answers, harmful, unchanged
from unrecall.report.numbers import finite, minus, present

BEST_FIRST: Final[tuple[Label, ...]] = (
    "like retrained",
    "no more than 25 %",
    "no more than 50 %",
    "inconclusive",
    "can't be told",
    "not judged",
    "over-forgets",
    "damaged",
    "stands out",
    "leaks",
    "unchanged",
)
STEP: Final = 5
"""Shares are compared after rounding to so many points: methods that agree then are tied."""


class Spread(NamedTuple):
    """A number over several seeds: its mean, lowest and highest, the worst, and which seed has that."""

    mean: float
    low: float
    high: float
    worst: float | None
    seed: int | None


class Alike(NamedTuple):
    """What the seeds of one method share; each part tells audits apart, in this order, where all before are the same.

    What an old record doesn't say of itself is empty. `request`: the data before tuning took some of the holdout.
    `weights`: a checkpoint's. `version`: the method, its source included. `run`: counts audits with the same seeds.
    """

    scenario: str
    request: str
    basis: str
    rate: str
    case: str
    attacks: str
    holdout: str
    tuning: str
    weights: str
    version: str
    run: str


CASE: Final = ("scenario", "request", "basis", "rate", "case", "attacks")
"""The parts that methods must share to be ranked against each other."""
BASES: Final = {"retrained": "beside retrained models", "never trained": "without retrained models"}


class Audits(NamedTuple):
    """All audits of one method on one case, each with its number on the page; their seeds differ."""

    name: str
    scenario: str
    alike: Alike
    numbers: list[int]
    records: list[Record]

    @property
    def label(self) -> Label:
        """The worst verdict of them."""
        return max((record.verdict.label for record in self.records), key=BEST_FIRST.index)

    @property
    def left(self) -> Spread | None:
        """What is left of the forgotten."""
        return _spread([(left(record), record.seed) for record in self.records])

    @property
    def lost(self) -> Spread | None:
        """What was lost elsewhere."""
        return _spread([(lost(record), record.seed) for record in self.records])


class Ranked(NamedTuple):
    """Where a method stands: its rank, and whether others have the same."""

    rank: int
    tied: bool
    seeds: Audits


def repeated(records: Mapping[Path, Record]) -> dict[Path, Path]:
    """The records that are those of an earlier file, or of a run that was done again, each with that file."""
    first: dict[str, Path] = {}
    places = {path: first.setdefault(_content(record), path) for path, record in records.items()}
    return {path: place for path, place in places.items() if place != path}


def _content(record: Record) -> str:
    """What a run that is done again gives again, and what decided it."""
    return repr((record.comparable(), sorted(record.provenance.identity.items())))


def methods(records: Sequence[Record]) -> list[Audits]:
    """The audits by method and by all else that seeds share, in the order of the records; no two have one name.

    A tuned method is one, whatever was chosen. An audit that is given twice is one seed; two audits with the same seeds
    are no two seeds.
    """
    groups: dict[Alike, list[tuple[int, Record]]] = {}
    first: dict[str, int] = {}
    runs = Counter[tuple[Alike, str]]()
    for number, record in enumerate(records, 1):
        if first.setdefault(_content(record), number) != number:
            continue
        alike = _alike(record)
        seeds = alike, repr((record.seed, sorted(record.seeds.items())))
        runs[seeds] += 1
        groups.setdefault(alike._replace(run=str(runs[seeds])), []).append((number, record))
    plain = [_plain_name([record for _, record in members]) for members in groups.values()]
    names = _told_apart(plain, list(groups), Alike._fields)
    return [
        Audits(name, alike.scenario, alike, [number for number, _ in members], [record for _, record in members])
        for name, (alike, members) in zip(names, groups.items(), strict=True)
    ]


def _alike(record: Record) -> Alike:
    """What the record's seeds share; the first run of them."""
    own = record.provenance
    identity = own.identity
    given = "checkpoints" in identity or record.method == "not stated"
    return Alike(
        scenario=record.scenario,
        request=identity.get("data") or own.fingerprint,
        basis=record.verdict.basis,
        rate=identity.get("rate", ""),
        case=identity.get("scenario", ""),
        attacks=identity.get("attacks", ""),
        holdout=own.fingerprint,
        tuning=f"{identity.get('tuning', record.tuning is not None)} {identity.get('tuned against', '')}",
        weights=own.weights.get("unlearned", "") if given else "",
        version=identity.get("checkpoints") or identity.get("method", record.method),
        run="",
    )


def _plain_name(records: Sequence[Record]) -> str:
    """A method's line; of a tuned one, and where several lines were chosen the method alone, with how it was tuned."""
    names = list(dict.fromkeys(record.method for record in records))
    name, tuning = names[0] if len(names) == 1 else names[0].split(":")[0], records[0].tuning
    if tuning is None and records[0].provenance.identity.get("tuning") != "True":
        return name
    if tuning is None or tuning.most_kl is None:
        return f"{name} (tuned)"
    by_loss = " by loss" if tuning.measure == "loss" else ""
    return f"{name} (tuned against {tuning.against}{by_loss}, {tuning.most_kl:g} nats)"


def _told_apart(names: Sequence[str], groups: Sequence[Alike], parts: Sequence[str]) -> list[str]:
    """The names; those that are the same on one scenario with the first part that differs, and the next, and so on."""
    for part in parts[1:]:
        pairs = list(zip(names, groups, strict=True))
        names = [_with(part, name, alike, pairs) for name, alike in pairs]
    return list(names)


def _with(part: str, name: str, alike: Alike, pairs: Sequence[tuple[str, Alike]]) -> str:
    """A name with one part, where others of that name differ in it; the parts of a case are numbered over all names."""
    here = [(other, beside) for other, beside in pairs if beside.scenario == alike.scenario]
    same = dict.fromkeys(getattr(beside, part) for other, beside in here if other == name)
    if len(same) == 1:
        return name
    values = dict.fromkeys(getattr(beside, part) for _, beside in here) if part in CASE else same
    return f"{name}, {_in_words(part, getattr(alike, part), list(values))}"


def _in_words(part: str, value: str, values: Sequence[str]) -> str:
    """One part in words: by its number among the `values` that there are, where it says nothing to people."""
    match part:
        case "basis":
            return BASES[value]
        case "rate":
            return f"rate {value or 'by default'}"
        case "weights":
            return f"weights {value[:8]}"
    return f"{part} {1 + values.index(value)}"


def cases(groups: Sequence[Audits]) -> dict[str, list[Audits]]:
    """The methods that can be ranked against each other, by a name for people: those on one case."""
    shared = list(dict.fromkeys(_case(group) for group in groups))
    names = dict(zip(shared, _told_apart([case.scenario for case in shared], shared, CASE), strict=True))
    together: dict[str, list[Audits]] = {}
    for group in groups:
        together.setdefault(names[_case(group)], []).append(group)
    return together


def _case(group: Audits) -> Alike:
    """What a group shares with all that it can be ranked against."""
    return Alike(*(value if part in CASE else "" for part, value in group.alike._asdict().items()))


def answered(seeds: Audits, which: int | None) -> list[str]:
    """What each seed answers to one of the three questions; None: whether a request can harm others."""
    several = (harmful(record) if which is None else answers(record)[which : which + 1] for record in seeds.records)
    return [answer.word for of_seed in several for answer in of_seed]


def ranking(groups: Sequence[Audits]) -> list[Ranked]:
    """Methods of one scenario: by their worst verdict, then by what is left, then by what was lost, at worst."""
    keys = [(BEST_FIRST.index(g.label), *_rounded(g.left), *_rounded(g.lost)) for g in groups]
    ordered = sorted(zip(keys, groups, strict=True), key=lambda pair: pair[0])
    return [Ranked(1 + sum(other < key for other in keys), keys.count(key) > 1, group) for key, group in ordered]


def _rounded(spread: Spread | None) -> tuple[bool, int]:
    """What two shares are compared by; one that is unknown comes last."""
    return (True, 0) if spread is None else (False, round(100 * max(spread.high, 0.0) / STEP))


def left(record: Record) -> float | None:
    """The largest share of what the original shows of the forgotten that the unlearned model still shows.

    Over rows beside retrained models that could tell the original from them, or over the attacks beside records that
    were never trained on; 1 is the original, 0 a model that never saw them.
    """
    if unchanged(record):
        return 1.0
    if record.verdict.basis == "never trained" and record.never_trained is not None:
        shares = [test.rho for test in record.never_trained.attacks if test.rho_low is not None]
        return max(present(shares), default=None)
    open_rows = ("not judged", "inconclusive")
    rows = [m for m in record.measurements if m.verdict not in open_rows and m.leak is not None and gap(m) > m.margin]
    return max(present(excess(m, m.unlearned) / gap(m) for m in rows), default=None)


def lost(record: Record) -> float | None:
    """The largest loss of accuracy, or of utility: against the original, and no more than against retrained models.

    What the original had no more of was not lost, however much better retrained models are.
    """
    if record.verdict.basis == "never trained" and record.never_trained is not None:
        losses = [minus(0.0, damage.difference.value) for damage in record.never_trained.damage]
    else:
        rows = [m for m in record.measurements if m.verdict != "not judged" and family(m) == "still useful"]
        both = [present(minus(best, m.unlearned.value) for best in (m.reference, m.original.value)) for m in rows]
        losses = [min(against, default=None) for against in both]
    return max(present(losses), default=None)


def over_seeds(seeds: Audits, name: str) -> Spread | None:
    """A measurement over the seeds of a method; its worst is on the side where the forgotten shows, or use is lost."""
    rows = [(m, record.seed) for record in seeds.records if (m := record.measurement(name)) is not None]
    if not rows:
        return None
    first = rows[0][0]
    lowest = first.leak == "below" or (first.leak is None and first.group == "utility")
    sided = first.leak is not None or first.group == "utility"
    spread = _spread([(m.unlearned.value, seed) for m, seed in rows], lowest=lowest)
    return spread if spread is None or sided else spread._replace(worst=None, seed=None)


def _spread(values: Sequence[tuple[float | None, int]], *, lowest: bool = False) -> Spread | None:
    """The values and seeds as one; None where there is no value. `lowest`: whether the lowest is the worst."""
    pairs = [(value, seed) for value, seed in values if finite(value) is not None and value is not None]
    if not pairs:
        return None
    worst, seed = (min if lowest else max)(pairs, key=lambda pair: pair[0])
    numbers = [value for value, _ in pairs]
    return Spread(sum(numbers) / len(numbers), min(numbers), max(numbers), worst, seed)


def percent_from_0(share: float) -> str:
    """A share in whole points; less than nothing is nothing."""
    return numbers.percent(max(share, 0.0))


def percent_over_seeds(spread: Spread | None) -> str:
    """A share over seeds in whole points: the mean, and the lowest and the highest; `unknown` where there is none."""
    if spread is None:
        return "unknown"
    if spread.low == spread.high:
        return percent_from_0(spread.mean)
    return f"{percent_from_0(spread.mean)} ({percent_from_0(spread.low)} to {percent_from_0(spread.high)})"


def lines(records: Sequence[Record]) -> Iterator[str]:
    """What the terminal says of several audits: each method's seeds together, then the methods in order."""
    groups = methods(records)
    for group in groups:
        if len(group.records) > 1:
            seeds = f"{group.name} on {group.scenario}, {len(group.records)} seeds"
            yield f"{seeds}: at worst {group.label}; {_both(group)}"
    for case, members in cases(groups).items():
        places = ranking(members)
        if len(places) > 1:
            yield f"in order on {case}, the best first: by verdict, then by what is left, then by what was lost"
            for place in places:
                mark = "=" if place.tied else "."
                yield f"  {place.rank}{mark} {place.seeds.name}: {place.seeds.label}; {_both(place.seeds)}"
    yield from tries(records)


def tries(records: Sequence[Record]) -> Iterator[str]:
    """What the best of several models is worth that were judged beside the same records, which were never trained on.

    One sentence for each such request; none where each holdout judged one model. Each bound has 95 % confidence, so
    that of all n of them (Bonferroni) 100 - 5 n.
    """
    for models in beside_same_holdout(records):
        count = len(models)
        if count == 1:
            continue
        confidence = f"with {100 - 5 * count} % confidence" if count < 20 else "with no confidence"
        yield (
            f"{count} models were judged beside the same holdout: each verdict holds for a model that was "
            "chosen before it was tested. "
            f"A bound on what is left, given with 95 % confidence, holds for the best of {count} {confidence}, and "
            "a model that still knows the forgotten passes one of several tests more easily. Judge the one that you "
            "keep beside other records that were never trained on."
        )


def beside_same_holdout(records: Sequence[Record]) -> list[set[str]]:
    """The models, by sha256, that were tested beside the same records, which were never trained on, in sets.

    Data are the same by what was audited, or by the request as it was before tuning took a part of its holdout.
    """
    groups: list[tuple[set[str], set[str]]] = []
    for record in records:
        tested, own = record.never_trained, record.provenance
        if record.verdict.basis != "never trained" or tested is None or not tested.attacks:
            continue
        data = {own.fingerprint, own.identity.get("data", own.fingerprint)}
        models = {own.weights.get("unlearned", "")}
        for group in [group for group in groups if group[0] & data]:
            groups.remove(group)
            data, models = data | group[0], models | group[1]
        groups.append((data, models))
    return [models for _, models in groups]


def _both(group: Audits) -> str:
    """What is left and what was lost, in words; the worst of several seeds by its number."""
    worst = "" if group.left is None or len(group.records) == 1 else f", worst seed {group.left.seed}"
    still_there, lost_elsewhere = percent_over_seeds(group.left), percent_over_seeds(group.lost)
    return f"left of the forgotten {still_there}{worst}; lost elsewhere {lost_elsewhere}"
