"""Requests of many examples that their data set tells apart, and pictures that other processes decode."""

import io
import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from speed.clock import Race, race
from unrecall.data.examples import Examples, Selection
from unrecall.data.identity import digests_of_rows
from unrecall.data.loading import BatchIndices, batches_of, workers
from unrecall.data.request import Request
from unrecall.tasks import Classification
from unrecall.tasks.base import check_inputs

COUNT, EACH = 10_000, 100
PROCESSES = 4


def run() -> list[Race]:
    return [*_requests(), _decoding()]


class Told:
    """Pictures that tell what they are by their bytes."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return self.inputs[index], int(self.labels[index])

    def identities(self, indices: Sequence[int], /) -> list[str]:
        return digests_of_rows((self.inputs, self.labels), indices)


def _requests() -> list[Race]:
    """Construction and check, by what is stored, against the same examples read one by one."""
    inputs, labels = torch.rand(COUNT + 3 * EACH, 3, 32, 32), torch.arange(COUNT + 3 * EACH) % 10
    told = Told(inputs, labels)
    listed = [(x, int(y)) for x, y in zip(inputs, labels, strict=True)]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).eval()

    def made(data: Examples) -> Request:
        cuts = [0, EACH, EACH + COUNT, 2 * EACH + COUNT, 3 * EACH + COUNT]
        forget, retain, holdout, test = (Selection(data, range(a, b)) for a, b in itertools.pairwise(cuts))
        return Request(forget, retain, holdout, test)

    def checked(data: Examples) -> None:
        check_inputs(Classification(), model, made(data))

    request, half = made(told), range(0, COUNT, 2)
    return [
        Race(
            f"request of {COUNT:,} pictures, checked",
            *race(lambda: checked(told), lambda: checked(listed), rounds=3),
            "each example read",
            "no target",
        ),
        Race(
            "a request made of another",
            *race(
                lambda: request.with_own(retain=Selection(request.retain, half)),
                lambda: Request(request.forget, Selection(request.retain, half), request.holdout, request.test),
                rounds=3,
            ),
            "the same made anew",
            "ratio >= 10",
        ),
    ]


class Jpegs:
    """Pictures of 256 x 256 as JPEG in memory, decoded whenever they are read."""

    def __init__(self, count: int) -> None:
        self.files = []
        for i in range(count):
            file, noise = io.BytesIO(), np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((256, 256)).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        picture = np.asarray(Image.open(io.BytesIO(self.files[index])))
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255, index % 2


def _decoding() -> Race:
    pictures = Jpegs(1024)

    def read(count: int) -> None:
        groups: Sequence[BatchIndices] = [BatchIndices(list(range(i, i + 32))) for i in range(0, len(pictures), 32)]
        with workers(count):
            for _ in batches_of(pictures, Classification().collate, groups, len(groups)):
                pass

    times = race(lambda: read(PROCESSES), lambda: read(0), rounds=3, clock=time.perf_counter)
    return Race(f"1,024 JPEGs, {PROCESSES} workers", *times, "read here", "ratio >= 2.5", "seconds on the wall")
