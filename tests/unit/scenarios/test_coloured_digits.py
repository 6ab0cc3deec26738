"""Digits in colour: the colour goes with the class in training and in the holdout, and not in test."""

import pytest
import torch

from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.scenarios.coloured_digits import ColouredDigits, inked
from unrecall.training.objectives import ULE


def agreeing(examples: object) -> tuple[float, int]:
    """The share of examples whose ink is that of their class, and how many they are."""
    agrees = []
    for picture, label, group in iterate(examples):  # type: ignore[arg-type]
        colour = int(picture[1].sum() > 0)
        assert picture[2].sum() == 0 and (picture[1 - colour] == 0).all() and picture[colour].sum() > 0
        assert group == f"{('0-4', '5-9')[label]}, {('red', 'green')[colour]}"
        agrees.append(colour == label)
    return sum(agrees) / len(agrees), len(agrees)


def test_ink_is_one_channel() -> None:
    picture = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    for colour in (0, 1):
        coloured = inked(picture, colour)
        assert coloured.shape == (3, 2, 2)
        assert torch.equal(coloured[colour], picture) and float(coloured.sum()) == float(picture.sum())


def test_colour_goes_with_the_class_in_all_but_the_test_set() -> None:
    request = ColouredDigits(rho=0.9).make().request
    shares = {name: agreeing(examples) for name, examples in request.sets.items()}
    for name in ("forget", "retain", "holdout"):
        share, count = shares[name]
        assert abs(share - 0.9) < 4 * (0.09 / count) ** 0.5, name
    share, count = shares["test"]
    assert abs(share - 0.5) < 4 * (0.25 / count) ** 0.5
    assert sum(count for name, (_, count) in shares.items() if name in ("forget", "retain")) == 1000
    assert len({group for *_, group in iterate(request.test)}) == 4


def test_at_rho_1_colour_is_the_class_and_at_0_the_other() -> None:
    for rho in (1.0, 0.0):
        assert agreeing(ColouredDigits(rho=rho).make().request.retain)[0] == rho


def test_the_objective_is_the_scenarios() -> None:
    assert ColouredDigits(objective="ule:weight=3").make().objective == ULE(weight=3)
    with pytest.raises(BadInput, match="objective: expected plain, nib, ule, got 'ul'"):
        ColouredDigits(objective="ul").make()


def test_a_class_is_one_of_two() -> None:
    assert {label for _, label, _ in iterate(ColouredDigits(forget="half:1").make().request.forget)} == {1}
    with pytest.raises(BadInput, match=r"expected a class in 0\.\.1, got '3'"):
        ColouredDigits(forget="half:3").make()
