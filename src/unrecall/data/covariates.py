"""How hard each of some examples is, as numbers that a test takes out of scores before it compares them."""

from dataclasses import dataclass

import numpy as np

FIRST_TO_GO = ("distance", "class", "words", "square")
"""Which groups of columns are left out first where examples are few; what stands in no such group stays."""


@dataclass(frozen=True, eq=False)
class Covariates:
    """What is known of the difficulty of `n` examples without any of the models that an audit compares.

    `names` and `groups` [k]: what each column is, and what it belongs to. `values` [n, k]: finite, float64, without a
    column of ones. `read`: how many retain examples were read. `trained_on`: sha256 over the digests of those, in
    order.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    values: np.ndarray
    read: int = 0
    trained_on: str = ""

    def __len__(self) -> int:
        return len(self.values)


def no_covariates(n: int) -> Covariates:
    """Nothing known of `n` examples: no columns."""
    return Covariates((), (), np.empty((n, 0)))
