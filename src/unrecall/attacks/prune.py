"""Pruning: what unlearning wrote into small weights goes when these are set to 0, and what it hid returns."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.errors import BadInput
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.layers import matrices, weight_of
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import ProperShare, Share
from unrecall.training.ascent import Cell, ascend_within
from unrecall.training.copies import own_copy, usefulness
from unrecall.training.job import Job


@dataclass(frozen=True)
class Prune(RecoveryAttack):
    """Sets the smallest weights of every matrix of a copy to 0, as models are made sparse for use; trains nothing.

        w <- 0 where |w| <= the k-th smallest |w| of the matrix,    k = share * size, rounded down

    in linear layers and convolutions; embeddings and head (tied or not), norms and biases stay as they are. A
    classifier's copy counts while it is of use.

    Positive control: the original, whose weights that the largest share prunes were moved by gradient ascent on forget,
    none beyond the smallest weight that stays.

    Args:
        shares: of each matrix that go, one point of the curve each.
        retain_drop: the share of its retain accuracy that the attacker of a classifier gives up.

    Expected to fail: where unlearning moved large weights, as most methods do beside small ones. A large share ruins a
    model, and what is ruined recalls nothing.

    Reference: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NIPS 2015,
    arXiv 1506.02626. Differs from the paper in pruning an unlearned model, each matrix for itself, and in training
    nothing afterwards; the shares are ours.
    """

    title: ClassVar[str] = "Pruning"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: changes a copy",
        data="none; retain examples of a classifier, to see it is of use",
        budget="the share of each matrix that is set to 0; no training",
    )
    axis: ClassVar[str] = "share of each matrix that is set to 0"

    shares: tuple[ProperShare, ...] = (0.1, 0.2, 0.3, 0.5)
    retain_drop: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares:
            raise BadInput("Prune: expected at least one share, got none. Name how much of each matrix goes.")

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One sparse copy for each share."""
        useful = usefulness(model, setting.request, setting.task, self.retain_drop)
        for share in sorted(set(self.shares)):
            attacked = copy.deepcopy(model).eval()
            for weight in map(weight_of, matrices(attacked, setting.task, setting.request.retain)):
                weight.masked_fill_(weight.abs() <= edge(weight, share), 0)
            yield Attacked(share, attacked, pool.tested, useful=useful(attacked))

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, moved in its smallest weights alone, so that pruning makes it the pruned original."""
        copied = own_copy(original)
        layers = matrices(copied, job.task, job.request.retain)
        ascend_within(copied, layers, lambda weight: _bounds(weight, max(self.shares)), job)
        return copied


def edge(weight: Tensor, share: float) -> Tensor:
    """The magnitude of the largest weight that a share prunes; below all where it prunes none."""
    k = int(share * weight.numel())
    return weight.abs().flatten().kthvalue(k).values if k else torch.full((), -1.0)


def _bounds(weight: Tensor, share: float) -> Cell:
    """How low and how high each weight may go: what is pruned as far as the edge, what stays nowhere."""
    end, value = edge(weight, share).to(weight), weight.clone()
    pruned = value.abs() <= end
    return torch.where(pruned, -end, value), torch.where(pruned, end, value)
