"""Pictures of your own and the classifier of Transformers that was trained on them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from unrecall.data.examples import Examples, Selection, evenly
from unrecall.data.request import Split
from unrecall.data.splitting import split
from unrecall.disk.files import is_folder_of_files
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.classifiers import Kind, class_names, class_number, load_classifier
from unrecall.scenarios.hub import load_or_refuse, local_folder
from unrecall.scenarios.own_classifiers import OwnClassifier, OwnSet
from unrecall.spec.parameters import Positive
from unrecall.tasks.picture_files import LIST, PictureFiles, left_out, listed, read
from unrecall.tasks.pictures import open_picture
from unrecall.tasks.processors import processor_in
from unrecall.tasks.transformers_pictures import TransformersPictures

PICTURES_TRIED = 3
"""Pictures of which it is seen whether they reach the model as its processor prepares them."""


@dataclass(frozen=True)
class Pictures(OwnClassifier):
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

    name: ClassVar[str] = "pictures"
    examples: ClassVar[str] = "pictures"
    kind: ClassVar[Kind] = Kind("AutoModelForImageClassification", "image classifier", "picture")

    lr: Positive = 5e-5

    def make(self) -> Scenario:
        """Reads names and labels, then the model, then the pictures, and checks that they fit."""
        paths = self.paths
        from_retain = paths["forget"].suffix.lower() == LIST
        own = {split: path for split, path in paths.items() if not (split == "forget" and from_retain)}
        pictures = {split: read(path, self.group) for split, path in own.items()}
        model = load_classifier(self.kind, self.model)
        names = class_names(model.config, [picture.label for picture in pictures["retain"]], Path(self.retain))
        task = TransformersPictures(classes=tuple(names), processor=load_processor(self.model))
        for place in evenly(len(pictures["retain"]), PICTURES_TRIED):
            sample = pictures["retain"][place]
            data = sample.source.read(sample.where)
            open_picture(data, sample.where, task.prepare)  # which says what is wrong with the picture itself
            task.check_processor(open_picture(data, sample.where, lambda picture: picture.copy()))

        sets: dict[Split, Examples] = {}
        for name, path in own.items():
            numbers = [class_number(p.label, names, p.where, in_folder=p.in_folder) for p in pictures[name]]
            folder = path if is_folder_of_files(path) else path.parent
            sets[name] = PictureFiles(pictures[name], numbers, task.prepare, folder)
        if from_retain:
            sets["forget"], sets["retain"] = split(sets["retain"], listed(paths["forget"]))
        return self.scenario(
            task,
            model,
            {name: _set(examples) for name, examples in sets.items()},
            lambda request, name: [text.split()[0] for text in request.digests[name]],
            self._left_out(),
        )

    def _left_out(self) -> str:
        """How many files in folders of pictures are none, by how their names end, for the record and its reader."""
        endings = sum(map(left_out, dict.fromkeys(self.paths.values())), Counter[str]())
        listed_endings = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
        return f"; left out as no pictures: {listed_endings}" if endings else ""


def _set(examples: Any) -> OwnSet:
    """A set with the classes and places of its pictures; it may be some of those of another."""
    if isinstance(examples, Selection):
        _, labels, origins = _set(examples.whole)
        return OwnSet(examples, [labels[i] for i in examples.indices], [origins[i] for i in examples.indices])
    return OwnSet(examples, [label for _, label in examples.samples], examples.pictures)


def load_processor(name: str) -> Any:
    """How a model wants pictures; by Pillow, whatever else is installed. BadInput where its folder doesn't say it."""
    folder = local_folder(name, Pictures.kind.whole)
    return load_or_refuse(
        f"{name}: expected the model's preprocessor_config.json beside it",
        lambda: processor_in(folder),
    )
