"""A scenario: a model, its data, a request, and how to train what the unlearned model is held against."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from unrecall.data.examples import Examples, Joined, Selection, iterate, move
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.disk.cache import Cache, Form, code_key, shared
from unrecall.disk.files import content_key, read_text
from unrecall.disk.weights import same_weights
from unrecall.errors import NOTHING, BadInput, Fields, MissingReference, check_fields, kind_of, visible
from unrecall.evidence.setting import answers_digest, first_answers_digest, first_two, inputs_digest, model_key
from unrecall.models.observe import device_of
from unrecall.nn.usable import check_model
from unrecall.record.schema import Cost
from unrecall.spec.parameters import Parameters, takes
from unrecall.tasks.base import Task, check_data
from unrecall.training.cost import metered
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.objectives import Course, Objective, Plain, Start
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session

T = TypeVar("T")
FIRST_REFERENCE_SEED = 10_001
DIGITS = 18
"""The longest number that is read as an index or a class."""


class Trained(NamedTuple):
    """A model and what training it took; None where it was given."""

    model: nn.Module
    cost: Cost | None


def _is_name(value: object) -> bool:
    """Whether a text can be the start of a file's name, wherever it is made."""
    if not isinstance(value, str) or value != value.strip() or visible(value) != value or value.startswith("."):
        return False
    return 0 < len(value.encode()) <= 100 and not set(value) & set('/\\:*?"<>|\n\t')


def _are_values(reported: object) -> bool:
    """Whether a paper's values are numbers, by method and measurement."""
    tables = reported.values() if isinstance(reported, Mapping) else [reported]
    return all(isinstance(table, Mapping) and all(map(kind_of(int, float), table.values())) for table in tables)


FIELDS: Fields = {
    "name": (_is_name, 'a name of at most 100 bytes without / \\ : * ? " < > | that starts with no dot'),
    "summary": (kind_of(str), "a text"),
    "task": (kind_of(Task), "a Task, as ur.tasks.Classification() is"),
    "request": (kind_of(Request), "a Request"),
    "build": (lambda value: value is None or takes(value, 2), "a function of seed and session, or None"),
    "recipe": (kind_of(Fit, NOTHING), "a Fit or None"),
    "rerecipe": (kind_of(Fit, NOTHING), "a Fit or None"),
    "objective": (kind_of(Objective), "an Objective, as unrecall.training.objectives.ULE() is"),
    "original": (kind_of(nn.Module, NOTHING), "an nn.Module or None"),
    "retrained": (
        lambda value: isinstance(value, tuple) and all(map(kind_of(nn.Module), value)),
        "a tuple of nn.Modules",
    ),
    "references": (lambda value: type(value) is int and value >= 0, "a whole number from 0 on"),
    "precision": (
        lambda value: value in (None, "float32", "float16", "bfloat16"),
        "float32, float16, bfloat16 or None",
    ),
    "reported": (_are_values, "numbers by method and measurement"),
    "note": (kind_of(str), "a text"),
}
"""What each field of a scenario must be: a test, and how it is said."""


@dataclass(frozen=True)
class Scenario:
    """Everything an experiment needs to know about somebody's case.

    `build(seed, session)`: a model ready to be trained, fresh or pretrained; `recipe`: how the original is trained from
    it on forget and retain together; `rerecipe`: how retrained models are, where that differs. `objective`: what both
    are trained to minimise. `original` and `retrained`: the user's own models, used as they are. `references`: how many
    retrained models to train by default.
    `precision`: the number format that the unlearned model is rounded to, before it is audited, and written in; None
    leaves it as the original is. `reported`: a paper's values, by method and measurement. `note`: what whoever runs it
    should know before; it stands in no record.
    """

    name: str
    summary: str
    task: Task
    request: Request
    build: Callable[[int, Session], nn.Module] | None = None
    recipe: Fit | None = None
    rerecipe: Fit | None = None
    objective: Objective = Plain()
    original: nn.Module | None = None
    retrained: tuple[nn.Module, ...] = ()
    references: int = 5
    precision: str | None = None
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""
    keys: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `start_key` gave, by seed."""

    def __post_init__(self) -> None:
        """Fields of a wrong type, and a name that can't be part of a file's, are refused; the task is settled."""
        if isinstance(self.retrained, list):
            object.__setattr__(self, "retrained", tuple(self.retrained))
        check_fields("Scenario", FIELDS, vars(self))
        object.__setattr__(self, "task", self.task.settled(self.original, self.request))

    def start_key(self, seed: int, session: Session) -> str:
        """What decides how data are read, and what the user's own models and the one to be trained compute.

        BadInput where they don't fit the data.
        """
        if seed not in self.keys:
            models = [model for model in (self.original, *self.retrained) if model is not None]
            if self.build is not None:
                models.append(self.built(seed, session))
            model_keys = [self._key_of(model, session) for model in models]
            self.keys[seed] = content_key(*model_keys, inputs_digest(self.task, first_two(self.request)))
        return self.keys[seed]

    def _key_of(self, model: nn.Module, session: Session) -> str:
        """What decides what a model computes, once it fits the data; the model is where it was afterwards."""
        check_model(model)
        home = device_of(model)
        try:
            check_data(self.task, model.to(session.torch_device()), self.request)
            return f"{model_key(model)} {first_answers_digest(model, self.task, self.request)}"
        finally:
            model.to(home)

    def built(self, seed: int, session: Session) -> nn.Module:
        """A fresh model; `build` may give the same object each time, but not the original, which has seen forget."""
        if self.build is None:
            raise BadInput(f"{self.name}: expected build to make a model, got None.")
        with own_randomness(seed):
            model = self.build(seed, session)
        if not isinstance(model, nn.Module):
            raise BadInput(
                f"{self.name}: expected build to give a torch.nn.Module, got {type(model).__name__}. Return one."
            )
        check_model(model)
        if self.original is not None and same_weights(model, self.original):
            raise BadInput(
                f"{self.name}: expected build to give a network that was not trained on forget, got the original. Make "
                "it anew in build, as it was before it was trained."
            )
        return copy.deepcopy(model)

    def train_original(self, seed: int, session: Session) -> Trained:
        """The model before unlearning: the user's own, or one trained on forget and retain and kept in the cache."""
        if self.original is not None:
            return Trained(self.original.to(session.torch_device()).eval(), None)
        if self.build is None or self.recipe is None:
            raise BadInput(f"{self.name}: expected an original model, or build and recipe to train one, got neither.")
        together = Joined((self.request.forget, self.request.retain))
        return self._trained("original", together, self.recipe, seed, session)

    def train_retrained(self, index: int, session: Session) -> Trained:
        """The `index`-th model trained without forget; its seed is its own, so that no run shares it."""
        if index < len(self.retrained):
            return Trained(self.retrained[index].to(session.torch_device()).eval(), None)
        recipe = self.rerecipe or self.recipe
        if self.build is None or recipe is None:
            raise MissingReference(
                f"{self.name}: expected build and recipe to retrain without forget, got neither. "
                "Give them to the Scenario, or pass retrained models."
            )
        return self._trained("retrained", self.request.retain, recipe, FIRST_REFERENCE_SEED + index, session)

    @property
    def retrained_count(self) -> int:
        """How many retrained models an audit gets: the user's own, and those that are trained up to `references`."""
        return max(len(self.retrained), self.references if self.can_retrain() else 0)

    def can_retrain(self) -> bool:
        """Whether retrained models can be had beyond those the user gave."""
        return self.build is not None and (self.rerecipe or self.recipe) is not None

    def untrained(self, seeds: Sequence[int], session: Session) -> dict[str, int]:
        """How many originals, one a seed, and retrained models have to be trained, as the cache doesn't hold them."""
        numbers: dict[str, Sequence[int]] = {"original": () if self.original is not None else seeds}
        missing = range(len(self.retrained), self.retrained_count)
        numbers["retrained"] = [FIRST_REFERENCE_SEED + index for index in missing]
        return {role: sum(not self._holds(role, seed, session) for seed in numbers[role]) for role in numbers}

    def _holds(self, role: str, seed: int, session: Session) -> bool:
        """Whether the cache holds the model that was trained with a seed for a role."""
        recipe = self.recipe if role == "original" else self.rerecipe or self.recipe
        if recipe is None:
            return False
        model, setup = (
            self.built(seed, session).to(session.torch_device()),
            self.training_setup(self.request.retain, recipe, seed),
        )
        return shared(on_disk=True).holds(f"{self.name}-{role}", _key(role, model, setup), ".safetensors")

    def _trained(self, role: str, data: Examples, recipe: Fit, seed: int, session: Session) -> Trained:
        model = self.built(seed, session)
        check_data(self.task, model.to(session.torch_device()), self.request)
        return trained_once(self.name, role, model, self.training_setup(data, recipe, seed), session)

    def training_setup(self, data: Examples, recipe: Fit, seed: int) -> "TrainingSetup":
        """What a model of this scenario is taught."""
        key, probe = self.request.fingerprint, first(self.request.retain)
        return TrainingSetup(self.task, data, recipe, seed, key, probe, self.objective)


def cached_model(
    cache: Cache, role: str, key: Sequence[str], form: Form[Trained], make: Callable[[], Trained]
) -> Trained:
    """The model that the cache holds under the key, else what `make` gives, which is then cached.

    One from the cache has no seconds in its cost: those were another run's.
    """
    new_models: list[Trained] = []

    def make_new() -> Trained:
        new_models.append(make())
        return new_models[-1]

    model, cost = cache.get(role, key, form, make_new)
    if cost is not None and not new_models:
        cost = cost.model_copy(update={"seconds": None})
    return Trained(model, cost)


def trained_form(like: nn.Module, session: Session) -> Form[Trained]:
    """A model of the architecture of `like` on disk, with what training it took in the file's header."""

    def write(path: Path, trained: Trained) -> None:
        notes = {} if trained.cost is None else {"cost": trained.cost.model_dump_json()}
        weights.fill(trained.model, path, notes)

    def read(path: Path) -> Trained:
        notes = weights.notes_of(path)
        cost = Cost.model_validate_json(notes["cost"]) if "cost" in notes else None
        return Trained(weights.load(copy.deepcopy(like), path).to(session.torch_device()).eval(), cost)

    return Form(".safetensors", write, read)


class TrainingSetup(NamedTuple):
    """What an untrained model is taught: `data`, by `recipe`, with `seed`.

    `task` and a few examples, the `probe`, show what the untrained model does: its code counts too, and weights don't
    show it.
    `data_key` tells the data from others. `objective`: what is minimised.
    """

    task: Task
    data: Examples
    recipe: Fit
    seed: int
    data_key: str
    probe: Examples
    objective: Objective = Plain()

    def course(self, model: nn.Module) -> Course:
        """What the loop trains, so that `model` learns it."""
        probe = self.task.collate(list(iterate(self.probe)))
        with own_randomness(self.seed):
            return self.objective.course(Start(model, self.task, move(probe, device_of(model))))


def trained_once(name: str, role: str, model: nn.Module, setup: TrainingSetup, session: Session) -> Trained:
    """`model` after that training, in eval mode; from the cache where the same model was taught the same before.

    That is a model of the same role, untrained weights, settings and answers to the probe, with the same task, recipe,
    objective, seed, data and code of the loop.
    """
    task, seed = setup.task, setup.seed
    key = _key(role, model.to(session.torch_device()), setup)

    def train() -> Trained:
        spent = metered(session)
        with spent:
            networks, loss = setup.course(model)
            phase = Phase(loss, {"train": setup.data}, setup.recipe)
            fit(networks, task, phase, seeded(seed), session.named(f"{role}-{seed}", content_key(*key)))
        return Trained(model.eval(), spent.cost)

    trained = cached_model(
        shared(on_disk=True, say=session.say), f"{name}-{role}", key, trained_form(model, session), train
    )
    session.drop_states()
    return trained


def _key(role: str, model: nn.Module, setup: TrainingSetup) -> tuple[str, ...]:
    """What decides a trained model."""
    task = setup.task
    return (
        role,
        model_key(model),
        answers_digest(model, task, setup.probe),
        inputs_digest(task, setup.probe),
        repr(task),
        repr(setup.recipe),
        repr(setup.objective),
        setup.data_key,
        str(setup.seed),
        code_key(fit, task, setup.objective),
    )


def first(examples: Examples, count: int = 4) -> Selection:
    """The first `count` examples, or all where there are fewer."""
    return Selection(examples, range(min(count, len(examples))))


@dataclass(frozen=True)
class Builder(Parameters, ABC):
    """A built-in case with parameters, before its data are read."""

    @abstractmethod
    def make(self) -> Scenario:
        """Reads the data and says how to train."""


def adamw(lr: float, epochs: int, batch_size: int, weight_decay: float = 0.0) -> Fit:
    """AdamW with gradients clipped at 1 and a rate that falls to 0 along a cosine: how texts and pairs are learned."""
    return Fit(
        optimizer="adamw",
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        clip=1.0,
        schedule="cosine",
    )


def read_indices(path: Path, total: int) -> list[int]:
    """Indices from a text file, one a line; BadInput names the line of one that is no number, repeated or too large."""
    lines: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.isdecimal() or len(text) > DIGITS:
            raise BadInput(f"{path}:{number}: expected an index, got '{text[:DIGITS]}'.")
        if int(text) >= total:
            raise BadInput(f"{path}:{number}: expected an index in 0..{total - 1}, got {text}.")
        if int(text) in lines:
            raise BadInput(f"{path}:{number}: expected each index once, got {text} again (line {lines[int(text)]}).")
        lines[int(text)] = number
    return list(lines)


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """The items in a random order that the seed decides."""
    order = torch.randperm(len(items), generator=seeded(seed))
    return [items[int(i)] for i in order]


class Chosen(NamedTuple):
    """Which training examples are forgotten, of which classes, and which classes are forgotten whole.

    `at_random`: whether they were drawn, and not chosen by somebody.
    """

    indices: list[int]
    classes: set[int]
    masked: tuple[int, ...]
    at_random: bool = True

    def request(self, train: Examples, alike: Examples, test: Examples, holdout: int) -> Request:
        """The request: `alike` (unseen, of the same classes) gives up to `holdout` examples, and half as many again
        for validation."""
        forgotten, n = set(self.indices), len(alike)
        size = min(holdout, 2 * n // 3)
        return Request(
            forget=Selection(train, self.indices),
            retain=Selection(train, [i for i in range(len(train)) if i not in forgotten]),
            holdout=Selection(alike, range(size)),
            validation=Selection(alike, range(size, min(n, size + holdout // 2))),
            test=test,
            kind="class" if self.masked else "samples",
            masked=self.masked,
            control="random split" if self.at_random else "matched",
        )


def choose(forget: str, labels: Sequence[int], seed: int, classes: int) -> Chosen:
    """What "share:P", "half:C", "class:C" or the path of a file of training indices means for these labels."""
    how, _, which = forget.partition(":")
    if how == "share" and which:
        indices = share_of(which, len(labels), seed)
        return Chosen(indices, {labels[i] for i in indices}, ())
    if how not in ("half", "class") or not which:
        indices = read_indices(Path(forget), len(labels))
        return Chosen(indices, {labels[i] for i in indices}, (), at_random=False)
    if not which.isdecimal() or len(which) > DIGITS or int(which) >= classes:
        raise BadInput(f"forget: expected a class in 0..{classes - 1}, got '{which}'.")
    members = shuffled([i for i, y in enumerate(labels) if y == int(which)], seed)
    if how == "half":
        return Chosen(sorted(members[: len(members) // 2]), {int(which)}, ())
    return Chosen(sorted(members), {int(which)}, (int(which),))


def share_of(share: str, count: int, seed: int) -> list[int]:
    """A random share, as a user writes it, of so many examples; BadInput unless it is between 0 and 1."""
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 < number < 1:
        raise BadInput(f"forget: expected share:P with P between 0 and 1, got '{share}'.")
    return sorted(shuffled(range(count), seed)[: max(1, round(number * count))])
