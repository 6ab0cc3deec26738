"""How many steps so many examples take."""

import pytest

from unrecall.training.budget import drawing
from unrecall.training.loop import Fit, Phase, total_steps


@pytest.mark.parametrize(
    ("count", "examples", "recipe", "steps"),
    [
        (300, 100, Fit(batch_size=32), 12),  # three epochs of 32, 32, 32 and 4
        (320, 100, Fit(batch_size=32), 13),
        (320, 20, Fit(batch_size=32), 16),  # batches of 20
        (320, 1000, Fit(batch_size=32), 10),  # a part of an epoch
        (320, 100, Fit(batch_size=32, epochs=3), 38),
        (320, 100, Fit(batch_size=32, steps=4), 4),
        (1, 100, Fit(batch_size=32), 1),
    ],
)
def test_steps_by_hand(count: int, examples: int, recipe: Fit, steps: int) -> None:
    data = list(range(examples))
    lasting = drawing(recipe, count, data)
    assert total_steps(Phase(lambda *_: None, {"retain": data}, lasting)) == steps  # type: ignore[arg-type, return-value]
