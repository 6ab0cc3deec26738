"""Pictures of your own and the classifier of Transformers that was trained on them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from unrecall.data.examples import Examples, Selection, evenly
from unrecall.data.request import SPLITS, Request, Split
from unrecall.data.splitting import split
from unrecall.disk.files import is_folder_of_files
from unrecall.disk.tables import records
from unrecall.disk.weights import files_of, precision_of
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.classifiers import Kind, builder, class_names, class_number, load_classifier
from unrecall.scenarios.hub import load_or_refuse, local_folder
from unrecall.scenarios.own_files import FromOwnFiles, no_owner, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import check_inputs
from unrecall.tasks.picture_files import LIST, Picture, PictureFiles, left_out, listed, read
from unrecall.tasks.pictures import open_picture
from unrecall.tasks.processors import processor_in
from unrecall.tasks.transformers_pictures import TransformersPictures

PICTURES = Kind("AutoModelForImageClassification", "image classifier", "picture")
PICTURES_TRIED = 3
"""Pictures of which it is seen whether they reach the model as its processor prepares them."""


@dataclass(frozen=True)
class Pictures(FromOwnFiles):
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
        model = load_classifier(PICTURES, self.model)
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
            build=builder(PICTURES, self.base, model),
            retraining_recipe=adamw(self.lr, self.epochs, self.batch, 0.01),
            references=self.references,
            precision=precision_of(files_of(local_folder(self.model, PICTURES.whole))),
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


def load_processor(name: str) -> Any:
    """How a model wants pictures; by Pillow, whatever else is installed. BadInput where its folder doesn't say it."""
    folder = local_folder(name, PICTURES.whole)
    return load_or_refuse(
        f"{name}: expected the model's preprocessor_config.json beside it",
        lambda: processor_in(folder),
    )
