"""Classifiers of Transformers, and how what a user's data call a class becomes the number of one of its outputs."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unrecall.errors import BadInput, nearest
from unrecall.scenarios.hub import check_whole, local_folder, open_model, transformers
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session

UNNAMED = re.compile(r"LABEL_\d+")
"""How Transformers calls classes that nobody named."""


class Kind(NamedTuple):
    """A kind of classifier: the class of Transformers that opens it, what people call it, and what it classifies."""

    auto: str
    title: str
    example: str

    @property
    def whole(self) -> str:
        """What people call it, in full."""
        return f"a Transformers {self.title}"


def class_names(config: Any, labels: Iterable[str | int], folder: Path) -> list[str]:
    """The classes of a model in the order of its outputs: as its configuration names them, or else as folders do.

    `labels`: of the examples in `folder`; where that is a file, classes without names are numbers. Folders stand in the
    order of their names, as those who train on folders number them. BadInput where they are numbers in another order,
    as 10 before 2, or aren't as many as the model's outputs.
    """
    if missing := sorted({*range(config.num_labels)} - {*config.id2label}):
        raise BadInput(f"config.json: expected id2label to name each class, got none for {missing[0]}. Complete it.")
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if not all(map(UNNAMED.fullmatch, names)):
        return names
    if not folder.is_dir():
        return [str(i) for i in range(len(names))]
    folders = sorted(set(map(str, labels)))
    if len(folders) != len(names) or (all(map(str.isdecimal, folders)) and folders != sorted(folders, key=int)):
        raise BadInput(
            f"{folder}: expected {len(names)} folders, one for each of the model's outputs, in an order that is sure, "
            f"got {len(folders)}: {', '.join(folders[:12])}. Name the classes in the model's config.json (id2label)."
        )
    return folders


def class_number(label: str | int, names: Sequence[str], where: str, *, in_folder: bool = False) -> int:
    """The number of an example's class, by its name or by the number itself.

    `where`: its place, for people. `in_folder`: whether a folder names its class, which is then a name. BadInput for
    none of the model's classes, for a name that two of them have, and for a number in records that is also the name of
    another class.
    """
    text = str(label)
    if text not in names:  # as CSV of a table with gaps has whole numbers
        text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    by_name = names.index(text) if text in names else None
    is_number = isinstance(label, int) or (text.isdecimal() and text == str(int(text)))
    by_number = int(text) if is_number and 0 <= int(text) < len(names) else None
    if names.count(text) > 1:
        raise BadInput(f"{where}: expected the name of one class, got '{text}', which two have. Give a number.")
    if None not in (by_name, by_number) and by_name != by_number and not in_folder:
        raise BadInput(
            f"{where}: expected a class that is sure, got {text}, the number of one and the name of another. "
            "Give the classes other names in the model's config.json (id2label)."
        )
    number = by_name if by_name is not None else by_number
    if number is None:
        numbered = list(names) == [str(i) for i in range(len(names))]
        hint = "Name the classes in the model's config.json (id2label)." if numbered else nearest(text, names)
        raise BadInput(f"{where}: expected a class of the model, got '{text}'. {hint}")
    return number


def load_classifier(kind: Kind, name: str, like: nn.Module | None = None) -> nn.Module:
    """A classifier from a folder or by its hub id, in safetensors; BadInput where there is none.

    `like`: a model of the classes that are wanted. Where the folder's has others, its last layer is made anew; all else
    must be there.
    """
    folder = local_folder(name, kind.whole)
    classes: dict[str, Any] = {}
    if like is not None:
        config: Any = like.config
        given = ("num_labels", "id2label", "label2id", "pad_token_id")
        classes = {name: getattr(config, name) for name in given if hasattr(config, name)}
    expected = f"{kind.whole} with its weights in safetensors"
    model, lacking = open_model(kind.auto, folder, name, expected, dtype=torch.float32, **classes)
    last = _last_layer(model) if like is not None else ""
    if like is not None:  # what a head adds to a pretrained model is made anew
        lacking = {key for key in lacking if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key}
    check_whole(f"{name}: expected {kind.whole}", lacking - {f"{last}.weight", f"{last}.bias"})
    problem = model.config.problem_type
    if problem not in (None, "single_label_classification"):
        raise BadInput(
            f"{name}: expected a classifier with one class for each {kind.example}, got {problem}. It isn't supported."
        )
    if like is not None and named_otherwise(folder, like):
        if not last:
            raise BadInput(f"{name}: expected a classifier that ends in a linear layer, got none. Choose another base.")
        model.get_submodule(last).reset_parameters()
    loaded: nn.Module = model.eval()
    return loaded


def builder(kind: Kind, base: str, like: nn.Module) -> Callable[[int, Session], nn.Module] | None:
    """What loads a fresh copy of the base that retrained models start from; None without one.

    It is loaded once, so that what is wrong with it is said before any work.
    """
    if not base:
        return None
    with own_randomness(0):
        load_classifier(kind, base, like)
    return lambda _, __: load_classifier(kind, base, like)


def _last_layer(model: Any) -> str:
    """The name of the last linear layer with an output for each class; empty where there is none."""
    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return next((name for name in [*linears][::-1] if linears[name].out_features == model.config.num_labels), "")


def named_otherwise(folder: Path, like: Any) -> bool:
    """Whether the classes of a model's folder have names of their own, in other places than those of `like`."""
    own: Any = transformers().AutoConfig.from_pretrained(folder, trust_remote_code=False)
    named = not any(
        UNNAMED.fullmatch(str(label)) for config in (own, like.config) for label in config.id2label.values()
    )
    return named and own.id2label != like.config.id2label
