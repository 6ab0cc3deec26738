"""Knowledge as weight that components hand to their parents: what unlearning breaks, and how a gap is healed.

A component i feeds a parent with a weight w_i >= 0; its siblings are the other components that feed the same parent,
and W, the sum over all of them, is the parent's weight: a share of its level's, so that it lies in (0, 1].

Reference: Shin, Tapia, Diaz, Ferreira, Daneshyari, Jeon, "ROKA", arXiv 2603.00436, 2026, from notes. The paper states
the boundary as a divergence of outputs that is proportional to leverage times relative change; tau takes the factor in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrecall.errors import BadInput


def contribution(weight: Tensor, total: Tensor) -> Tensor:
    """C = w_i / W: how much of a parent is component i. A parent's contributions sum to 1."""
    return weight / total


def influence(total: Tensor) -> Tensor:
    """-log W, in nats: how much a parent's say in the system's entropy can change. It falls as W grows."""
    return -total.log()


def leverage(weight: Tensor, total: Tensor) -> Tensor:
    """-log(W) / w_i: influence for each unit of weight, the highest for the small components of small parents."""
    return influence(total) / weight


def destroys(weight: Tensor, total: Tensor, change: Tensor, tau: float) -> Tensor:
    """Whether a change dw of w_i crosses the parent's boundary:  leverage |dw / w_i| > tau."""
    return leverage(weight, total) * (change / weight).abs() > tau


def contaminates(weight: Tensor, total: Tensor, change: Tensor, tau: float) -> Tensor:
    """Whether a change dw of a shared w_i crosses the boundary of a parent that stays:  C leverage |dw / w_i| > tau."""
    return contribution(weight, total) * leverage(weight, total) * (change / weight).abs() > tau


def reallocate(weights: Tensor, gone: int) -> Tensor:
    """Takes component `gone` away and shares out its weight among its siblings, in proportion to theirs.

        w'_gone = 0,    w'_j = w_j + w_gone w_j / sum_{k != gone} w_k

    `weights` are `[components]` of one parent, or `[components, parents]`, each column by itself. Ratios between
    siblings stay, and so does each column's sum. Raises BadInput where a parent would be left with nothing.
    """
    if weights.ndim not in (1, 2) or not bool((weights.isfinite() & (weights >= 0)).all()):
        raise BadInput(
            f"reallocate: expected weights [components] or [components, parents], none negative, got "
            f"{tuple(weights.shape)} with a least value of {float(weights.min()) if weights.numel() else 0:g}."
        )
    if not 0 <= gone < len(weights):
        raise BadInput(f"reallocate: expected gone in 0..{len(weights) - 1} (the components), got {gone}.")
    left = weights.clone()
    left[gone] = 0
    rest = left.sum(0)
    if bool(((weights[gone] > 0) & (rest == 0)).any()):
        raise BadInput(
            f"reallocate: expected siblings of component {gone} that can take its weight, got none with a weight."
        )
    return left + weights[gone] * left / torch.where(rest > 0, rest, 1)
