"""Seeds at three levels: none of a lower level comes twice, and each method gets the same."""

import pytest

from unrecall.errors import BadInput
from unrecall.experiment.seeds import Seeds, nested, seeds_of


def test_one_number_is_the_seed_of_all() -> None:
    assert nested(3) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert Seeds.of(2) == (2, 2, 2)
    assert (Seeds.of(2).name, Seeds.of(2).differing) == ("seed-2", {})


def test_levels_are_nested() -> None:
    expected = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (0, 1, 3), (1, 2, 4), (1, 2, 5), (1, 3, 6), (1, 3, 7)]
    assert seeds_of("2x2x2") == expected
    assert [seeds.name for seeds in seeds_of("2x2")] == ["seed-0", "seed-0-1-1", "seed-1-2-2", "seed-1-3-3"]
    assert Seeds(0, 1, 1).differing == {"training": 0, "unlearning": 1}


@pytest.mark.parametrize("text", ["", "0", "two", "-1", "2x", "2x0", "1x1x1x1", "1.5", "²", "1000x1000x1000"])
def test_no_count_is_an_error(text: str) -> None:
    with pytest.raises(BadInput, match="--seeds: expected a whole number"):
        seeds_of(text)
