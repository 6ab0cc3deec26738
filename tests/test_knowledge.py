"""The laws of contribution, leverage, contamination and re-allocation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from unrecall.errors import BadInput
from unrecall.knowledge import contaminates, contribution, destroys, influence, leverage, reallocate

share = st.floats(1e-3, 0.999)
positive = st.floats(1e-3, 1e3)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def apart(first: float, second: float) -> bool:
    """Whether the second is the larger by more than rounding can eat."""
    return first < second * (1 - 1e-9)


def test_by_hand() -> None:
    """Weights 0.1 and 0.3 feed a parent of 0.4."""
    weights = t(0.1, 0.3)
    total = weights.sum()
    assert torch.allclose(contribution(weights, total), t(0.25, 0.75))
    assert float(influence(total)) == pytest.approx(0.9163, abs=1e-4)
    assert torch.allclose(leverage(weights, total), t(9.163, 3.054), atol=1e-3)


@given(st.lists(positive, min_size=1, max_size=8))
def test_contributions_sum_to_one(values: list[float]) -> None:
    weights = t(*values)
    assert float(contribution(weights, weights.sum()).sum()) == pytest.approx(1)


@given(share, share)
def test_influence_falls_as_the_parent_grows(first: float, second: float) -> None:
    assume(apart(first, second))
    assert float(influence(t(first))) > float(influence(t(second))) > 0


@given(share, st.floats(0.01, 1), st.floats(0.01, 1))
def test_leverage_grows_as_the_weight_shrinks(total: float, first: float, second: float) -> None:
    assume(apart(first, second))
    small, large = leverage(t(first * total, second * total), t(total)).tolist()
    assert small > large > 0
    assert small * first == pytest.approx(large * second), "leverage times weight is the influence"


@given(share, st.floats(0.01, 1), st.floats(-1, 1), positive)
def test_boundaries_are_their_inequalities(total: float, part: float, change: float, tau: float) -> None:
    """-log(W) / w |dw / w|  and, with C, -log(W) / W |dw / w|: the share that a component has cancels."""
    weight = part * total
    broken = -math.log(total) / weight * abs(change / weight)
    spoilt = -math.log(total) / total * abs(change / weight)
    assume(abs(broken - tau) > 1e-6 * tau)
    assume(abs(spoilt - tau) > 1e-6 * tau)
    assert destroys(t(weight), t(total), t(change), tau).tolist() == [broken > tau]
    assert contaminates(t(weight), t(total), t(change), tau).tolist() == [spoilt > tau]
    assert not destroys(t(weight), t(total), t(0), tau).any()
    assert spoilt <= broken * (1 + 1e-9), "what contaminates through a share of a parent destroys one that is all of it"


def test_shared_weights_contaminate_small_parents_first() -> None:
    """The same change of the same weight, in parents of 0.1, 0.2 and 0.8: 0.5 (-log W) / W is 11.5, 4.0, 0.14."""
    crossed = contaminates(t(0.1), t(0.1, 0.2, 0.8), t(0.05), 5.0)
    assert crossed.tolist() == [True, False, False]


# Re-allocation.


def test_reallocation_by_hand() -> None:
    """0.2 goes to siblings of 0.1 and 0.3 as 0.05 and 0.15; a second parent that it fed with nothing is as it was."""
    weights = torch.stack((t(0.2, 0.1, 0.3), t(0.0, 0.5, 0.25)), 1)
    before = weights.clone()
    assert torch.allclose(reallocate(weights, 0), torch.stack((t(0, 0.15, 0.45), t(0, 0.5, 0.25)), 1))
    assert torch.equal(weights, before)


columns = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(positive, min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(columns, st.data())
def test_reallocation_keeps_ratios_and_sums(values: list[list[float]], data: st.DataObject) -> None:
    weights = torch.tensor(values, dtype=torch.float64).T
    gone = data.draw(st.integers(0, len(weights) - 1))
    healed = reallocate(weights, gone)
    assert not healed[gone].any()
    assert torch.allclose(healed.sum(0), weights.sum(0), rtol=1e-9)
    left = [i for i in range(len(weights)) if i != gone]
    ratios = healed[left] / weights[left]
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-9), "one factor for all siblings of a parent"
    assert bool((ratios > 1).all())
    for j in range(weights.shape[1]):
        assert torch.equal(reallocate(weights[:, j], gone), healed[:, j]), "each parent by itself"


@given(st.lists(positive, min_size=3, max_size=6))
def test_the_order_in_which_components_go_does_not_matter(values: list[float]) -> None:
    weights = t(*values)
    one, other = reallocate(reallocate(weights, 0), 1), reallocate(reallocate(weights, 1), 0)
    assert torch.allclose(one, other, rtol=1e-9)


def test_reallocation_needs_siblings_with_a_weight() -> None:
    with pytest.raises(BadInput, match="siblings of component 0"):
        reallocate(t(0.5), 0)
    with pytest.raises(BadInput, match="siblings of component 1"):
        reallocate(torch.stack((t(0.1, 0.2), t(0.0, 0.3)), 1), 1)
    assert reallocate(t(0.0, 0.0), 1).tolist() == [0, 0], "nothing goes where nothing was"


@pytest.mark.parametrize(
    ("weights", "gone", "said"),
    [
        (t(-0.1, 0.2), 0, "none negative"),
        (t(float("nan"), 0.2), 0, "none negative"),
        (t(0.1, 0.2).reshape(1, 1, 2), 0, "components, parents"),
        (t(0.1, 0.2), 2, r"gone in 0\.\.1"),
        (t(0.1, 0.2), -1, r"gone in 0\.\.1"),
        (torch.zeros(0), 0, "gone in"),
    ],
)
def test_reallocation_refuses_what_is_no_weight(weights: Tensor, gone: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        reallocate(weights, gone)
