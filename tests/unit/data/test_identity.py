"""What each example is: told by the data set where it can, read where it can't, and never one taken for the other."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from unrecall.data.digests import digest
from unrecall.data.examples import Joined, Selection, evenly, several
from unrecall.data.identity import identities, key_of
from unrecall.data.request import MOST_CHECKED, Request
from unrecall.errors import BadInput
from unrecall.tasks import Classification
from unrecall.training.randomness import own_randomness


class Counted:
    """Examples that count how often they are read, and tell what they are if they are to."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count, self.reads = first, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        self.reads += 1
        return torch.tensor([[[0.0, 1.0], [0.5, (self.first + index) / 1e6]]]), index % 2


class Telling(Counted):
    """Examples that tell what they are."""

    def identities(self, indices: Sequence[int], /) -> list[str]:
        return [str(self.first + i) for i in indices]


def flat() -> torch.nn.Module:
    with own_randomness(0):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))


def request_of(kind: type[Counted], retain: int) -> Request:
    return Request(kind(0, 8), kind(100, retain), kind(50, 8), kind(60, 8))


def reads(request: Request) -> int:
    return sum(request[split].reads for split in ("forget", "retain", "holdout", "test"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [100, 1_000, 10_000])
def test_what_is_read_grows_with_data_that_tell_nothing_and_with_no_others(size: int) -> None:
    request, telling = request_of(Counted, size), request_of(Telling, size)
    assert reads(request) == (size + 24) + (8 + 16 + 8 + 8)  # each once, and some again, to see whether they last
    assert reads(telling) == 2 * (8 + 16 + 8 + 8), "some, however many there are"
    model = flat()
    Classification().check(model, telling)
    assert telling.retain.reads <= MOST_CHECKED + 40  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Counted, Telling])
def test_a_request_made_of_another_reads_nothing_again(kind: type[Counted]) -> None:
    request = request_of(kind, 200)
    before = reads(request)
    changed = request.with_own(
        retain=Selection(request.retain, range(0, 200, 2)),
        forget=Joined([Selection(request.forget, [3]), request.holdout]),
        holdout=request.test,
        test=Selection(request.forget, [1]),
    )
    assert reads(request) - before <= 16  # two of each set, to see whether they last
    assert changed.digests["retain"] == request.digests["retain"][::2]
    assert changed.digests["forget"] == [request.digests["forget"][3], *request.digests["holdout"]]
    alone = Request(changed.forget, changed.retain, changed.holdout, changed.test)
    assert alone.fingerprint == changed.fingerprint != request.fingerprint


def test_where_one_set_tells_nothing_all_are_read() -> None:
    mixed = Request(Counted(0, 8), Telling(100, 20), Telling(50, 8), Telling(60, 8))
    assert not mixed.indexed
    assert mixed.digests["retain"][0] == digest(mixed.retain[0])
    with pytest.raises(BadInput, match=r"forget\[0\] equals retain\[0\]"):
        Request(Counted(100, 8), Telling(100, 20), Telling(50, 8), Telling(60, 8))
    with pytest.raises(BadInput, match=r"forget\[3\] equals retain\[0\]"):
        Request(Telling(97, 8), Telling(100, 20), Telling(50, 8), Telling(60, 8))


def test_parts_of_parts_are_told_apart_by_the_whole() -> None:
    data = Telling(10, 6)
    told = identities(Joined([Selection(data, [4, 5]), Subset(Subset(data, [3, 2, 1]), [0, 2])]))  # type: ignore[arg-type]
    assert told is not None
    assert told.values == ["14", "15", "13", "11"]

    class Other(Telling):
        pass

    assert identities(Joined([data, Other(0, 3)])) is None  # of two forms, which can't be compared
    assert identities(TensorDataset(torch.zeros(3))) is None  # which is read in no time


@pytest.mark.parametrize(
    ("texts", "got"),
    [(["a"], "1 of 2"), (["a", "b", "c"], "3 of 2"), ("ab", "str"), (None, "NoneType"), ([1, 2], "2 of 2")],
)
def test_what_is_no_text_for_each_is_refused(texts: Any, got: str) -> None:
    class Wrong(Counted):
        def identities(self, indices: Sequence[int], /) -> Any:
            return texts

    with pytest.raises(BadInput, match=f"Wrong.identities: expected a text for each example .*, got {got}"):
        identities(Selection(Wrong(0, 5), [1, 2]))


def test_an_attribute_of_that_name_tells_nothing() -> None:
    class Faces(Counted):
        identities = ("ann", "bob")

    assert identities(Faces(0, 5)) is None


def test_a_set_that_has_grown_is_read_anew() -> None:
    growing = [(torch.rand(2), 0) for _ in range(4)]
    request = Request(growing, [(torch.rand(2), 1)])
    growing.append((torch.rand(2), 0))
    assert len(request.with_own(forget=growing).digests["forget"]) == 5


@pytest.mark.parametrize("kind", [Counted, Telling])
def test_a_class_that_must_go_is_looked_for_in_all_that_stays(kind: type[Counted]) -> None:
    class Labelled(kind):  # type: ignore[valid-type, misc]
        def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
            picture, _ = super().__getitem__(index)
            return picture, 0 if self.first == 0 or index == 4_321 else 1

    request = Request(Labelled(0, 8), Labelled(100, MOST_CHECKED + 500), kind="class", masked=(0,))
    model = flat()
    with pytest.raises(BadInput, match=r"classes \[0\] in forget and \[0\] of them in retain"):
        Classification().check(model, request)


def test_an_example_that_is_read_to_look_for_a_class_is_named_by_its_set() -> None:
    """Of a large holdout that tells what it is; the odd one is between those that are checked."""
    holdout = Telling(50_000, MOST_CHECKED + 500)
    odd = next(i for i in range(len(holdout)) if i not in {*evenly(len(holdout), MOST_CHECKED), 0, 1})

    class Holdout(Telling):
        def __getitem__(self, index: int, /) -> Any:
            return (super().__getitem__(index)[0], 1) if index != odd else "a cat"

    class Labelled(Telling):
        def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
            return super().__getitem__(index)[0], int(self.first > 0)

    for kind in (Holdout, Labelled):  # of one name, for only such are compared
        kind.__module__, kind.__qualname__ = "own", "Pictures"
    request = Request(Labelled(0, 8), Labelled(100, 20), Holdout(50_000, len(holdout)), kind="class", masked=(0,))
    with pytest.raises(BadInput, match=rf"^holdout\[{odd}\]: expected \(input, label\)"):
        Classification().check(flat(), request)


def test_what_is_drawn_at_random_is_refused_though_nobody_compares_contents() -> None:
    """A flip of one picture in five, in sets that tell what their examples are."""
    draws = random.Random(0)

    class Flipped(Telling):
        def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
            picture, label = super().__getitem__(index)
            return (picture.flip(-1), label) if draws.random() < 0.2 else (picture, label)

    for _ in range(20):
        with pytest.raises(BadInput, match="the same whenever it is read"):
            Request(Flipped(0, 50), Flipped(100, 200))


def test_a_subclass_that_reads_otherwise_tells_nothing() -> None:
    class Doubled(Selection):
        def __getitem__(self, index: int, /) -> Any:
            return 2 * super().__getitem__(index)

    assert identities(Doubled(Telling(0, 4), [1, 2])) is None
    assert several(Doubled([0, 1, 2, 3], [1, 2]), [0, 1]) == [2, 4]


def folder_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What stands for torchvision's DatasetFolder, which isn't installed."""
    module = ModuleType("torchvision.datasets.folder")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = (
        "class DatasetFolder:\n"
        "    def __init__(self, samples, target_transform=None):\n"
        "        self.samples, self.target_transform = samples, target_transform\n"
        "    def __len__(self): return len(self.samples)\n"
        "    def __getitem__(self, index):\n"
        "        path, label = self.samples[index]\n"
        "        return path, self.target_transform(label) if self.target_transform else label\n"
    )
    exec(source, vars(module))
    return module.DatasetFolder  # type: ignore[attr-defined]


def test_folders_are_told_apart_by_what_their_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_class(monkeypatch)
    for name, content in {"a": b"one", "b": b"two", "c": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    samples = [(str(tmp_path / name), label) for name, label in (("a", 0), ("b", 0), ("c", 0), ("a", 1))]
    told = identities(folder(samples))
    assert told is not None
    first, second, third, fourth = told.values
    assert first == third and len({first, second, fourth}) == 3
    (tmp_path / "b").write_bytes(b"three")
    assert identities(folder(samples)).values[1] != second  # type: ignore[union-attr]


def test_another_transformation_of_the_same_files_is_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, samples = folder_class(monkeypatch), []
    for i in range(40):
        (tmp_path / f"{i:02}").write_bytes(bytes([i]))
        samples.append((str(tmp_path / f"{i:02}"), i // 20))

    def key(transform: Any) -> str:
        data = folder(samples, transform)
        return Request(*(Selection(data, range(i, 40, 4)) for i in range(4))).fingerprint

    same = key(None)
    assert same == key(None)
    assert len({same, key(lambda label: label), key(lambda label: 0 * label), key(lambda label: label // 1)}) == 4


def test_the_key_of_a_stream_shows_what_is_made_of_what_is_stored() -> None:
    class Brighter(Telling):
        def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
            picture, label = super().__getitem__(index)
            return picture + 1, label

    keys = [key_of(data) for data in (Telling(0, 9), Telling(0, 9), Telling(1, 9), Brighter(0, 9), Counted(0, 9))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
