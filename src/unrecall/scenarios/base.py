"""A scenario: a model, its data, a request, and how to train what the unlearned model is held against."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Literal, TypeAlias

from torch import nn

from unrecall.data.examples import Examples, Joined
from unrecall.data.identity import key_of
from unrecall.data.request import Request
from unrecall.data.request_checks import check_set
from unrecall.disk.files import content_key
from unrecall.disk.weights import same_weights
from unrecall.errors import BadInput, Fields, MissingReference, at_least, check_fields, kind_of, visible
from unrecall.evidence.model_keys import first_answers_digest, first_two, inputs_digest, model_key
from unrecall.models.observe import device_of
from unrecall.nn.usable import check_model
from unrecall.scenarios.model_cache import Trained, TrainingSetup, first, is_cached, trained_once
from unrecall.spec.parameters import Parameters, takes
from unrecall.tasks.base import Task, check_data, check_learnable
from unrecall.training.loop import Fit
from unrecall.training.objectives import Objective, Plain
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session

Role: TypeAlias = Literal["original", "retrained"]
FIRST_REFERENCE_SEED = 10_001


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
    "recipe": (kind_of(Fit, NoneType), "a Fit or None"),
    "retraining_recipe": (kind_of(Fit, NoneType), "a Fit or None"),
    "objective": (kind_of(Objective), "an Objective, as unrecall.training.objectives.ULE() is"),
    "original": (kind_of(nn.Module, NoneType), "an nn.Module or None"),
    "retrained": (
        lambda value: isinstance(value, tuple) and all(map(kind_of(nn.Module), value)),
        "a tuple of nn.Modules",
    ),
    "references": (at_least(0), "a whole number from 0 on"),
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
    it on forget and retain together, or on `original_data` where it saw something else (histories in which forget
    stands, say); `retraining_recipe`: how retrained models are, where that differs. `objective`: what both are trained
    to minimise. `original` and `retrained`: the user's own models, used as they are. `references`: how many
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
    retraining_recipe: Fit | None = None
    original_data: Examples | None = None
    objective: Objective = Plain()
    original: nn.Module | None = None
    retrained: tuple[nn.Module, ...] = ()
    references: int = 5
    precision: str | None = None
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""
    start_keys: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `start_key` gave, by seed."""

    def __post_init__(self) -> None:
        """Fields of a wrong kind, and a name that can't be part of a file's, are refused; the task is settled."""
        if isinstance(self.retrained, list):
            object.__setattr__(self, "retrained", tuple(self.retrained))
        check_fields("Scenario", FIELDS, vars(self))
        object.__setattr__(self, "references", int(self.references))
        if self.original_data is not None:
            check_set("Scenario", "original_data", self.original_data)
            if not len(self.original_data):
                raise BadInput(
                    "Scenario: expected a non-empty original_data, got 0 examples. Leave it out where the original was "
                    "trained on forget and retain."
                )
        object.__setattr__(self, "task", self.task.settled(self.original, self.request))

    def start_key(self, seed: int, session: Session) -> str:
        """A key of what a run starts from: how examples are read, and what the given and the untrained models compute.

        BadInput where they don't fit the data.
        """
        if seed not in self.start_keys:
            models = [model for model in (self.original, *self.retrained) if model is not None]
            if self.build is not None:
                models.append(self.untrained_model(seed, session))
            model_keys = [self._key_of(model, session) for model in models]
            data_keys = () if self.original_data is None else (key_of(self.original_data),)
            self.start_keys[seed] = content_key(
                *model_keys, inputs_digest(self.task, first_two(self.request)), *data_keys
            )
        return self.start_keys[seed]

    def _key_of(self, model: nn.Module, session: Session) -> str:
        """A key of what a model computes; BadInput where it doesn't fit the data. It ends on the device it was on."""
        check_model(model)
        home = device_of(model)
        try:
            self._check_data(model.to(session.torch_device()))
            return f"{model_key(model)} {first_answers_digest(model, self.task, self.request)}"
        finally:
            model.to(home)

    def _check_data(self, model: nn.Module) -> None:
        """BadInput where a model doesn't fit the request, or the original is to be trained on what it can't learn."""
        check_data(self.task, model, self.request)
        if self.original is None and self.original_data is not None:
            check_learnable("original_data", self.original_data, self.request.forget[0], self.task, model)

    def untrained_model(self, seed: int, session: Session) -> nn.Module:
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
        return self._trained("original", seed, session)

    def train_retrained(self, index: int, session: Session) -> Trained:
        """The `index`-th model trained without forget; its seed is its own, so that no run shares it."""
        if index < len(self.retrained):
            return Trained(self.retrained[index].to(session.torch_device()).eval(), None)
        if not self.can_retrain():
            raise MissingReference(
                f"{self.name}: expected build and recipe to retrain without forget, got neither. "
                "Give them to the Scenario, or pass retrained models."
            )
        return self._trained("retrained", FIRST_REFERENCE_SEED + index, session)

    @property
    def retrained_count(self) -> int:
        """How many retrained models an audit gets: the user's own, and those that are trained up to `references`."""
        return max(len(self.retrained), self.references if self.can_retrain() else 0)

    def can_retrain(self) -> bool:
        """Whether retrained models can be had beyond those the user gave."""
        return self.build is not None and (self.retraining_recipe or self.recipe) is not None

    def models_to_train(self, seeds: Sequence[int], session: Session) -> dict[Role, int]:
        """How many originals, one a seed, and retrained models have to be trained, as the cache doesn't hold them."""
        missing = range(len(self.retrained), self.retrained_count)
        numbers: dict[Role, Sequence[int]] = {
            "original": seeds if self.original is None and self.recipe is not None else (),
            "retrained": [FIRST_REFERENCE_SEED + index for index in missing],
        }
        return {
            role: sum(not is_cached(self.name, *self._training(role, seed, session), session) for seed in numbers[role])
            for role in numbers
        }

    def training_setup(self, role: Role, seed: int) -> TrainingSetup:
        """What a model is taught; BadInput without a recipe."""
        request, recipe = self.request, self.recipe
        if role == "retrained":
            data, recipe = request.retain, self.retraining_recipe or recipe
        elif self.original_data is None:
            data = Joined((request.forget, request.retain))
        else:
            data = self.original_data
        if recipe is None:
            raise BadInput(f"{self.name}: expected a recipe to train the {role} model, got None.")
        return TrainingSetup(self.task, data, recipe, seed, request.fingerprint, first(request.retain), self.objective)

    def _training(self, role: Role, seed: int, session: Session) -> tuple[str, nn.Module, TrainingSetup]:
        """The name that the cache has for a role's model, that model before it is trained, and what it is taught."""
        model = self.untrained_model(seed, session)
        if role == "retrained":
            return role, self.task.without_data_of(model, self.request.forget), self.training_setup(role, seed)
        name = role if self.original_data is None else f"{role}-{key_of(self.original_data)[:8]}"
        return name, model, self.training_setup(role, seed)

    def _trained(self, role: Role, seed: int, session: Session) -> Trained:
        name, model, setup = self._training(role, seed, session)
        self._check_data(model.to(session.torch_device()))
        return trained_once(self.name, name, model, setup, session)


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
