"""A control where training is possible: the smallest share of forget left in training that an audit sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall.data.examples import Joined, Selection
from unrecall.data.request import Request
from unrecall.errors import BadInput, at_least, check_fields
from unrecall.record.schema import Label, Record

SHARES = (0.1, 0.25, 0.5)


class Sensitivity(NamedTuple):
    """Which partial copies an audit calls a leak, by the share of forget that each was trained on.

    `smallest`: the smallest share that it calls a leak, as it does all larger ones; None where it misses the largest.
    """

    labels: dict[float, Label]
    smallest: float | None


def partial_copies(
    request: Request, retrain: Callable[[Request, int], nn.Module], shares: Sequence[float] = SHARES, seed: int = 0
) -> dict[float, nn.Module]:
    """A model for each share, trained on retain and that share of forget, drawn at random; each holds the ones before.

    `retrain(request, index)`: a model that was trained without `request.forget` (see `Defender.retrain`).
    """
    check_fields("partial_copies", {"seed": (at_least(0), "a whole number from 0 on")}, {"seed": seed})
    n, models = len(request.forget), dict[float, nn.Module]()
    if not isinstance(shares, Sequence) or not all(isinstance(s, float) and 0 < s < 1 for s in shares):
        raise BadInput(f"partial_copies: expected a list of shares between 0 and 1, got {shares!r:.60}.")
    if len({round(share * n) for share in shares}) < len(shares):
        raise BadInput(f"partial_copies: expected shares that differ by an example of {n}, got {list(shares)}.")
    # a part of a class is no class request
    samples = request if request.kind != "class" else replace(request, kind="samples", masked=())
    order = np.random.default_rng(seed).permutation(n).tolist()
    for i, share in enumerate(sorted(shares)):
        left = round(share * n)
        if not 0 < left < n:
            raise BadInput(
                f"partial_copies: expected a share of some of {n} examples and not all, got {share:g}. Name another."
            )
        taught, untaught = Selection(request.forget, order[:left]), Selection(request.forget, order[left:])
        models[share] = retrain(samples.with_own(forget=untaught, retain=Joined([request.retain, taught])), 1000 + i)
    return models


def sensitivity(copies: Mapping[float, nn.Module], audited: Callable[[nn.Module], Record]) -> Sensitivity:
    """What `audited`, an audit of one model by the request as it stands, says of each copy."""
    if not isinstance(copies, Mapping) or not copies:
        got = f"{copies!r:.60}" if copies else "none"
        raise BadInput(f"sensitivity: expected a model for each share, got {got}. Train some: partial_copies(...).")
    labels: dict[float, Label] = {share: audited(copies[share]).verdict.label for share in sorted(copies)}
    smallest = None
    for share in sorted(copies, reverse=True):
        if labels[share] != "leaks":
            break
        smallest = share
    return Sensitivity(labels, smallest)
