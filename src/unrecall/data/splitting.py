"""What must go and what stays, of one data set: by index, by file, by folder."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from numbers import Integral
from os import PathLike
from os.path import normpath
from pathlib import Path

from unrecall.data.examples import Examples, Selection
from unrecall.errors import BadInput


def split(data: Examples, chosen: Iterable[int | str | PathLike[str]]) -> tuple[Selection, Selection]:
    """What must go and what stays: the chosen examples of a data set, in their order there, and all others.

    `chosen`: indices; or, where the data set knows its files (`samples`, pairs of a path and a class, as torchvision's
    ImageFolder has them), names of files, and of folders for all that lies in them, below the data set's `root`.
    BadInput for an index or a name that it hasn't, and where nothing or everything is chosen.
    """
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str | PathLike)
    names = getattr(chosen, "tolist", lambda: list(chosen) if several else chosen)()
    names = names if isinstance(names, list) else [names]
    below: dict[str, list[int]] | None = None
    indices = set[int]()
    for name in names:
        if isinstance(name, Integral) and not isinstance(name, bool):
            indices.add(int(name))
            continue
        if not isinstance(name, str | PathLike):
            raise BadInput(
                f"split: expected indices or names of files, got {name!r:.40}. Give whole numbers: [3, 17, ...]."
            )
        if below is None:
            below = _places_of_files(data, name)
        indices.update(_places_of(data, name, below))
    first, rest = Selection(data, sorted(indices)), Selection(data, sorted({*range(len(data))} - indices))
    if not len(first) or not len(rest):
        raise BadInput(f"split: expected some of {len(data)} examples, not all, got {len(first)}. Choose others.")
    return first, rest


def file_of(examples: Examples, index: int) -> str:
    """The file that an example was read from, below its data set's root; empty where the data set knows no files."""
    if isinstance(examples, Selection):
        return file_of(examples.whole, examples.indices[index])
    samples, root = getattr(examples, "samples", None), getattr(examples, "root", None)
    sample = samples[index] if isinstance(samples, list | tuple) and index < len(samples) else None
    match sample:
        case (str() | PathLike() as name, Integral()):
            file, top = Path(name), Path(root) if isinstance(root, str | PathLike) else Path()
            return str(file.relative_to(top) if file.is_relative_to(top) else file)
    return ""


def _places_of_files(data: Examples, name: str | PathLike[str]) -> dict[str, list[int]]:
    """The places in a data set of each file, and of all files below each folder, by its real path."""
    files = getattr(data, "samples", None)
    if files is None:
        raise BadInput(
            f"split: expected indices, for {type(data).__name__} has no samples that name its files, got '{name}'. "
            "Give [i for i in range(len(data)) if ...]."
        )
    places: dict[str, list[int]] = {}
    real = cache(Path.resolve)
    for i, (file, *_) in enumerate(files):
        path = real(Path(file))  # a link lies where it leads to, and where it is
        for part in {path, *path.parents, *map(real, Path(normpath(Path(file).absolute())).parents)}:
            places.setdefault(str(part), []).append(i)
    return places


def _places_of(data: Examples, name: str | PathLike[str], below: Mapping[str, list[int]]) -> list[int]:
    """The places of the file of that name, or of all files below that folder: below the data set's root, or anywhere.

    `below`: those of all files and folders.
    """
    root = Path(getattr(data, "root", ""))
    for path in (root / name, Path(name)):
        if places := below.get(str(path.resolve())):
            return places
    files = [Path(file) for file, *_ in getattr(data, "samples", ())]
    names = [str(file.relative_to(root)) for file in files if root in file.parents]
    close = get_close_matches(str(name), names, n=1, cutoff=0.6) or names[:1]
    raise BadInput(f"split: expected a file or folder of the data set, got '{name}'. They have names such as {close}.")
