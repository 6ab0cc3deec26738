"""What each example of a data set is: by its content, or as the data set itself can tell without making it.

Only data that take long to make should tell it: tensors and texts are read in no time.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from unrecall.data.digests import digest
from unrecall.data.examples import Examples, Joined, Selection, evenly, iterate
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.errors import BadInput

CONTENT = "content"
TRANSFORMS = ("transform", "target_transform", "loader")
"""What torchvision's data sets call the functions that make examples of files."""
KEY_SAMPLE = 64
"""Examples, evenly spread, that show what is made of what is stored: a transformation, say."""
READERS = 8
"""Files that are read at once."""


class Identities(NamedTuple):
    """A text for each example, the same where two are the same. Only those of one `form` can be compared."""

    form: str
    values: list[str]

    def part(self, places: Sequence[int]) -> "Identities":
        """Those of some of the examples, in that order."""
        return Identities(self.form, [self.values[i] for i in places])


class Identified(Protocol):
    """A data set that tells which of its examples are the same, without making them.

    For data that are large or slow to make. Two examples of two such data sets of one class are taken for the same
    where their texts are, so these must say all that an example is: its file's sha256 and its label, say.
    """

    def identities(self, indices: Sequence[int], /) -> Sequence[str]:
        """A text for each of these examples."""


def identities(examples: Examples, by_id: Mapping[int, Identities] | None = None) -> Identities | None:
    """What each example is, as the data set can tell; None where it can't.

    A data set of the user's own can tell it by its method `identities`, torchvision's folders by their files' bytes,
    and a part of such a data set, or several joined, by these. `by_id`: the identities of whole data sets, by the
    `id` of the data set, which then isn't asked. BadInput where the method doesn't give a text for each example.
    """
    return _of(examples, range(len(examples)), by_id or {})


def key_of(examples: Examples) -> str:
    """sha256 of all that a data set is; the same for the same data in every process.

    That is the content of each example; or what the data set tells of each, and `made_key`.
    """
    own = identities(examples)
    if own is None:
        return content_key(*by_content(examples).values)
    return content_key(own.form, *own.values, made_key(examples))


def made_key(examples: Examples) -> str:
    """What decides what is made of what is stored: some examples as they are made, and the code that makes them."""
    digests = [digest(examples[i]) for i in evenly(len(examples), KEY_SAMPLE)]
    return content_key(*digests, *(code_key(maker) for maker in _makers(examples)))


def _makers(examples: Any) -> list[Any]:
    """The classes and transformations by which a data set, or what it is a part of, makes examples."""
    if isinstance(examples, Joined):
        return [maker for part in examples.parts for maker in _makers(part)]
    whole = getattr(examples, "whole", getattr(examples, "dataset", None))
    transforms = [getattr(examples, name, None) for name in TRANSFORMS]
    return [type(examples), *filter(callable, transforms), *([] if whole is None else _makers(whole))]


def by_content(examples: Examples) -> Identities:
    """What each example is, by all that it is made of: every one is read."""
    return Identities(CONTENT, [digest(item) for item in iterate(examples)])


def _of(examples: Any, indices: Sequence[int], by_id: Mapping[int, Identities]) -> Identities | None:
    """What these examples are; of a part, by the whole, and of data sets that are joined, by each of them."""
    before = by_id.get(id(examples))
    if before is not None and len(before.values) == len(examples):
        return before.part(indices)
    if type(examples) is Selection:
        return _of(examples.whole, [examples.indices[i] for i in indices], by_id)
    if type(examples) is Subset:
        return _of(examples.dataset, [int(examples.indices[i]) for i in indices], by_id)
    if type(examples) is Joined:
        return _of_several(examples, indices, by_id)
    return _from_data_set(examples, indices)


def _from_data_set(examples: Any, indices: Sequence[int]) -> Identities | None:
    """The identities that a data set itself gives for these examples; None where it gives none."""
    if callable(getattr(examples, "identities", None)):
        return Identities(_name(type(examples)), _texts(examples, indices))
    if getattr(type(examples).__getitem__, "__module__", "") == "torchvision.datasets.folder":
        return Identities("files", of_files([examples.samples[i] for i in indices]))
    return None


def _of_several(examples: Joined, indices: Sequence[int], by_id: Mapping[int, Identities]) -> Identities | None:
    """Identities of examples of several joined data sets; None unless all of these give them in one form."""
    ends = np.cumsum([0, *map(len, examples.parts)])
    which = np.searchsorted(ends, np.asarray(indices), side="right") - 1
    values, forms = np.empty(len(indices), object), set[str]()
    for k in np.unique(which):
        places = np.flatnonzero(which == k)
        part = _of(examples.parts[k], (np.asarray(indices)[places] - ends[k]).tolist(), by_id)
        if part is None:
            return None
        values[places] = part.values
        forms.add(part.form)
    return Identities(forms.pop() if forms else "", values.tolist()) if len(forms) <= 1 else None


def digests_of_rows(tensors: Sequence[Tensor], indices: Iterable[int]) -> list[str]:
    """sha256 of these rows of tensors that lie side by side `[n, ...]`: of the bytes that they are stored in."""
    rows = [tensor.detach().reshape(len(tensor), -1).contiguous().view(torch.uint8).numpy() for tensor in tensors]
    digests = []
    for i in indices:
        state = hashlib.sha256()
        for row in rows:
            state.update(row[i])
        digests.append(state.hexdigest())
    return digests


def _texts(examples: Identified, indices: Sequence[int]) -> list[str]:
    """What a data set's own method tells of these examples; BadInput unless that is a text for each."""
    owner, texts = type(examples).__name__, examples.identities(indices)
    whole = isinstance(texts, Sequence) and not isinstance(texts, str)
    if not whole or len(texts) != len(indices) or not all(isinstance(text, str) for text in texts):
        kind = f"{len(texts)} of {len(indices)}" if whole else type(texts).__name__
        raise BadInput(
            f"{owner}.identities: expected a text for each example that is asked for, got {kind}. Return a list of "
            "them, in the order of the indices."
        )
    return list(texts)


def of_files(samples: Sequence[tuple[str, int]]) -> list[str]:
    """sha256 of each file, and its class: of pairs of a path and a class. Files are read some at a time."""
    with ThreadPoolExecutor(READERS) as readers:
        digests = readers.map(_digest_of_file, [path for path, *_ in samples])
    return [_with_class(text, label) for text, (_, label) in zip(digests, samples, strict=True)]


def of_bytes(data: bytes, label: int) -> str:
    """The same of what a file would hold."""
    return _with_class(hashlib.sha256(data).hexdigest(), label)


def _with_class(sha256: str, label: int) -> str:
    return f"{sha256} {label}"


def _digest_of_file(path: str) -> str:
    """sha256 of a file, which is read once for as long as it isn't written again."""
    state = Path(path).stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@cache
def _read(path: str, _size: int, _written: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
