"""How long a recipe is whose length is said in examples, and not in passes over a data set."""

import math
from dataclasses import replace

from unrecall.data.examples import Examples
from unrecall.training.loop import Fit


def drawing(fit: Fit, count: int, examples: Examples) -> Fit:
    """The recipe, as long as it takes to draw `count` of the examples, `fit.epochs` times over; `fit.steps` caps it."""
    total, n = count * fit.epochs, len(examples)
    steps = total // n * math.ceil(n / fit.batch_size) + math.ceil(total % n / fit.batch_size)
    return replace(fit, epochs=math.ceil(total / n), steps=min(steps, fit.steps or steps))
