"""Quantisation: rounding weights to few bits undoes changes smaller than half a step, and what they hid returns."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.data.examples import Selection, evenly
from unrecall.errors import BadInput
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.layers import matrices, weight_of
from unrecall.models.rounding import Rounded, input_moments, to_compensated_levels, to_even_levels, to_normal_floats
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count
from unrecall.training.ascent import Cell, ascend_within
from unrecall.training.copies import own_copy
from unrecall.training.job import Job

Bits: TypeAlias = Annotated[int, Field(ge=2, le=8)]


@dataclass(frozen=True)
class Quantise(RecoveryAttack):
    """Rounds every matrix of a copy to the nearest of a few levels, as models are shrunk for use; trains nothing.

        s = max |w| / (2^(bits-1) - 1),    w <- s round(w / s)

    with one s for each output channel at 8 bits, and for each `group` inputs of one below. Rounded are the matrices of
    linear layers and convolutions; embeddings and head (tied or not; of a dual encoder, both projections), norms and
    biases stay as they are, as bitsandbytes leaves them. The levels are simulated in the model's own precision, so
    that it runs anywhere.

    Positive control: the original, moved by gradient ascent on forget, each weight only as far as it still rounds to
    the same level at the fewest bits; with "gptq" the original itself.

    Args:
        bits: of each weight, 2 to 8, one point of the curve each.
        group: inputs that share a step below 8 bits; the last of a row may be smaller.
        rounding: "nearest" (of even levels); "nf4" (at 4 bits to the nearest of QLoRA's 16 normal floats, scaled by the
            group's largest magnitude; 4 and 8 bits only); "gptq" (input by input, those that follow making up for the
            error as far as retain examples tell; layers whose inputs can't be read are rounded to the nearest).
        calibration: retain examples that "gptq" reads, evenly spread.

    Expected to fail: where unlearning moved weights by more than half a step: all of them at a high learning rate, or
    a few by much. At few bits it ruins a small model, and what is ruined recalls nothing.

    Reference: Zhang, Wang, Li, Wu, Tang, Liu, He, Yin, Wang, "Catastrophic Failure of LLM Unlearning via
    Quantization", ICLR 2025, arXiv 2410.16454. NF4: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", NeurIPS 2023,
    arXiv 2305.14314. GPTQ: Frantar, Ashkboos, Hoefler, Alistarh, ICLR 2023, arXiv 2210.17323. Differs from the papers
    in simulating the rounding, in groups that end with a row (NF4's go on), in inputs of the model before any rounding
    and in their order for GPTQ, and in leaving out AWQ.
    """

    title: ClassVar[str] = "Quantisation"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the weights: rounds a copy",
        data="none; with rounding='gptq' retain examples",
        budget="how many times smaller than 32-bit weights the copy is; no training",
    )
    judged: ClassVar[str] = "mean"
    axis: ClassVar[str] = "times smaller than 32-bit weights"

    bits: tuple[Bits, ...] = (8, 4)
    group: Count = 64
    rounding: Literal["nearest", "nf4", "gptq"] = "nearest"
    calibration: Count = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounding == "nf4" and not {4, 8}.issuperset(self.bits):
            other = next(bits for bits in self.bits if bits not in (4, 8))
            raise BadInput(f"Quantise: expected 4 or 8 bits with rounding='nf4', got {other}. Choose another rounding.")

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One rounded copy for each number of bits."""
        task, retain = setting.task, setting.request.retain
        moments: Mapping[int, Tensor] = {}
        if self.rounding == "gptq":
            layers = {str(i): layer for i, layer in enumerate(matrices(model, task, retain))}
            read = Selection(retain, evenly(len(retain), self.calibration))
            moments = {int(i): moment for i, moment in input_moments(model, task, read, layers).items()}
        for bits in sorted(set(self.bits), reverse=True):
            attacked = copy.deepcopy(model).eval()
            for i, weight in enumerate(map(weight_of, matrices(attacked, task, retain))):
                if i in moments:
                    weight.copy_(to_compensated_levels(weight, bits, self.group, moments[i]))
                else:
                    weight.copy_(self.rounded(weight, bits).weight)
            yield Attacked(32 / bits, attacked, pool.tested, f"{bits} bits")

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, moved inside the cells of its coarsest rounding, which brings the rounded original back.

        None where rounding is by "gptq", which keeps what a layer gives out, and with it what such a copy hides.
        """
        if self.rounding == "gptq":
            return None
        copied = own_copy(original)
        ascend_within(copied, matrices(copied, job.task, job.request.retain), self._cell, job)
        return copied

    def rounded(self, weight: Tensor, bits: int) -> Rounded:
        """What becomes of a weight `[out, in, ...]` at so many bits, whatever enters its layer."""
        if self.rounding == "nf4" and bits == 4:
            return to_normal_floats(weight, self.group)
        return to_even_levels(weight, bits, self.group)

    def _cell(self, weight: Tensor) -> Cell:
        """How low and how high each weight may go; what sets a step stays, so that the steps do."""
        level, step, top = self.rounded(weight, min(self.bits))
        fixed = weight.abs() >= top
        low, high = (level - 0.49 * step).maximum(-top), (level + 0.49 * step).minimum(top)
        return torch.where(fixed, weight, low), torch.where(fixed, weight, high)
