"""What a request refuses: sets that can't be read, names and places that don't fit, examples that change."""

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias, get_args
from unicodedata import normalize

from torch.utils.data import DataLoader, IterableDataset, Subset

from unrecall.data.digests import NumberForm, is_finite, not_finite
from unrecall.data.examples import Examples, check_indices, iterate, plain
from unrecall.data.kinds import Kind
from unrecall.errors import BadInput

Forms: TypeAlias = dict[tuple[str, int], dict[NumberForm, str]]
"""The forms of a set's numbers, by their place in an example and the dimensions they span; where each is found."""
REPEATED = 0.1
"""The share of a holdout that may be repeats, or one: by chance a few are, and many make it look larger than it is."""


def listed(values: Any) -> list[Any] | None:
    """Values as Python's own in a list, however they are given: as an array or a tensor, or to be read once.

    None where they have no order.
    """
    values = plain(values)
    if isinstance(values, str | Mapping | Set) or not isinstance(values, Iterable):
        return None
    return [plain(value) for value in values]


def masked_classes(kind: str, masked: Any) -> tuple[int, ...]:
    """The classes that are forgotten whole; BadInput unless they are numbers, and there for kind='class' alone."""
    labels = listed(masked)
    if labels is None or not all(type(label) is int for label in labels):
        raise BadInput(
            f"Request: expected masked to hold the classes that are forgotten whole, got {masked!r}. Give whole "
            "numbers in a tuple, as (3,), or leave it out."
        )
    if kind not in get_args(Kind):
        raise BadInput(
            f"Request: expected kind to be one of {', '.join(get_args(Kind))}, got kind='{kind}'. Leave it out for "
            "single records, and say whose they are by groups."
        )
    if (kind == "class") != bool(labels):
        raise BadInput(
            f"Request: expected masked to name the forgotten classes for kind='class' and for no other, got "
            f"kind='{kind}' and masked={tuple(labels)}. Give both, as kind='class', masked=(3,), or neither."
        )
    return tuple(labels)


def owners(given: Any, counts: Mapping[str, int]) -> dict[str, list[str]] | None:
    """Whose each example of both arms is; BadInput unless each is somebody's, and nobody is in both.

    `given`: the names by split, or None. `counts`: how many examples each arm has.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise BadInput(
            f"Request: expected groups by split, got {type(given).__name__}. Say whose each example is: "
            'groups={"forget": ["Ann", ...], "holdout": ["Bob", ...]}.'
        )
    groups = {arm: listed(given.get(arm)) or [] for arm in counts}
    for arm, names in groups.items():
        count = counts[arm]
        if len(names) != count or not all(isinstance(name, str) for name in names):
            raise BadInput(
                f"Request: expected groups to name whose each of {count} {arm} examples is, got {len(names)} names. "
                "Give one text an example, for forget and for holdout."
            )
    spelt: dict[str, str] = {}
    for name in (*groups["forget"], *groups["holdout"]):
        if (other := spelt.setdefault(normalize("NFC", name.strip()), name)) != name:
            raise BadInput(
                f"Request: expected one spelling of each name in groups, got {other!r} and {name!r}. Take one of them."
            )
    if both := sorted(set(groups["forget"]) & set(groups["holdout"])):
        raise BadInput(
            f"Request: expected nobody in forget and in holdout, got '{both[0]}' in both. Take these examples out of "
            "holdout: they are no example of somebody who was never trained on."
        )
    return groups


def check_forms(forms: Mapping[str, Forms]) -> None:
    """BadInput where two sets have no form of a number, or of an array, in common: the same one looks like another."""
    for own, others in combinations(forms.values(), 2):
        for place in (place for place in own if place in others):
            if own[place].keys().isdisjoint(others[place]):
                (form, where), (other, there) = (next(iter(part[place].items())) for part in (own, others))
                raise BadInput(
                    f"Request: expected numbers in one form in all sets, got {form} in {where} and {other} in {there}. "
                    "Bring them into one form, or an example that is in both sets goes unnoticed."
                )


def refuse_not_finite(name: str, examples: Examples) -> None:
    """BadInput for the first example of a set that holds NaN or infinity: such look alike, and are no duplicates."""
    for i, item in enumerate(iterate(examples)):
        if not is_finite(item):
            raise not_finite(f"{name}[{i}]")


def check_repeats(holdout: Examples, digests: Sequence[str], names: Sequence[str] | None) -> None:
    """BadInput where more than a few examples of holdout are there several times; with `names`, under several names."""
    units = set(digests) if names is None else set(zip(digests, names, strict=True))
    repeats = len(digests if names is None else units) - len(set(digests))
    if repeats > max(1, REPEATED * len(digests)):
        refuse_not_finite("holdout", holdout)
        whose = "" if names is None else ", each one person's"
        raise BadInput(
            f"Request: expected a holdout of different examples{whose}, got {repeats} of {len(digests)} that are there "
            "already. Keep each once: the same example again says nothing new."
        )


def wordings(given: Any, control: str, counts: Mapping[str, int], grouped: bool) -> list[int] | None:
    """Where in holdout the other wording of each forget example is; BadInput unless each place is named once.

    `given`: these places, or None. `counts`: how many examples each arm has. `grouped`: whether it is told whose.
    """
    if (control == "planted") != (given is not None):
        raise BadInput(
            "Request: expected pairs with control='planted' and with no other, got one without the other. Give the "
            "place in holdout of each forget example's other wording, as check_manifest does."
        )
    if given is None:
        return None
    places, count = listed(given) or [], counts["forget"]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(count)):
        raise BadInput(
            f"Request: expected pairs to name each of {count} holdout places once, got others. Give the place of each "
            "forget example's other wording."
        )
    if counts["holdout"] != count or grouped:
        raise BadInput(
            f"Request: expected a planted holdout of {count} other wordings and no groups, got "
            f"{counts['holdout']} examples. Leave the others, and groups, out."
        )
    return places


def check_set(owner: str, name: str, examples: Any) -> None:
    """BadInput unless `examples` can be counted and read by index, example by example."""
    kind, advice = type(examples).__name__, ""
    if examples is None:
        advice = "Give at least one example."
        if name in ("holdout", "test"):
            advice = f'Where there are none, leave it out, or say why: {name}=ur.Absent("...").'
    elif isinstance(examples, DataLoader):
        advice = (
            f"Give the data set, not its loader: {name}=loader.dataset. Where a sampler picks some of it, give "
            "torch.utils.data.Subset(loader.dataset, indices)."
        )
    elif isinstance(examples, str | Path):
        advice = "Give the examples, not where they lie."
    elif isinstance(examples, Mapping):
        advice = f"Give a list of examples, or one set of several: {name}=data[...]."
    elif isinstance(examples, IterableDataset) or not (
        hasattr(examples, "__len__") and hasattr(examples, "__getitem__")
    ):
        advice = f"Read them into a list, which holds all of them in memory: {name}=list(data)."
    if advice:
        raise BadInput(f"{owner}: expected {name} to be a data set with len() and [i], got {kind}. {advice}")
    while isinstance(examples, Subset):
        check_indices(f"{name}: Subset", examples.indices)
        examples = examples.dataset


def check_same(before: str, now: str, where: str) -> None:
    """BadInput where an example has another digest than before."""
    if before != now:
        name = where.partition("[")[0]
        raise BadInput(
            f"Request: expected {where} to be the same whenever it is read, got two different contents, as random "
            "augmentation gives, or an attribute that is filled in on first reading. Give the data without "
            f"augmentation, or freeze them: {name}=[data[i] for i in range(len(data))]; let the class of an example "
            "leave such attributes out in __getstate__."
        )
