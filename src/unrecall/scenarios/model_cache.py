"""Originals and retrained models: trained once, then kept in the cache under all that decides them."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from unrecall.data.batches import move
from unrecall.data.examples import Examples, Selection, iterate
from unrecall.disk import weights
from unrecall.disk.cache import Cache, Form, shared
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.evidence.model_keys import answers_digest, inputs_digest, model_key
from unrecall.models.observe import device_of
from unrecall.record.schema import Cost
from unrecall.tasks.base import Task
from unrecall.training.cost import metered
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.objectives import Objective, Plain, Start
from unrecall.training.objectives.base import STREAM
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session


class Trained(NamedTuple):
    """A model and what training it took; None where it was given."""

    model: nn.Module
    cost: Cost | None


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

    `probe`: a few examples. What the untrained model answers on them is part of the cache key, because its code decides
    its answers as well as its weights do. `data_key` tells the data from others. `objective`: what is minimised.
    """

    task: Task
    data: Examples
    recipe: Fit
    seed: int
    data_key: str
    probe: Examples
    objective: Objective = Plain()

    def phase(self, model: nn.Module) -> tuple[nn.Module, Phase]:
        """What the loop trains, so that `model` learns it, and the phase that it is trained in."""
        probe = self.task.collate(list(iterate(self.probe)))
        with own_randomness(self.seed):
            networks, loss = self.objective.course(Start(model, self.task, move(probe, device_of(model))))
        return networks, Phase(loss, {STREAM: self.data}, self.recipe)


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
            networks, phase = setup.phase(model)
            fit(networks, task, phase, seeded(seed), session.named(f"{role}-{seed}", content_key(*key)))
        return Trained(model.eval(), spent.cost)

    trained = cached_model(
        shared(on_disk=True, say=session.say), f"{name}-{role}", key, trained_form(model, session), train
    )
    session.drop_states()
    return trained


def is_cached(name: str, role: str, model: nn.Module, setup: TrainingSetup, session: Session) -> bool:
    """Whether the cache holds the model that `trained_once` would train."""
    key = _key(role, model.to(session.torch_device()), setup)
    return shared(on_disk=True).holds(f"{name}-{role}", key, ".safetensors")


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
