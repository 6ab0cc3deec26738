"""Partial copies: what they are trained on, and the smallest share that an audit sees."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.harness.partial_copies import partial_copies, sensitivity
from unrecall.record.schema import Label


def pictures(first: int, count: int) -> list[tuple[float, int]]:
    return [(float(first + i), 0) for i in range(count)]


def test_each_copy_is_trained_on_its_share_and_on_what_smaller_ones_were() -> None:
    request = Request(pictures(0, 8), pictures(100, 4), pictures(200, 2), pictures(300, 2))
    trained: list[set[float]] = []

    def retrain(asked: Request, index: int) -> nn.Module:
        assert index == 1000 + len(trained)
        retain = {asked.retain[i][0] for i in range(len(asked.retain))}  # type: ignore[index]
        gone = {asked.forget[i][0] for i in range(len(asked.forget))}  # type: ignore[index]
        assert not retain & gone
        assert retain | gone == {x for x, _ in pictures(0, 8) + pictures(100, 4)}
        trained.append({x for x in retain if x < 100})
        return nn.Linear(1, 1)

    copies = partial_copies(request, retrain, (0.5, 0.25))
    assert list(copies) == [0.25, 0.5]
    assert [len(part) for part in trained] == [2, 4]
    assert trained[0] < trained[1]
    with pytest.raises(BadInput, match=r"expected a share of some of 8 examples and not all, got 0\.01"):
        partial_copies(request, retrain, (0.01,))


def test_copies_of_persons_of_a_class_and_of_planted_records_are_requests_for_samples() -> None:
    forget, retain, holdout = pictures(0, 8), [(x, 1) for x, _ in pictures(100, 4)], pictures(200, 8)
    whose = {"forget": ["ann"] * 8, "holdout": ["bob"] * 4 + ["cy"] * 4}
    requests = [
        Request(forget, retain, holdout, groups=whose),
        Request(forget, retain, holdout, kind="class", masked=(0,)),
        Request(forget, retain, holdout, control="planted", pairs=tuple(range(8))),
    ]
    asked: list[Request] = []

    def retrain(request: Request, index: int) -> nn.Module:
        asked.append(request)
        return nn.Linear(1, 1)

    for request in requests:
        partial_copies(request, retrain, (0.5,))
    assert [(len(each.forget), each.kind, each.masked, each.groups, each.pairs) for each in asked] == [
        (4, "samples", (), None, None)
    ] * 3


def test_what_is_no_seed_and_no_models_is_refused() -> None:
    request = Request(pictures(0, 8), [(x, 1) for x, _ in pictures(100, 4)], pictures(200, 8))
    for seed in ("x", -1):
        with pytest.raises(BadInput, match="partial_copies: expected seed to be a whole number from 0 on"):
            partial_copies(request, lambda *_: nn.Linear(1, 1), seed=seed)  # type: ignore[arg-type]
    for copies in ([1], {}):
        with pytest.raises(BadInput, match="sensitivity: expected a model for each share, got"):
            sensitivity(copies, lambda _: pytest.fail("nothing is to be audited"))  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [(float("nan"),), (1.0,), 0.5, ("0.5",), (0.5, 0.5), (0.5, 0.51)])
def test_shares_that_are_none_or_the_same_are_refused(shares: Any) -> None:
    request = Request(pictures(0, 8), pictures(100, 4), pictures(200, 2), pictures(300, 2))
    with pytest.raises(BadInput, match="partial_copies: expected"):
        partial_copies(request, lambda *_: nn.Linear(1, 1), shares)


@pytest.mark.parametrize(
    ("labels", "smallest"),
    [
        (("inconclusive", "leaks", "leaks"), 0.25), (("leaks", "inconclusive", "leaks"), 0.5),
        (("leaks", "leaks", "like retrained"), None), (("leaks", "leaks", "leaks"), 0.1),
    ],
)  # fmt: skip
def test_the_smallest_share_that_is_seen_is_one_above_which_none_is_missed(
    labels: tuple[Label, ...], smallest: float | None
) -> None:
    copies: dict[float, nn.Module] = {share: nn.Linear(1, 1) for share in (0.5, 0.1, 0.25)}
    said = {id(copies[share]): label for share, label in zip((0.1, 0.25, 0.5), labels, strict=True)}

    def audited(model: nn.Module) -> Any:
        return SimpleNamespace(verdict=SimpleNamespace(label=said[id(model)]))

    seen = sensitivity(copies, audited)
    assert (seen.smallest, list(seen.labels.values())) == (smallest, list(labels))
    with pytest.raises(BadInput, match="expected a model for each share, got none"):
        sensitivity({}, audited)
