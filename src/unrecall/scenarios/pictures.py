"""Pictures of your own and the classifier of Transformers that was trained on them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unrecall.data.examples import Examples, Selection, evenly, split
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.files import is_folder_of_files
from unrecall.disk.tables import records
from unrecall.disk.weights import files_of, precision_of
from unrecall.errors import BadInput, nearest
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.hub import (
    check_whole,
    load_or_refuse,
    local_folder,
    open_model,
    transformers,
)
from unrecall.scenarios.own_files import OwnFiles, no_owner, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import check_inputs
from unrecall.tasks.picture_files import LIST, Picture, PictureFiles, left_out, listed, read
from unrecall.tasks.pictures import open_picture
from unrecall.tasks.processors import processor_in
from unrecall.tasks.transformers_pictures import TransformersPictures

PICTURES_TRIED = 3
"""Pictures of which it is seen whether they reach the model as its processor prepares them."""
UNNAMED = re.compile(r"LABEL_\d+")
"""How Transformers calls classes that nobody named."""


@dataclass(frozen=True)
class Pictures(OwnFiles):
    """Your own image classifier, and your own pictures that it must forget and that it must keep.

    `model`: folder or hub id (`who/what`) of a Transformers image classifier that was trained on both. `retain`: a
    folder with a folder of pictures for each class, or a file of records (JSON Lines, a JSON list, CSV, Parquet, or
    what `datasets` saved) with image or file_name, a path from the file on, or the picture itself in a table, and
    label. `forget`: a text file (.txt) with names of pictures in `retain`, or of folders there for all that lies in
    them, one a line, which are then taken out of it; or a folder or a file of records of its own. `holdout`: pictures
    like forget that the model was never trained on; without them there is no privacy number. `test`: other pictures
    that it was never trained on. `base`: the model before it was trained on forget and retain, whose last layer is made
    anew where it has other classes; `references` models are trained from it on retain alone (AdamW, `lr`, `epochs`,
    batches of `batch`, cosine), and without it there is nothing to judge by. `group`: the key of records that says
    whose each picture of forget and holdout is. `control`: how the holdout came to be (random split, matched or
    synthetic). Classes are those that the model's config.json names; where it names none, they are numbers, or the
    folders of `retain` in the order of their names. Pictures are prepared by the model's own preprocessor_config.json.
    """

    examples: ClassVar[str] = "pictures"

    group: str = ""
    control: Literal["random split", "matched", "synthetic"] = "matched"
    lr: Positive = 5e-5
    batch: Count = 32

    def make(self) -> Scenario:
        """Reads names and labels, then the model, then the pictures, and checks that they fit."""
        paths = self.paths
        from_retain = paths["forget"].suffix.lower() == LIST
        own = {split: path for split, path in paths.items() if not (split == "forget" and from_retain)}
        pictures = {split: read(path, self.group) for split, path in own.items()}
        model = load_classifier(self.model)
        names = class_names(model.config, pictures["retain"], Path(self.retain))
        task = TransformersPictures(classes=tuple(names), processor=load_processor(self.model))
        for place in evenly(len(pictures["retain"]), PICTURES_TRIED):
            sample = pictures["retain"][place]
            data = sample.source.read(sample.where)
            open_picture(data, sample.where, task.prepare)  # which says what is wrong with the picture itself
            task.check_processor(open_picture(data, sample.where, lambda picture: picture.copy()))

        sets: dict[Split, Examples] = {}
        for name, path in own.items():
            numbers = [class_number(picture, names) for picture in pictures[name]]
            folder = path if is_folder_of_files(path) else path.parent
            sets[name] = PictureFiles(pictures[name], numbers, task.prepare, folder)
        if from_retain:
            sets["forget"], sets["retain"] = split(sets["retain"], listed(paths["forget"]))
        try:
            request = self._request(sets)
            check_inputs(task, model, request)
        except BadInput as error:
            raise placed(error, lambda name, index: _picture(sets[name], index).where) from error
        return Scenario(
            name="pictures",
            summary=f"{self.model}; forget {len(request.forget)} of {Path(self.forget).name}, keep "
            f"{len(request.retain)} of {Path(self.retain).name}{self._left_out()}",
            task=task,
            request=request,
            original=model,
            build=(lambda _, __: load_classifier(self.base, like=model)) if self.base else None,
            retraining_recipe=adamw(self.lr, self.epochs, self.batch, 0.01),
            references=self.references,
            precision=precision_of(files_of(local_folder(self.model, "a Transformers image classifier"))),
        )

    def _left_out(self) -> str:
        """How many files in folders of pictures are none, by how their names end, for the record and its reader."""
        endings = sum(map(left_out, dict.fromkeys(self.paths.values())), Counter[str]())
        listed_endings = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
        return f"; left out as no pictures: {listed_endings}" if endings else ""

    def _request(self, sets: dict[Split, Examples]) -> Request:
        """Of a class where no picture that stays has a class of those that must go."""
        forgotten, retained = ({_label(sets[name], i) for i in range(len(sets[name]))} for name in SPLITS[:2])
        whole = forgotten.isdisjoint(retained)
        request = Request(
            sets["forget"],
            sets["retain"],
            sets.get("holdout", self.absent("holdout")),
            sets.get("test", self.absent("test")),
            kind="class" if whole else "samples",
            masked=tuple(sorted(forgotten)) if whole else (),
            groups={name: self._owners(sets.get(name, ())) for name in ("forget", "holdout")} if self.group else None,
            control=self.control,
        )
        _check_files_apart(request)
        return request

    def _owners(self, examples: Examples) -> list[str]:
        """Whose each picture of a set is; BadInput for one of which nothing says it."""
        pictures = [_picture(examples, i) for i in range(len(examples))]
        for picture in pictures:
            if not picture.owner:
                if picture.in_folder:
                    raise BadInput(
                        f"{picture.where}: expected '{self.group}' to say whose it is, got none. A folder can't say "
                        "it: give records."
                    )
                files = [path for path in self.paths.values() if path.suffix.lower() != LIST]
                lines = (line for path in files if not is_folder_of_files(path) for line in records(path))
                raise no_owner(picture.where, self.group, next(line for place, line in lines if place == picture.where))
        return [picture.owner for picture in pictures]


def _check_files_apart(request: Request) -> None:
    """BadInput where a picture that must go is in another set under another class, where it is another example."""
    files = {text.split()[0]: i for i, text in enumerate(request.digests["forget"])}
    for name in SPLITS[1:]:
        for i, text in enumerate(request.digests[name]):
            if (place := files.get(text.split()[0])) is not None:
                raise BadInput(
                    f"Request: expected no picture that must go in {name}, got forget[{place}] under another class, "
                    f"{name}[{i}]. Remove it there."
                )


def _picture(examples: Any, index: int) -> Picture:
    """The picture that an example of a set is made of."""
    return (
        _picture(examples.whole, examples.indices[index])
        if isinstance(examples, Selection)
        else examples.pictures[index]
    )


def _label(examples: Any, index: int) -> int:
    """The class of an example of a set, which isn't made for it."""
    return (
        _label(examples.whole, examples.indices[index])
        if isinstance(examples, Selection)
        else examples.samples[index][1]
    )


def class_names(config: Any, retain: Sequence[Picture], folder: Path) -> list[str]:
    """The classes of a model in the order of its outputs: as its configuration names them, or else as folders do.

    Folders stand in the order of their names, as those who train on folders number them. BadInput where they are
    numbers in another order, as 10 before 2, or aren't as many as the model's outputs.
    """
    if missing := sorted({*range(config.num_labels)} - {*config.id2label}):
        raise BadInput(f"config.json: expected id2label to name each class, got none for {missing[0]}. Complete it.")
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if not all(map(UNNAMED.fullmatch, names)):
        return names
    if not folder.is_dir():
        return [str(i) for i in range(len(names))]
    folders = sorted({str(picture.label) for picture in retain})
    if len(folders) != len(names) or (all(map(str.isdecimal, folders)) and folders != sorted(folders, key=int)):
        raise BadInput(
            f"{folder}: expected {len(names)} folders, one for each of the model's outputs, in an order that is sure, "
            f"got {len(folders)}: {', '.join(folders[:12])}. Name the classes in the model's config.json (id2label)."
        )
    return folders


def class_number(picture: Picture, names: Sequence[str]) -> int:
    """The number of a picture's class, by its name or by the number itself.

    BadInput for none of the model's classes, for a name that two of them have, and for a number in records that is also
    the name of another class.
    """
    label, text = picture.label, str(picture.label)
    by_name = names.index(text) if text in names else None
    is_number = isinstance(label, int) or (text.isdecimal() and text == str(int(text)))
    by_number = int(label) if is_number and int(label) < len(names) and int(label) >= 0 else None
    if names.count(text) > 1:
        raise BadInput(f"{picture.where}: expected the name of one class, got '{text}', which two have. Give a number.")
    if None not in (by_name, by_number) and by_name != by_number and not picture.in_folder:
        raise BadInput(
            f"{picture.where}: expected a class that is sure, got {text}, the number of one and the name of another. "
            "Give the classes other names in the model's config.json (id2label)."
        )
    number = by_name if by_name is not None else by_number
    if number is None:
        numbered = list(names) == [str(i) for i in range(len(names))]
        hint = "Name the classes in the model's config.json (id2label)." if numbered else nearest(text, names)
        raise BadInput(f"{picture.where}: expected a class of the model, got '{text}'. {hint}")
    return number


def load_classifier(name: str, like: nn.Module | None = None) -> nn.Module:
    """An image classifier from a folder or by its hub id, in safetensors; BadInput where there is none.

    `like`: a model of the classes that are wanted. Where the folder's has others, its last layer is made anew; all else
    must be there.
    """
    folder = local_folder(name, "a Transformers image classifier")
    classes: dict[str, Any] = {}
    if like is not None:
        config: Any = like.config
        classes = {"num_labels": config.num_labels, "id2label": config.id2label, "label2id": config.label2id}
    expected = "a Transformers image classifier with its weights in safetensors"
    model, lacking = open_model(
        "AutoModelForImageClassification", folder, name, expected, dtype=torch.float32, **classes
    )
    last = _last_layer(model) if like is not None else ""
    check_whole(f"{name}: expected an image classifier", lacking - {f"{last}.weight", f"{last}.bias"})
    kind = model.config.problem_type
    if kind not in (None, "single_label_classification"):
        raise BadInput(
            f"{name}: expected a classifier with one class for each picture, got {kind}. It isn't supported."
        )
    if like is not None and named_otherwise(folder, like):
        if not last:
            raise BadInput(f"{name}: expected a classifier that ends in a linear layer, got none. Choose another base.")
        model.get_submodule(last).reset_parameters()
    loaded: nn.Module = model.eval()
    return loaded


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


def load_processor(name: str) -> Any:
    """How a model wants pictures; by Pillow, whatever else is installed. BadInput where its folder doesn't say it."""
    folder = local_folder(name, "a Transformers image classifier")
    return load_or_refuse(
        f"{name}: expected the model's preprocessor_config.json beside it",
        lambda: processor_in(folder),
    )
