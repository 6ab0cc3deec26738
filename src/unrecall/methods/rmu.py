"""RMU: sends what forget looks like inside the model in a random direction, and holds what retain looks like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.errors import BadInput
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, Task, train_only
from unrecall.models.chosen_layers import activations, layers
from unrecall.models.observe import device_of, in_order
from unrecall.nn.hooks import stacked_experts
from unrecall.spec.parameters import Index, NonNegative, Positive
from unrecall.training.terms import Terms, weighted

PAPER = 7
"""The layer of a model with 32 that the paper steers."""
EXPERTS = {"experts", "shared_expert", "shared_experts"}
"""What Transformers calls the experts of a mixture."""
ROUTERS = {"gate", "router", "shared_expert_gate"}
"""What Transformers calls the layers that weigh the experts."""


@dataclass(frozen=True)
class RMU(GradientMethod):
    """Steers one layer's activations on forget to a fixed random vector, and holds them where they were on retain.

        L = mean ||h(x_f) - c u||^2 / d  +  alpha mean ||h(x_r) - h_0(x_r)||^2 / d

    h [d] is what the layer gives out at one position, h_0 the original's, u a unit vector whose entries were drawn
    uniformly from [0, 1) before it was scaled. The means run over all positions of all examples that are not padding,
    prompts included. Passes end at the layer: what comes after it is neither computed nor changed. Activations
    [examples, channels, height, width] have a position for each place and d channels.

    Args:
        layer: which of the model's numbered layers is steered, counted from 0 (all parts where they have no numbers).
            None: 7, as in the paper, where there are at least 8, and the middle one of fewer, (n - 1) // 2.
        update: what is trained in that layer and the two before it. "down", as in the official code, is each one's
            last trainable weight matrix by order of registration: the MLP's down_proj in Llama and Mistral,
            dense_4h_to_h in GPT-NeoX, c_proj in GPT-2. In a mixture of experts it is the last of each expert's,
            down_proj in Mixtral and Qwen3-MoE, and never the router's. "all" is every trainable weight, which suits
            adapters.
        c: the length that h is steered to.
        alpha: weight of the retain term.
        fit: AdamW, lr 5e-5, weight decay 0.01, batch 4, 80 steps.

    Expected to fail: relearning, for all layers but three are as they were, and the answers that are left are noise
    that tells what was forgotten. Where c is about the usual length of h, little moves.

    Reference: Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning", ICML 2024, arXiv
    2403.03218. Differs from the official code in leaving padding out of the means, and in mixtures of experts, where it
    trains one matrix of one expert. Its defaults are kept; the released
    Zephyr has c 6.5, alpha 1200 and 150 steps.
    """

    title = "RMU"
    strength = Strength(("c", "fit.lr"), high=2**10)

    layer: Index | None = None
    update: Literal["down", "all"] = "down"
    c: Positive = 20.0
    alpha: NonNegative = 100.0
    fit: Fit = Fit(optimizer="adamw", lr=5e-5, weight_decay=0.01, batch_size=4, epochs=80, steps=80)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it; all but the updated weights are frozen."""
        request, task, generator = job.request, job.task, job.generator
        parts, index = layers(task, student), self._number(student, task)
        self._free(student, parts[max(0, index - 2) : index + 1])
        layer, original_layer = parts[index][-1], layers(task, original)[index][-1]
        example = next(in_order(original, task, request.forget, 1))
        with torch.no_grad():
            goal = self.c * unit_vector(activations(original, original_layer, task, example, "RMU").shape[1], generator)
        goal = goal.to(device_of(original))

        def steered(model: nn.Module, batches: Batches) -> Tensor:
            forget = activations(model, layer, task, batches["forget"], "RMU")
            return F.mse_loss(forget, goal.expand_as(forget))

        def held(model: nn.Module, batches: Batches) -> Tensor:
            with torch.no_grad():
                anchor = activations(original, original_layer, task, batches["retain"], "RMU")
            return F.mse_loss(activations(model, layer, task, batches["retain"], "RMU"), anchor)

        if self.alpha == 0:
            return [Phase(Terms({"forget": steered}), {"forget": request.forget}, self.fit)]
        loss = Terms({"forget": steered, "retain": weighted(self.alpha, held)})
        return [Phase(loss, {"forget": request.forget, "retain": request.retain}, self.fit)]

    def _number(self, model: nn.Module, task: Task) -> int:
        """Gives the number of the layer that is steered, counted from 0."""
        count = len(layers(task, model))
        if self.layer is None:
            return PAPER if count > PAPER else (count - 1) // 2
        if self.layer >= count:
            raise BadInput(f"RMU: expected layer to be at most {count - 1} (the model's last), got {self.layer}.")
        return self.layer

    def _free(self, student: nn.Module, updated: Sequence[Sequence[nn.Module]]) -> None:
        """Freezes all weights but those that are updated; what was frozen before stays frozen."""
        free: list[nn.Parameter] = []
        for modules in updated:
            if self.update == "down":
                free += last_matrices(modules)
            else:
                free += [p for module in modules for p in module.parameters() if p.requires_grad]
        if not free:
            raise BadInput(
                "RMU: expected trainable weights in the updated layers, got none. Set layer to one with some."
            )
        train_only(student, free)


def last_matrices(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Gives the last trainable matrix by order of registration; in a mixture of experts that of each expert."""
    experts: dict[tuple[str, ...], nn.Parameter] = {}
    others: list[nn.Parameter] = []
    for module in modules:
        stacked = stacked_experts(module)
        for name, p in module.named_parameters():
            path = name.split(".")
            if not p.requires_grad or p.ndim < 2 or name.endswith("bias") or not ROUTERS.isdisjoint(path):
                continue
            place = next((i for i, part in enumerate(path) if part in EXPERTS), None)
            if place is not None:
                experts[tuple(path[: place + 1 + path[place + 1].isdecimal()])] = p
            elif name in stacked:
                experts[()] = p
            else:
                others.append(p)
    return list(experts.values()) or others[-1:]


def unit_vector(size: int, generator: torch.Generator) -> Tensor:
    """Draws entries uniformly from [0, 1), and scales them to length 1: `[size]`."""
    return F.normalize(torch.rand(size, generator=generator, device=generator.device), dim=0)
