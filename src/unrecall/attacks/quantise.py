"""Quantisation: rounding weights to few bits undoes changes smaller than half a step, and what they hid returns."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack, ascend
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.layers import matrices, weight_of
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count
from unrecall.training.job import Job
from unrecall.training.loop import StepState, plain_step

Bits: TypeAlias = Annotated[int, Field(ge=2, le=8)]


class Rounded(NamedTuple):
    """Weights `[out, in, ...]` after rounding, the step at each, and the largest magnitude, which sets it."""

    weight: Tensor
    step: Tensor
    top: Tensor


@dataclass(frozen=True)
class Quantise(RecoveryAttack):
    """Rounds every matrix of a copy to the nearest of a few levels, as models are shrunk for use; trains nothing.

        s = max |w| / (2^(bits-1) - 1),    w <- s round(w / s)

    with one s for each output channel at 8 bits, and for each `group` inputs of one below. Rounded are the matrices of
    linear layers and convolutions; embeddings and head (tied or not; of a dual encoder, both projections), norms and
    biases stay as they are, as bitsandbytes leaves them. The levels are simulated in the model's own precision, so
    that it runs anywhere.

    Positive control: the original, moved by gradient ascent on forget, each weight only as far as it still rounds to
    the same level at the fewest bits.

    Args:
        bits: of each weight, 2 to 8, one point of the curve each.
        group: inputs that share a step below 8 bits; the last of a row may be smaller.

    Expected to fail: where unlearning moved weights by more than half a step: all of them at a high learning rate, or
    a few by much. At few bits it ruins a small model, and what is ruined recalls nothing.

    Reference: Zhang, Wang, Li, Wu, Tang, Liu, He, Yin, Wang, "Catastrophic Failure of LLM Unlearning via
    Quantization", ICLR 2025, arXiv 2410.16454. Differs from the paper in simulating the rounding, in the groups, and
    in leaving out GPTQ and AWQ, which calibrate on data.
    """

    title: ClassVar[str] = "Quantisation"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: rounds a copy",
        data="none",
        budget="how many times smaller than 32-bit weights the copy is; no training",
    )
    judged: ClassVar[str] = "mean"
    axis: ClassVar[str] = "times smaller than 32-bit weights"

    bits: tuple[Bits, ...] = (8, 4)
    group: Count = 64

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One rounded copy for each number of bits."""
        for bits in sorted(set(self.bits), reverse=True):
            attacked = copy.deepcopy(model).eval()
            for weight in map(weight_of, matrices(attacked, setting.task, setting.request.retain)):
                weight.copy_(self.rounded(weight, bits).weight)
            yield Attacked(32 / bits, attacked, pool.tested, f"{bits} bits")

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, moved inside the cells of its coarsest rounding, which brings the rounded original back."""
        copied = copy.deepcopy(original)
        rounded = matrices(copied, job.task, job.request.retain)
        cells = [(weight_of(layer), *self._cell(weight_of(layer))) for layer in rounded]

        def inside(current: StepState) -> Tensor:
            loss = plain_step(current)
            for weight, low, high in cells:
                weight.clamp_(low, high)
            return loss

        ascend(copied, [layer.weight for layer in rounded], job, inside)
        return copied

    def rounded(self, weight: Tensor, bits: int) -> Rounded:
        """What becomes of a weight `[out, in, ...]` at so many bits."""
        rows = weight.float().flatten(1)
        width = rows.shape[1]
        size = width if bits == 8 else min(self.group, width)
        grouped = F.pad(rows, (0, -width % size)).view(len(rows), -1, size)
        top = grouped.abs().amax(2, keepdim=True)
        step = top / (2 ** (bits - 1) - 1)
        level = (grouped / step.clamp_min(torch.finfo(step.dtype).tiny)).round() * step
        parts = (part.expand_as(grouped).flatten(1)[:, :width] for part in (level, step, top))
        return Rounded(*(part.reshape(weight.shape).to(weight.dtype) for part in parts))

    def _cell(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """How low and how high each weight may go; what sets a step stays, so that the steps do."""
        level, step, top = self.rounded(weight, min(self.bits))
        fixed = weight.abs() >= top
        low, high = (level - 0.49 * step).maximum(-top), (level + 0.49 * step).minimum(top)
        return torch.where(fixed, weight, low), torch.where(fixed, weight, high)
