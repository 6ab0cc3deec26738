"""A request: the examples that must go, and those that they are compared with; nothing here knows a modality."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import torch

from unrecall.data.digests import digest, is_finite, not_finite, number_forms
from unrecall.data.examples import Absent, Examples, Selection, evenly, split_off
from unrecall.data.identity import CONTENT, Identities, by_content, identities, made_key
from unrecall.data.kinds import Kind
from unrecall.data.request_checks import (
    Forms,
    check_forms,
    check_repeats,
    check_same,
    check_set,
    masked_classes,
    owners,
    refuse_not_finite,
    wordings,
)
from unrecall.data.sizes import FEWEST_TO_TUNE_ON, OTHERS
from unrecall.errors import BadInput, MissingReference

Control: TypeAlias = Literal["planted", "random split", "matched", "synthetic"]
"""How a holdout came to be."""
Split: TypeAlias = Literal["forget", "retain", "holdout", "test"]
SPLITS: tuple[Split, ...] = ("forget", "retain", "holdout", "test")
TRAINING: tuple[Split, ...] = ("forget", "retain")
"""The sets that the original was trained on, in the order in which a training example's place is counted."""
MOST_CHECKED = 10_000
"""Examples of a set that are read to be checked, where the data set itself tells which of them are the same."""
READ_TWICE = 16
"""Examples of a set, evenly spread, that are read twice at once, to see whether each is what it was."""
SAMPLED: tuple[Split, ...] = ("retain", "test")
"""The splits that may be large, and of which a sample tells as much."""
APART = {
    "forget": ("retain", "holdout", "test", "validation"),
    "retain": ("holdout", "test", "validation"),
    "validation": ("holdout", "test"),
    "holdout": ("test",),
}
"""Which sets may share no example."""
EMPTY: dict[Split, str] = {
    "forget": "Name at least one example to forget.",
    "retain": "A request to forget everything needs no unlearning: delete the model.",
    "holdout": "Privacy is judged against examples like the forgotten ones that were never trained on.",
    "test": "Use is judged on examples that were never trained on.",
}
"""What to do where a set is empty."""
NO_HOLDOUT = Absent("no holdout was given, so nothing says whether somebody can tell that forget was trained on")
NO_TEST = Absent("no test set was given, so nothing says what else is lost on examples that nobody trained on")
NO_VALIDATION = Absent("a class is tuned on forget alone")


@dataclass(frozen=True)
class Request:
    """What must go, and what it is compared with.

    `forget` was trained on and must go; `retain` was trained on and stays; `holdout` comes from the distribution of
    `forget` and was never trained on (without it no privacy number means anything); `test` was never trained on and
    measures use. `validation` is like `holdout` and serves tuning alone: the audit never sees it.

    `holdout` and `test` may be left out, or be `Absent(reason)`: what needs them is then a row with that reason.

    `kind`: what must go.
        samples: single examples; a retrained model may still know what such examples look like.
        class, concept: everything of one kind; a retrained model has never met it.
        backdoor: a trigger; holdout, and the triggered examples of forget, carry it and the label that the attacker
            wishes.
    `masked`: the numbers of the classes that are forgotten whole; empty for samples.

    `groups`: whose each example of forget and of holdout is, by split, where people have several. `control`: how the
    holdout came to be: coins ("planted"), a random split before training, from elsewhere ("matched"), or synthetic.
    `pairs`: with coins, the place in holdout of each forget example's other wording.

    BadInput where a set is empty, or has an example twice or another's.
    """

    forget: Examples
    retain: Examples
    holdout: Examples = NO_HOLDOUT
    test: Examples = NO_TEST
    validation: Examples | None = None
    kind: Kind = "samples"
    masked: tuple[int, ...] = ()
    groups: Mapping[str, Sequence[str]] | None = None
    control: Control = "matched"
    pairs: Sequence[int] | None = None
    checked: set[str] = field(default_factory=set, init=False, compare=False, repr=False)
    """What a task has already looked for in these data, so that it reads them once and not once a model."""
    _by_id: Mapping[int, Identities] = field(default_factory=dict, init=False, compare=False, repr=False)
    """The identities of the sets of the request that this one is made of, by the `id` of the set; empty afterwards."""
    _checked_parts: dict[tuple[str, ...], set[str]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What is refused at once: no data sets, too few examples, data that change, examples that two sets share."""
        for name in SPLITS:
            check_set("Request", name, self[name])
        if self.validation is not None:
            check_set("Request", "validation", self.validation)
        for name, hint in EMPTY.items():
            if len(self[name]) == 0 and not (name in ("holdout", "test") and isinstance(self[name], Absent)):
                raise BadInput(f"Request: expected a non-empty {name} set, got 0 examples. {hint}")
        vars(self).update(masked=masked_classes(self.kind, self.masked))
        if self.control not in get_args(Control):
            raise BadInput(
                f"Request: expected control to be one of {', '.join(get_args(Control))}, got '{self.control}'."
            )
        counts = {"forget": len(self.forget), "holdout": len(self.holdout)}
        groups = owners(self.groups, counts)
        vars(self).update(groups=groups, pairs=wordings(self.pairs, self.control, counts, groups is not None))
        forms = self._check_lasting()
        if not self._by_id:  # of parts of a request nothing is to be said that was right of the whole
            check_forms(forms)
            check_repeats(self.holdout, self.identities["holdout"].values, groups["holdout"] if groups else None)
        self.check_apart({name: own.values for name, own in self.identities.items()})
        vars(self)["_by_id"] = {}  # an id is another's once its object is gone

    def _check_lasting(self) -> dict[str, Forms]:
        """BadInput where an example isn't the same when it is read again; gives the forms of the numbers of each set.

        A few examples of each set are read, of a part of a request two; once where each has been read already.
        """
        forms: dict[str, Forms] = {name: {} for name in self.sets}
        for name, examples in self.sets.items():
            for i in evenly(len(examples), 2 if self._by_id else READ_TWICE):
                item = examples[i]
                before = digest(examples[i]) if self.indexed else self.identities[name].values[i]
                check_same(before, digest(item), f"{name}[{i}]")
                for (place, spanned), form in number_forms(item):
                    forms[name].setdefault((place, spanned), {}).setdefault(form, f"{name}[{i}]{place}")
        return forms

    def check_apart(self, digests: Mapping[str, Sequence[str]]) -> None:
        """BadInput where forget has an example twice, or two sets share one; `digests`: what each of each set is."""
        places = {name: _places(texts) for name, texts in digests.items()}
        for i, key in enumerate(digests["forget"]):
            if places["forget"][key] != i:
                refuse_not_finite("forget", self.forget)
                raise BadInput(
                    f"Request: expected each forget example once, got example {i} equal to {places['forget'][key]}. "
                    "Remove the duplicate."
                )
        for first, second in ((first, second) for first, others in APART.items() for second in others):
            if {first, second} <= places.keys() and (shared := places[first].keys() & places[second].keys()):
                i, j = min((places[first][key], places[second][key]) for key in shared)
                if not is_finite(self.sets[first][i]):
                    raise not_finite(f"{first}[{i}]")
                raise BadInput(
                    f"Request: expected {first} and {second} to share nothing, got {len(shared)} shared examples "
                    f"({first}[{i}] equals {second}[{j}]). Remove them from {second}."
                )

    def __getitem__(self, split: Split) -> Examples:
        return {"forget": self.forget, "retain": self.retain, "holdout": self.holdout, "test": self.test}[split]

    @property
    def sets(self) -> dict[str, Examples]:
        """Every set by its name, validation too where there is one."""
        own: dict[str, Examples] = {name: self[name] for name in SPLITS}
        return own if self.validation is None else {**own, "validation": self.validation}

    @cached_property
    def identities(self) -> dict[str, Identities]:
        """What each example of each set is: as all data sets tell it in one form, else by content, each one read."""
        by_set = {name: identities(examples, self._by_id) for name, examples in self.sets.items() if len(examples)}
        forms = {"" if own is None else own.form for own in by_set.values()}
        if "" in forms or len(forms) > 1:
            by_set = {
                name: own if own is not None and own.form == CONTENT else by_content(self.sets[name])
                for name, own in by_set.items()
            }
        return {name: by_set.get(name) or Identities(CONTENT, []) for name in self.sets}

    def to_check(self, name: str) -> Iterator[tuple[int, Any]]:
        """The examples of a set that a task checks, with their indices: all of them.

        Of data sets that tell what their examples are, 10,000 at most, evenly spread: a bad one among the rest fails
        when it is read. Forget and retain of a class request are always read whole, for a sample could miss a class.
        """
        examples = self.sets[name]
        sampled = self.indexed and not (self.kind == "class" and name in ("forget", "retain"))
        places = evenly(len(examples), MOST_CHECKED) if sampled else range(len(examples))
        return ((i, examples[i]) for i in places)

    @property
    def indexed(self) -> bool:
        """Whether the data sets tell which of their examples are the same, so that nobody reads all of them for it."""
        return self.identities["forget"].form != CONTENT

    @cached_property
    def digests(self) -> dict[Split, list[str]]:
        """A text for each example of each split that says what it is: sha256 of its content, or see `identities`."""
        return {name: self.identities[name].values for name in SPLITS}

    @property
    def group_names(self) -> list[str] | None:
        """Whose each example is, of forget and then of holdout; None where that wasn't said."""
        return None if self.groups is None else [*self.groups["forget"], *self.groups["holdout"]]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what is asked and all examples of all splits, in order; the same anywhere."""
        text = f"{self.kind}{self.masked}|" + "|".join(f"{name}:{','.join(self.digests[name])}" for name in SPLITS)
        text += "".join(f"|made:{made_key(self[name])}" for name in SPLITS) if self.indexed else ""
        text += "" if self.groups is None else f"|groups:{self.group_names!r}"
        text += "" if self.pairs is None else f"|pairs:{list(self.pairs)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def with_validation(self) -> "Request":
        """This request with examples for tuning: its own, or half of the holdout, drawn at random and taken out of it.

        The draw is the same each time. Where the holdout has fewer than 4, or too few others to compare one person
        with, it is of the test set; of the holdout only as many persons as leave 19 for the audit of one. None for a
        class, as forget alone is looked at. MissingReference where neither has 4, or all of a holdout is one person's.
        """
        if self.validation is not None and (len(self.validation) or self.kind == "class"):
            return self
        if self.kind == "class":
            return self.with_own(validation=NO_VALIDATION)
        n, unseen, spare = len(self.holdout), len(self.test), self._spare_persons()
        if (n < FEWEST_TO_TUNE_ON or spare == 0) and unseen >= FEWEST_TO_TUNE_ON:
            drawn = _half(range(unseen))
            validation, test = (
                Selection(self.test, [i for i in range(unseen) if (i in drawn) is first]) for first in (True, False)
            )
            return self.with_own(validation=validation, test=test)
        if n < FEWEST_TO_TUNE_ON:
            raise MissingReference(
                f"tune: expected a validation set or at least {FEWEST_TO_TUNE_ON} holdout examples, got {n}. Add "
                "examples like forget that were never trained on, or don't tune (--no-tune)."
            )
        whole, names = self.holdout, list(map(str, range(n))) if self.groups is None else [*self.groups["holdout"]]
        if self.groups is not None and len({*names}) < 2:
            raise MissingReference(
                "tune: expected a holdout of at least 2 persons, one of whom serves tuning, got 1. Add others, or "
                "don't tune (--no-tune)."
            )
        tuned_on = _half(list(dict.fromkeys(names)), spare or None)
        tuning, audited = ([i for i in range(n) if (names[i] in tuned_on) is first] for first in (True, False))
        groups = self.groups and {**self.groups, "holdout": [names[i] for i in audited]}
        return self.with_own(validation=Selection(whole, tuning), holdout=Selection(whole, audited), groups=groups)

    def _spare_persons(self) -> int | None:
        """How many of holdout's persons an audit of one person can do without; None where it isn't of one person."""
        if self.groups is None or len(set(self.groups["forget"])) != 1:
            return None
        return max(0, len(set(self.groups["holdout"])) - OTHERS)

    def unseen(self, digests: Collection[str]) -> "Request":
        """This request without those examples of holdout and of the test set, by sha256, that somebody has tuned on."""
        splits: tuple[Split, ...] = ("holdout", "test")
        contents = {name: by_content(self[name]).values if self.indexed else self.digests[name] for name in splits}
        places = {name: [i for i, key in enumerate(keys) if key not in digests] for name, keys in contents.items()}
        parts = {name: Selection(self[name], own) for name, own in places.items() if len(own) < len(self[name])}
        if "holdout" not in parts:
            return self.with_own(**parts) if parts else self
        groups = self.groups and {**self.groups, "holdout": [self.groups["holdout"][i] for i in places["holdout"]]}
        return self.with_own(**parts, groups=groups)

    def only(self, *names: str) -> "Request":
        """This request without the sets that aren't named, for those who may not read them."""
        part = copy(self)  # what was compared when this request was made needn't be again
        for name in {*SPLITS, "validation"} - {*names}:
            hidden = None if name == "validation" else Absent("not to be read here")
            vars(part)[name] = hidden
        own = {name: whole if name in names else whole.part([]) for name, whole in self.identities.items()}
        part._become(identities=own, checked=self._checked_parts.setdefault(names, set()))
        part.checked.update(self.checked)
        return part

    def sampled(self, most: int | None) -> "Request":
        """This request with at most `most` examples of retain and of the test set, drawn at random; all for None.

        The draw is the same each time. Nothing is checked anew, and whose the others are stays as it is.
        """
        if most is None or all(len(self[name]) <= most for name in SAMPLED):
            return self
        changes: dict[str, Selection] = {}
        own = dict(self.identities)
        for name in SAMPLED:
            if len(self[name]) > most:
                drawn, _ = split_off(self[name], most, torch.Generator().manual_seed(0))
                changes[name] = Selection(self[name], sorted(drawn.indices))
                own[name] = own[name].part(changes[name].indices)
        part = copy(self)
        part._become(**changes, identities=own)
        return part

    def with_own(self, **changes: Any) -> "Request":
        """This request with its own examples in other sets; what a task has looked for in them it needn't again.

        Whose they are must be said anew where forget or holdout changes; nobody's, otherwise.
        """
        if {"forget", "holdout"} & changes.keys():
            control = "random split" if self.control == "planted" else self.control
            changes = {"groups": None, "pairs": None, "control": control, **changes}
        if unknown := changes.keys() - {own.name for own in fields(self) if own.init}:
            raise TypeError(f"Request has no {', '.join(sorted(unknown))}")
        changed, by_id = copy(self), {id(self.sets[name]): own for name, own in self.identities.items()}
        changed._become(**changes, checked={*self.checked}, _checked_parts={}, _by_id=by_id)
        changed.__post_init__()
        return changed

    def _become(self, **values: Any) -> None:
        """Gives a copy of a request values of its own, from which what is cached then follows."""
        for cached in ("identities", "digests", "fingerprint"):
            vars(self).pop(cached, None)
        vars(self).update(values)


def _half(of: Sequence[Any], most: int | None = None) -> set[Any]:
    """Half of what there is, rounded up, or `most` where that is less; drawn the same each time."""
    order = torch.randperm(len(of), generator=torch.Generator().manual_seed(0)).tolist()
    return {of[i] for i in order[: (len(of) + 1) // 2][:most]}


def _places(digests: Sequence[str]) -> dict[str, int]:
    """Where each digest stands first."""
    return {key: i for i, key in reversed(list(enumerate(digests)))}
