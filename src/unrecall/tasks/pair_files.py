"""Pictures with captions from files of records; every complaint names file and line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrecall.disk.tables import records
from unrecall.errors import BadInput, nearest
from unrecall.tasks.pairs import UNKNOWN
from unrecall.tasks.pictures import Source, decoded, open_picture, source_of
from unrecall.tasks.processors import pixels
from unrecall.tasks.record_keys import label
from unrecall.tasks.strings import readable, string


class Line(NamedTuple):
    """One pair as a file has it: where it stands, the picture, the caption, and its class's name or nothing."""

    where: str
    picture: Source
    caption: str
    label: str


def read(path: Path) -> list[Line]:
    """The pairs of a file of records, each once: `image`, `caption`, and perhaps `label` or `category`.

    Records are as in `disk/tables.py`, and pictures as `source_of` takes them: named by their paths from the file's own
    folder on, or in the table itself. BadInput, with the line, where a key is missing, a caption is empty, or there is
    no such picture.
    """
    lines = [_line(record, where, path.parent) for where, record in records(path)]
    pairs: dict[tuple[bytes | Path, str], Line] = {}
    for line in lines:
        earlier = pairs.setdefault((line.picture.data or line.picture.file, line.caption), line)
        if line.label and earlier.label and line.label != earlier.label:
            raise BadInput(
                f"{line.where}: expected a pair that comes again to have the label '{earlier.label}' of "
                f"{earlier.where}, got '{line.label}'. Remove one of them."
            )
    return list(pairs.values())


def _line(record: Mapping[str, Any], where: str, folder: Path) -> Line:
    picture = source_of(record, where, folder)
    if picture is None or "caption" not in record:
        keys = ", ".join(map(str, record)) or "nothing"
        raise BadInput(f"{where}: expected the keys image (or file_name) and caption, got {keys}.")
    caption = string(record["caption"], f"{where}: caption")
    if not readable(caption):
        raise BadInput(f"{where}: expected a caption, got {caption!r:.60}. Remove the pair, or give it one.")
    name = label(record, where)
    return Line(where, picture, caption, "" if name is None else str(name))


class PairFiles:
    """The pairs of some lines; each picture is decoded when it is first asked for, and kept as bytes from then on.

    `size`: of pictures, in pixels. `processor`: Transformers' own, by which they are resized and cropped in place of
    CLIP's usual way. BadInput, with the line, for a label that is none of the classes, and for a file that is no
    picture.
    """

    def __init__(self, lines: Sequence[Line], classes: Sequence[str], size: int, processor: Any = None) -> None:
        self.lines, self.size, self.processor = lines, size, processor
        number = {name: i for i, name in enumerate(classes)} | {"": UNKNOWN}
        for line in lines:
            if line.label not in number:
                hint = nearest(line.label, classes)
                raise BadInput(f"{line.where}: expected label to be a known class, got '{line.label}'. {hint}")
        self.labels = [number[line.label] for line in lines]
        self._pictures: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        line = self.lines[index]
        if index not in self._pictures:
            self._pictures[index] = self._decoded(line)
        return {
            "image": self._pictures[index].float() / 255,
            "caption": line.caption,
            "label": self.labels[index],
        }

    def _decoded(self, line: Line) -> Tensor:
        where = f"{line.where}: {line.picture.file.name}"
        if self.processor is not None:
            made = open_picture(line.picture.read(where), where, lambda picture: pixels(self.processor, picture))
            if made.shape[1:] != (self.size, self.size):
                raise BadInput(
                    f"{where}: expected the model's preprocessor_config.json to make {self.size} x {self.size} pixels "
                    f"of every picture, got {made.shape[1]} x {made.shape[2]}. Correct its size, or let it crop."
                )
            return made
        return decoded(line.picture.read(where), self.size, where).mul(255).round().to(torch.uint8)
