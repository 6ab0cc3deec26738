"""What is said of residual knowledge beside its ratio: how often models must disagree, by hand."""

import numpy as np

from unrecall.attacks.residual_knowledge import Recognition, near_disagreement
from unrecall.harness.recognition import _disagreement

COUNTS = Recognition((0.0, 0.1), 10, np.array([[10, 10], [10, 5]]), np.array([[[10, 10], [6, 5]], [[10, 10], [8, 5]]]))


def test_the_bounds_stand_in_words() -> None:
    """|p_m - p_a| is .4, 0 and .2, 0: .15; 2 - p_a - p_m is .4, 1 and .2, 1: .65."""
    note = _disagreement(COUNTS, gaussian=False)
    assert note == "By these counts it disagrees with retrained models on 15.0% to 65.0% of the perturbed examples."
    near = near_disagreement(COUNTS)[-1]
    assert 0.15 < near < 0.65
    assert _disagreement(COUNTS, gaussian=True) == (
        f"{note[:-1]}; at least {near:.1%} of those lie within one radius of a disagreement."
    )


def test_one_retrained_model_is_too_few_and_no_radius_none() -> None:
    assert _disagreement(COUNTS._replace(references=COUNTS.references[:1]), gaussian=True) == ""
    still = COUNTS._replace(radii=(0.0, 0.0))
    assert "within one radius" not in _disagreement(still, gaussian=True)
