"""What must go and what stays, by index, file and folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrecall.data.splitting import file_of, split
from unrecall.errors import BadInput

DATA = [(torch.tensor([float(i)]), i % 2) for i in range(6)]


class Folder(list):  # type: ignore[type-arg]
    """As torchvision's ImageFolder: `samples` are paths and classes, below `root`."""

    root = "faces"
    samples = [(f"faces/{who}/{shot}.png", i) for i, who in enumerate(("ann", "bob", "cid")) for shot in (1, 2)]  # noqa: RUF012


@pytest.mark.parametrize("chosen", [[4, 1], (1, 4, 1), {1, 4}, np.array([4, 1]), torch.tensor([1, 4])])
def test_indices_are_taken_as_people_have_them(chosen: object) -> None:
    forget, retain = split(DATA, chosen)  # type: ignore[arg-type]
    assert (forget.indices, retain.indices) == ([1, 4], [0, 2, 3, 5])


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [
        (["bob/1.png"], [2]),
        (["bob"], [2, 3]),
        ("bob", [2, 3]),
        ([Path("faces/ann/2.png"), "cid", 4], [1, 4, 5]),
    ],
)
def test_files_go_by_name_and_folders_for_all_in_them(chosen: object, indices: list[int]) -> None:
    assert split(Folder(DATA), chosen)[0].indices == indices  # type: ignore[arg-type]


def test_a_link_lies_where_it_is_and_where_it_leads_to(tmp_path: Path) -> None:
    """As DVC and git-annex keep files: ann's second picture is a link into a store, and all data are behind another."""
    files = [tmp_path / "data/ann/1.png", tmp_path / "store/2.png", tmp_path / "data/bob/3.png"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "data/ann/2.png").symlink_to(files[1])
    (tmp_path / "faces").symlink_to(tmp_path / "data")
    data = Folder(DATA[:3])
    data.root = str(tmp_path / "faces")
    data.samples = [(f"{data.root}/{name}", 0) for name in ("ann/1.png", "ann/2.png", "bob/3.png")]
    for name, indices in {"ann": [0, 1], tmp_path / "data/ann": [0, 1], "ann/2.png": [1], files[1].parent: [1]}.items():
        assert split(data, [name])[0].indices == indices


def test_a_folder_is_one_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    data = Folder(DATA[:4])
    data.samples = [("../imgs/ann/1.png", 0), (f"{tmp_path}/imgs/ann/2.png", 0), ("../imgs/bob/3.png", 0), ("4.png", 0)]
    for name in ("../imgs/ann", f"{tmp_path}/imgs/ann", "../work/../imgs/ann"):
        assert split(data, [name])[0].indices == [0, 1]
    assert split(data, ["."])[0].indices == split(data, ["../work"])[0].indices == [3]


@pytest.mark.parametrize(
    ("data", "chosen", "message"),
    [
        (DATA, [6], r"expected indices in 0\.\.5, got 6"),
        (DATA, [-1], r"expected indices in 0\.\.5, got -1"),
        (DATA, [], "some of 6 examples, not all, got 0"),
        (DATA, range(6), "some of 6 examples, not all, got 6"),
        (DATA, [True, False], "indices or names of files, got True"),
        (DATA, [1.0], "indices or names of files, got 1.0"),
        (DATA, ["bob"], "list has no samples that name its files, got 'bob'"),
        (Folder(DATA), ["bob/3.png"], r"got 'bob/3.png'\. They have names such as \['bob/[12]\.png'\]"),
        (Folder(DATA), ["bo"], r"got 'bo'\. They have names such as \['"),
    ],
)
def test_what_it_has_not_is_refused(data: list[object], chosen: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        split(data, chosen)  # type: ignore[arg-type]


def test_an_example_is_called_by_its_file() -> None:
    forget, _ = split(Folder(DATA), ["bob", "cid/2.png"])
    assert [file_of(forget, i) for i in range(3)] == ["bob/1.png", "bob/2.png", "cid/2.png"]
    elsewhere = Folder(DATA)
    elsewhere.root = "other"
    assert file_of(elsewhere, 0) == "faces/ann/1.png"


def test_samples_that_name_no_files_are_no_names() -> None:
    shapes: list[Any] = [None, 3, torch.ones(6, 2), [torch.ones(1)] * 6, [()] * 6, [(3, "a.png")] * 6, []]
    for samples in [*shapes, [("what is her job?", "cook")] * 6, ["what", "where"], "what"]:
        data = Folder(DATA)
        data.samples = samples
        assert file_of(data, 0) == ""
    rootless = Folder(DATA)
    rootless.root = None  # type: ignore[assignment]
    assert file_of(rootless, 0) == "faces/ann/1.png"
    assert file_of(DATA, 0) == ""


def test_one_index_is_a_choice_of_one() -> None:
    for chosen in (3, np.int64(3), torch.tensor(3), [3]):
        first, rest = split(list(range(10)), chosen)  # type: ignore[arg-type]
        assert ([*first], len(rest)) == ([3], 9)
