"""Batches are the same whether they are made here or in other processes, and what goes wrong there is said here."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worlds import CPU, World, network
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.loading import BatchIndices, batches_of, workers
from unrecall.errors import BadInput
from unrecall.models.observe import observe
from unrecall.nn.seeds import reseed
from unrecall.tasks import Classification
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded


class Noisy:
    """Examples that are drawn anew whenever they are read."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return torch.rand(1, 4, 4), index % 4


class Failing(Noisy):
    """One of which can't be read."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        if index == 40:
            raise BadInput("picture 40: expected a picture, got none.")
        return super().__getitem__(index)


class Deadly(Noisy):
    """One of which ends the process that reads it."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        if index == 40:
            os._exit(9)
        return super().__getitem__(index)


def made(examples: Examples) -> Iterator[Any]:
    groups = [BatchIndices([i, i + 1], seed=i) for i in range(0, 64, 2)]
    return batches_of(examples, Classification().collate, groups, len(groups))


def test_workers_make_the_same_batches() -> None:
    with own_randomness(0):
        here = list(made(Noisy()))
    with workers(2):
        elsewhere = list(made(Noisy()))
    assert len(here) == len(elsewhere) == 32
    for first, second in zip(here, elsewhere, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in ("inputs", "targets", "index"))
    reseed_of_third = here[2]["inputs"][0]
    with own_randomness(99):
        reseed(4)
        assert torch.equal(torch.rand(1, 4, 4), reseed_of_third)


def test_training_and_signals_are_the_same(samples_world: World) -> None:
    w = samples_world

    def trained() -> tuple[dict[str, Tensor], list[float]]:
        model = network()
        phase = Phase(loss_on("noisy", w.task), {"noisy": Noisy()}, Fit(batch_size=8, epochs=2))
        fit(model, w.task, phase, seeded(3), CPU)
        return model.state_dict(), observe(model, w.task, w.request.retain, 8).loss.tolist()

    here, losses = trained()
    with workers(2):
        elsewhere, again = trained()
    assert losses == again
    assert all(torch.equal(here[name], elsewhere[name]) for name in here)


# PyTorch counts open files when a worker is gone, and leaves one open where the signal of that death comes meanwhile.
GONE = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.:pytest.PytestUnraisableExceptionWarning")


@GONE
def test_what_goes_wrong_there_is_said_here() -> None:
    with workers(2), pytest.raises(BadInput, match="picture 40: expected a picture, got none"):
        list(made(Failing()))
    with workers(2), pytest.raises(BadInput, match="workers: expected 2 processes that read data, got one that ended"):
        list(made(Deadly()))


@GONE
def test_the_environment_says_it_for_all_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRECALL_WORKERS", "2")
    with pytest.raises(BadInput, match="expected 2 processes that read data"):
        list(made(Deadly()))
    with workers(0):
        assert len(list(made(Noisy()))) == 32
    monkeypatch.setenv("UNRECALL_WORKERS", "two")
    with pytest.raises(BadInput, match="UNRECALL_WORKERS: expected a number of processes from 0 on, got 'two'"):
        list(made(Noisy()))


@pytest.mark.parametrize(("said", "kind"), [("DataLoader worker (pid 7) exited", BadInput), ("other", RuntimeError)])
def test_a_signal_that_comes_while_a_death_is_told(
    said: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def received(*_: object) -> Iterator[Batch]:
        yield {}
        raise RuntimeError(said)

    monkeypatch.setattr("unrecall.data.loading._received", received)
    with workers(2), pytest.raises(kind):
        list(made(Noisy()))


@pytest.mark.parametrize("count", [-1, True, 1.5])
def test_other_counts_are_refused(count: Any) -> None:
    with pytest.raises(BadInput, match="workers: expected a number of processes"), workers(count):
        pass


class Unsendable(Exception):
    """An error that can't be made anew from its words."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


class Locked(Noisy):
    """One of which raises what no other process can be given."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        if index == 40:
            raise Unsendable("scan 40", "the archive")
        return super().__getitem__(index)


class Tracked(Noisy):
    """Examples that require a gradient, which no other process can be given."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return torch.full((1, 4, 4), index / 64, requires_grad=True), index % 4


def test_what_can_not_be_sent_is_said_in_words() -> None:
    with workers(2), pytest.raises(RuntimeError, match="Unsendable: scan 40 in the archive"):
        list(made(Locked()))
    with workers(2):
        assert [float(batch["inputs"][0, 0, 0, 0]) for batch in made(Tracked())] == [i / 64 for i in range(0, 64, 2)]
