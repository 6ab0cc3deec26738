"""Memory left by hand, on models whose noise is known, and where there is none to speak of."""

from collections.abc import Mapping

import numpy as np
import pytest

from unrecall.evidence.pool import Arm
from unrecall.harness.memory_left import excess_of, left_of, rows_of_memory
from unrecall.record.schema import Measurement

Losses = dict[str, Mapping[Arm, np.ndarray]]


def confidence(forget: list[float], holdout: list[float]) -> Mapping[Arm, np.ndarray]:
    return {"forget": np.array(forget, float), "holdout": np.array(holdout, float)}


def test_the_share_by_hand() -> None:
    """Two retrained models with means (1, 0 | 0, 0); the original above them by (2, 1 | 1, 0), an own by (1, 1 | 1, 0).

    S = (2 * 1 + 1 * 1) / 2 - (1 * 1) / 2 = 1, of the original (4 + 1) / 2 - 1 / 2 = 2.
    """
    retrained = [confidence([0, 0], [0, 0]), confidence([2, 0], [0, 0])]
    original, own = confidence([3, 1], [1, 0]), confidence([2, 1], [1, 0])
    share = left_of(own, original, retrained, retrained)
    assert share.value == pytest.approx(1 / 2)
    assert left_of(original, original, retrained, retrained).value == pytest.approx(1)
    # Variances (2, 0 | 0, 0), typical 1/2, shrunken with 4 and 1 degrees: (0.8, 0.4 | 0.4, 0.4).
    squared = (4 * 0.8 + 1 * 0.4) / 2 / 2 + (1 * 0.4) / 2 / 2
    assert share.error == pytest.approx(np.sqrt(squared) / 2)


def test_a_retrained_model_is_weighed_by_the_others_alone() -> None:
    """Held against the mean over all, of which it is one half of two: by (-1, 0); the weights are the original's beyond
    the other, (1, 1 | 1, 0): S = -1 / 2, of the original (1 + 1) / 2 - 1 / 2."""
    first, second = confidence([0, 0], [0, 0]), confidence([2, 0], [0, 0])
    share = left_of(first, confidence([3, 1], [1, 0]), [second], [first, second])
    assert share.value == pytest.approx(-1)


def test_the_excess_by_hand() -> None:
    """Deviations from the mean (2 | 1) and the pooled variance over the others 2: (2 - 1) / sqrt(2)."""
    others = [confidence([0], [0]), confidence([2], [2])]
    assert excess_of(confidence([3], [2]), others, 1.0) == pytest.approx(1 / np.sqrt(2))
    harder = [confidence([0, 5, 9, 9, 9], [0, 5, 9, 9, 9])] * 2
    own = confidence([1, 9, 9, 9, 9], [0, 5, 9, 9, 9])
    assert excess_of(own, harder, 0.2) == pytest.approx(1e6), "the hardest alone: 1 - 0, over the least deviation"


def losses(seed: int, left: float, shared: float = 0.0, n: int = 100, models: int = 5) -> Losses:
    """Models whose confidence is 2 per example, noise 1; the original 2 more on forget; the unlearned a part of that.

    `shared`: how much of the original's noise the unlearned model has.
    """
    rng = np.random.default_rng(seed)

    def made(memory: float, noise: np.ndarray) -> Mapping[Arm, np.ndarray]:
        forget, holdout = np.split(2 + noise, 2)
        return {"forget": np.log1p(np.exp(-forget - memory)), "holdout": np.log1p(np.exp(-holdout))}

    noises = rng.normal(size=(models + 2, 2 * n))
    own = shared * noises[0] + np.sqrt(1 - shared**2) * noises[1]
    found = {"original": made(2.0, noises[0]), "unlearned": made(2.0 * left, own)}
    return found | {f"retrained {i}": made(0.0, noise) for i, noise in enumerate(noises[2:])}


def left(made: Losses, kind: str = "samples") -> Measurement:
    return next(row for row in rows_of_memory(made, kind) if row.name == "loss_left")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_it_reads_as_the_share_left(share: float) -> None:
    values = [left(losses(seed, share)).unlearned.value for seed in range(30)]
    assert np.mean([v for v in values if v is not None]) == pytest.approx(share, abs=0.04)


def test_what_a_model_shares_with_the_original_by_chance_is_no_memory() -> None:
    values = [left(losses(seed, 0.0, shared=0.8)).unlearned.value for seed in range(30)]
    assert abs(np.mean([v for v in values if v is not None])) < 0.05


def test_retrained_models_differ_by_as_much_as_the_interval_says() -> None:
    """Noise that is independent between examples: the ratio of both variances, over 60 settings, is about 1."""
    ratios = []
    for seed in range(60):
        row = left(losses(seed, 0.0))
        error = np.mean([((r.high or 0) - (r.low or 0)) ** 2 for r in row.references]) / 3.92**2
        ratios.append(np.var([r.value for r in row.references if r.value is not None], ddof=1) / error)
    assert 0.8 < np.mean(ratios) < 1.25


def test_where_there_is_no_memory_to_speak_of_a_row_says_why() -> None:
    made = losses(0, 0.5)
    assert "share the class that is to be forgotten" in left(made, "class").note
    few = {role: arms for role, arms in made.items() if role in ("original", "unlearned", "retrained 0")}
    assert left(few).note == "needs at least 2 retrained models, got 1"
    forgetful = made | {"original": made["retrained 4"]}
    assert "the original remembers forget no better than holdout" in left(forgetful).note
    assert left(forgetful).unlearned.value is None


def test_of_two_retrained_models_neither_has_another_two_to_be_measured_in() -> None:
    made = losses(0, 0.5, models=2)
    excess, hardest = rows_of_memory(made, "samples")[1:]  # type: ignore[arg-type]
    for row in (excess, hardest):
        assert row.unlearned.value is not None
        assert [one.value for one in row.references] == [None, None]
        assert row.references[0].note.startswith("needs two other retrained models")
        assert row.reference is None


def test_one_record_is_enough_for_a_figure() -> None:
    row = left(losses(3, 1.0, n=100) | {})
    assert row.unlearned.n == 100
    single = {role: {"forget": arms["forget"][:1], "holdout": arms["holdout"]} for role, arms in losses(3, 1.0).items()}
    made = rows_of_memory(single, "samples")[0]  # type: ignore[arg-type]
    assert (made.unlearned.value is None) == (made.original.value is None)
