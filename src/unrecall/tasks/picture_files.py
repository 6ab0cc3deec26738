"""Pictures and their classes: from a folder that has a folder for each class, or from records."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrecall.data.identity import of_bytes, of_files
from unrecall.disk.files import is_folder_of_files, read_text
from unrecall.disk.tables import records
from unrecall.errors import BadInput
from unrecall.tasks.pictures import Source, open_picture, source_of
from unrecall.tasks.record_keys import label, owner

LIST = ".txt"
"""How the name of a list of pictures ends."""
FORMATS = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""How names of pictures end; what else a folder holds is none."""
PICTURES_IN_MEMORY = 20_000
"""Pictures of a set that stay in memory once they are decoded: 3 GB at 224 x 224."""


class Picture(NamedTuple):
    """A picture: where a file speaks of it, its own file or bytes, its class, and whose it is, or nothing.

    `label`: the class's name, or its number as a whole number. `where` is the picture's own path in a folder.
    """

    where: str
    source: Source
    label: str | int
    owner: str = ""

    @property
    def in_folder(self) -> bool:
        """Whether the folder that it lies in names its class."""
        return not self.source.data and self.where == str(self.source.file)


def read(path: Path, group: str = "") -> list[Picture]:
    """The pictures of a folder with a folder for each class, or those that records name: `image`, and `label`.

    Records are as in `disk/tables.py`, and pictures in them as `source_of` takes them: files are named from the
    records' own folder on. `group`: the key that says whose each picture is. BadInput, with the line, where image or
    label is missing or there is no such file.
    """
    if path.suffix.lower() == LIST:
        raise BadInput(f"{path}: expected pictures with their classes, got a list of names, as --forget may be.")
    if is_folder_of_files(path):
        return _of_folder(path)
    pictures = [_of_record(record, where, path.parent, group) for where, record in records(path)]
    names = Counter(picture.source.file for picture in pictures)
    return [_named_by_place(picture) if names[picture.source.file] > 1 else picture for picture in pictures]


def _named_by_place(picture: Picture) -> Picture:
    """The picture; one that lies in a table is called after its place there, as others have the same name."""
    return picture._replace(source=picture.source.at(picture.where)) if picture.source.data else picture


def left_out(path: Path) -> Counter[str]:
    """How many files in the folders of classes are no pictures, by how their names end; hidden ones don't count."""
    files = (file for folder in _classes(path) for file in _files(folder)) if is_folder_of_files(path) else ()
    return Counter(file.suffix.lower() or file.name for file in files if file.suffix.lower() not in FORMATS)


def _classes(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, through links too, in the order of their names; hidden files and folders aren't."""
    for place, below, files in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(files) if not name.startswith("."))


def _of_folder(path: Path) -> list[Picture]:
    """Every picture below a folder for each class."""
    pictures = [
        Picture(str(file), Source(file), folder.name)
        for folder in _classes(path)
        for file in _files(folder)
        if file.suffix.lower() in FORMATS
    ]
    if not pictures:
        raise BadInput(
            f"{path}: expected a folder for each class with pictures in it, got none. Name the folder above, or a file "
            "of records with image and label; to forget a whole class, name it in a list that ends in .txt."
        )
    return pictures


def _of_record(record: Mapping[str, Any], where: str, folder: Path, group: str) -> Picture:
    name = label(record, where)
    source = source_of(record, where, folder)
    if source is None or name is None:
        keys = ", ".join(map(str, record)) or "nothing"
        raise BadInput(f"{where}: expected the keys image (or file_name) and label, got {keys}.")
    return Picture(where, source, name, owner(record, group, where))


def listed(path: Path) -> list[str]:
    """The names in a text file, one a line; lines that start with # are left out. BadInput where there is none.

    A backslash between names, as Windows writes it, is a slash.
    """
    names = [line.strip().replace("\\", "/") for line in read_text(path).removeprefix("\ufeff").splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise BadInput(f"{path}: expected names of pictures or of folders, one a line, got none.")
    return names


class PictureFiles:
    """Pictures as `(input, class)`: input [3, height, width] in 256 steps of [0, 1]. They are decoded when asked for.

    `labels`: the class of each. `prepare`: makes uint8 [3, height, width] of a Pillow picture. `root`: the folder that
    names of files start from. BadInput, with the place, for a file that is no picture.
    """

    def __init__(
        self, pictures: Sequence[Picture], labels: Sequence[int], prepare: Callable[[Any], Tensor], root: Path
    ) -> None:
        self.pictures, self.prepare, self.root = pictures, prepare, root
        self.samples = [(str(picture.source.file), label) for picture, label in zip(pictures, labels, strict=True)]
        self._decoded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        pixels = self._decoded.get(index)
        if pixels is None:
            picture = self.pictures[index]
            pixels = open_picture(picture.source.read(picture.where), picture.where, self.prepare).to(torch.uint8)
            if len(self._decoded) < PICTURES_IN_MEMORY:
                self._decoded[index] = pixels
        return pixels.float() / 255, self.samples[index][1]

    def identities(self, indices: Sequence[int], /) -> list[str]:
        """sha256 of each picture's bytes, and its class."""
        in_files = [i for i in indices if not self.pictures[i].source.data]
        texts = dict(zip(in_files, of_files([self.samples[i] for i in in_files]), strict=True))
        return [texts.get(i) or of_bytes(self.pictures[i].source.data, self.samples[i][1]) for i in indices]
