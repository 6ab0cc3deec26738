"""What decides what a model computes: its weights, its code, and what it answers to a few examples."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.digests import digest
from unrecall.data.examples import Examples, Joined, Selection, iterate
from unrecall.data.request import SPLITS, Request
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.weights import digest_of
from unrecall.models.observe import in_order, observe
from unrecall.tasks.base import Task
from unrecall.training.randomness import own_randomness

MACHINERY = frozenset(vars(nn.Module()))
"""The attributes that every module has."""


def model_key(model: nn.Module, weights: str = "") -> str:
    """What decides what a model computes: its weights, which are trained, and each module's class, code and attributes.

    Those are a module's own: numbers, texts, truth values, None, arrays, or containers of such.
    `weights`: their digest, where it is known.
    """
    parts = [
        (
            name,
            type(module).__qualname__,
            {key: _plain(value) for key, value in vars(module).items() if _is_own(key)},
        )
        for name, module in model.named_modules()
    ]
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    code = code_key(*dict.fromkeys(map(type, model.modules())))
    return content_key(weights or digest_of(model), repr(parts), repr(trained), code)


def first_answers_digest(model: nn.Module, task: Task, request: Request) -> str:
    """sha256 of what a model answers to a few examples: what neither weights nor code show decides it too."""
    return answers_digest(model, task, first_two(request))


def answers_digest(model: nn.Module, task: Task, examples: Examples) -> str:
    """sha256 of what a model answers to these examples, and of what enters its head: in eval mode and in training."""
    signals = observe(model, task, examples)
    return digest((signals.log_prob, signals.prediction, signals.features, *_in_training(model, task, examples)))


def _in_training(model: nn.Module, task: Task, examples: Examples) -> tuple[Tensor | str, ...]:
    """What a copy of a model answers in train mode, from a seed of its own: dropout and noise show in nothing else.

    The name of the error where it gives no answer, as BatchNorm does to a single example.
    """
    try:
        with own_randomness(0), torch.no_grad():
            copied = copy.deepcopy(model).train()
            rows, features = task.view(copied, next(in_order(copied, task, examples)))
        return rows.logits.float(), features.float()
    except Exception as error:  # whatever the user's code raises; where it matters, training says so
        return (type(error).__name__,)


def inputs_digest(task: Task, examples: Examples) -> str:
    """sha256 of what a task reads of these examples: a chat template may say otherwise tomorrow."""
    return digest(task.collate(list(iterate(examples))))


def first_two(request: Request) -> Joined:
    """The first two examples of each split."""
    return Joined([Selection(request[split], range(min(2, len(request[split])))) for split in SPLITS])


def _is_own(name: str) -> bool:
    """Whether a module's attribute is its own, and not one that PyTorch gives every module."""
    return name not in MACHINERY


def _plain(value: object) -> object:
    """An attribute's value as plain Python that prints alike in every process; of other objects their class's name."""
    if isinstance(value, Tensor | np.ndarray):
        return digest(value.detach().float() if isinstance(value, Tensor) else value)
    if isinstance(value, Mapping):
        return [(_plain(key), _plain(part)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | None) else type(value).__qualname__
