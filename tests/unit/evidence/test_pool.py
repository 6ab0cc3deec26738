"""Which examples teach an attack and which are tested, by hand and by law."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.errors import MissingReference
from unrecall.evidence.pool import Arm, Draw, draw_pool
from unrecall.training.randomness import seeded

Number = tuple[int]
FORGET: list[Number] = [(i,) for i in range(10)]
HOLDOUT: list[Number] = [(100 + i,) for i in range(6)]
REQUEST = Request(FORGET, [(50,)], HOLDOUT, [(60,)])
BARE = replace(REQUEST, holdout=Absent("nothing was held out"))


def numbers(examples: object) -> list[int]:
    return [examples[i][0] for i in range(len(examples))]  # type: ignore[index, arg-type]


def of_arm(drawn: Draw, arm: Arm) -> list[int]:
    """The tested examples of an arm, by way of its place in the pool."""
    place = drawn.places[arm]
    tested = numbers(drawn.pool.tested[place.in_set])
    return [tested[i] for i in place.positions]


def by_index(drawn: Draw, arm: Arm) -> list[int]:
    """The same examples, by their indices in the arm."""
    whole: Sequence[Number] = FORGET if arm == "forget" else HOLDOUT
    return [whole[i][0] for i in drawn.places[arm].indices]


def test_who_teaches_nothing_is_tested_on_all_of_both_arms() -> None:
    drawn = draw_pool(REQUEST, 0)
    assert numbers(drawn.pool.taught) == []
    assert [numbers(tested) for tested in drawn.pool.tested] == [[n for (n,) in FORGET], [n for (n,) in HOLDOUT]]
    assert of_arm(drawn, "forget") == by_index(drawn, "forget") == list(range(10))
    assert of_arm(drawn, "holdout") == by_index(drawn, "holdout") == list(range(100, 106))


def test_the_papers_teach_from_forget_alone_and_test_the_rest() -> None:
    drawn = draw_pool(REQUEST, 0, 3)
    taught, tested = numbers(drawn.pool.taught), of_arm(drawn, "forget")
    assert len(taught) == 3 and sorted(taught + tested) == list(range(10))
    assert tested == by_index(drawn, "forget")
    assert of_arm(drawn, "holdout") == list(range(100, 106))
    order = torch.randperm(10, generator=seeded(0)).tolist()
    assert taught == order[:3], "drawn from the seed"


def test_retested_examples_are_those_that_were_taught() -> None:
    drawn = draw_pool(REQUEST, 0, 3, retested=True)
    assert of_arm(drawn, "forget") == by_index(drawn, "forget") == numbers(drawn.pool.taught)
    assert of_arm(drawn, "holdout") == [100, 101, 102], "as many, for comparison"
    whole = draw_pool(REQUEST, 0, 10, retested=True)
    assert numbers(whole.pool.taught) == of_arm(whole, "forget") == list(range(10))
    assert of_arm(whole, "holdout") == list(range(100, 106))


def test_a_pair_of_arms_has_no_more_of_holdout_than_of_forget() -> None:
    drawn = draw_pool(replace(REQUEST, forget=FORGET[:3]), 0, paired=True)
    assert of_arm(drawn, "forget") == [0, 1, 2]
    assert of_arm(drawn, "holdout") == by_index(drawn, "holdout") == [100, 101, 102]
    assert of_arm(draw_pool(REQUEST, 0, paired=True), "holdout") == list(range(100, 106))


@pytest.mark.parametrize("retested", [False, True])
def test_without_a_holdout_forget_alone_is_tested(retested: bool) -> None:
    drawn = draw_pool(BARE, 0, 3, retested=retested)
    assert set(drawn.places) == {"forget"}
    assert len(drawn.pool.tested) == 1
    assert len(of_arm(drawn, "forget")) == (3 if retested else 7)
    with pytest.raises(MissingReference, match="expected a holdout for dose='both', got none"):
        draw_pool(BARE, 0, 3, dose="both")


def test_both_arms_teach_alike_and_the_rest_is_one_set() -> None:
    drawn = draw_pool(REQUEST, 0, 6, dose="both")
    taught = numbers(drawn.pool.taught)
    (tested,) = drawn.pool.tested
    assert len(taught) == 6 and sorted([*taught, *numbers(tested)]) == [*range(10), *range(100, 106)]
    for arm in ("forget", "holdout"):
        assert of_arm(drawn, arm) == by_index(drawn, arm)  # type: ignore[arg-type]
    assert sorted(of_arm(drawn, "forget") + of_arm(drawn, "holdout")) == sorted(numbers(tested))
    positions = np.concatenate([place.positions for place in drawn.places.values()])
    assert sorted(positions) == list(range(10)), "each tested example is of one arm"


def test_both_arms_retested() -> None:
    drawn = draw_pool(REQUEST, 0, 6, dose="both", retested=True)
    assert numbers(drawn.pool.tested[0]) == numbers(drawn.pool.taught)
    assert sorted(of_arm(drawn, "forget") + of_arm(drawn, "holdout")) == sorted(numbers(drawn.pool.taught))


@pytest.mark.parametrize("retested", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_dose_both_nothing_depends_on_which_arm_is_which(retested: bool, seed: int) -> None:
    """The arms change places, are shuffled, and one example moves over: the attack is given the very same pool."""
    own = draw_pool(REQUEST, seed, 6, dose="both", retested=retested)
    swapped = replace(REQUEST, forget=HOLDOUT, holdout=FORGET)
    mixed = replace(
        REQUEST, forget=[*HOLDOUT[::-1], FORGET[3]], holdout=[FORGET[i] for i in (9, 0, 1, 2, 4, 8, 7, 6, 5)]
    )
    for request in (swapped, mixed):
        other = draw_pool(request, seed, 6, dose="both", retested=retested)
        assert numbers(other.pool.taught) == numbers(own.pool.taught)
        assert numbers(other.pool.tested[0]) == numbers(own.pool.tested[0])
        assert torch.equal(other.pool.state, own.pool.state)


def test_another_seed_draws_another_pool() -> None:
    for dose in ("forget", "both"):
        first, second = (numbers(draw_pool(REQUEST, seed, 5, dose=dose).pool.taught) for seed in (0, 1))  # type: ignore[arg-type]
        assert first != second


def test_every_model_is_attacked_with_the_same_randomness() -> None:
    """The generator goes on from where the draw ended, and starts there again for the next model."""
    pool = draw_pool(REQUEST, 0, 3).pool
    generator = seeded(0)
    torch.randperm(10, generator=generator)
    expected = torch.rand(4, generator=generator)
    assert torch.equal(torch.rand(4, generator=pool.generator()), expected)
    assert torch.equal(torch.rand(4, generator=pool.generator()), expected)
