"""LAT: another method's forgetting, made to hold where something inside the model speaks for what was forgotten."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Around, Batch, Batches, GradientMethod, Job, Phase, Plugin, Task
from unrecall.methods.npo import NPO
from unrecall.models.chosen_layers import layers
from unrecall.nn.hooks import capture, frozen, mode, until
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.training.loop import plain_step
from unrecall.training.terms import Terms, terms_of

PAPER = 7
"""The layer of a model with 32 in which the authors attack, where they unlearn WMDP."""
TINY = 1e-20
"""Keeps a direction finite where there is no gradient."""


@dataclass(frozen=True)
class LAT(Plugin):
    """Shifts one layer's activations on forget so that the model says what it should forget, and unlearns under that.

        delta <- project(delta - step radius g / |g|),  g = grad of CE(forget) in delta,  `steps` times, from 0
        L = L_f under h + delta  +  L_r under h as it is

    h is what leaves the layer, L_f and L_r are the base's losses; of a base that reads no retain there is L_f alone.
    delta lies in a ball of that radius at each position of a sequence (padding has none), or, of activations without
    positions, for each example. It is found anew for each batch, in eval mode, with all weights fixed, and is no part
    of the gradient. Costs `steps` more passes over forget, forward and back from the layer on.

    Args:
        base: a method that takes plain steps on a loss of forget, alone or beside one of retain; NPO by default.
        layer: which of the model's numbered layers, counted from 0 (all parts where they have no numbers). None: 7, as
            in the authors' code, where there are at least 9, and the middle one of fewer, (n - 1) // 2.
        radius: of the ball, in the Euclidean norm and in the units of the activations.
        steps: of the attack.
        step: length of each, as a share of the radius.

    Expected to fail: where the radius is small beside activations it is the base at many times the price; where it is
    large, anything can be made to say anything, and the base unlearns how the layers after it read activations.
    Attacks at layers before it.

    Reference: Sheshadri, Ewart, Guo, Lynch, Wu, Hebbar, Sleight, Stickland, Perez, Hadfield-Menell, Casper, "Targeted
    Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs", arXiv 2407.15549, from the
    authors' code, where lat(rmu:layer=8) is RMU-LAT, and gradient ascent and WHP have it too (WHP: layer 12, radius
    1.5). Differs from the code in the attack's steps, which are of one length (AdamW, lr 0.05, there); in the attack's
    goal, which has a second part there, away from retain's answers; and in one step of the base for each attack (4
    there).
    """

    title = "LAT"
    wanted = "takes plain steps on a loss of forget, alone or apart from that of retain"
    advice = "Choose npo, simnpo, grad_diff, grad_ascent, rmu, random_label or another such."

    base: GradientMethod = NPO()
    layer: Index | None = None
    radius: Positive = 2.0
    steps: Count = 16
    step: Positive = 0.25

    def touches(self, phase: Phase) -> bool:
        """Says that phases over forget with plain steps are changed, where the loss of forget can be had alone."""
        return phase.step is plain_step and "forget" in phase.streams and "forget" in terms_of(phase).terms

    def around(self, student: nn.Module, original: nn.Module, job: Job) -> Around:
        """Gives each phase a loss of forget under attack."""
        module, task = self._module(student, job.task), job.task

        def attacked(phase: Phase) -> Phase:
            terms = dict(terms_of(phase).terms)
            forget = terms["forget"]

            def under(model: nn.Module, batches: Batches) -> Tensor:
                with shifted(module, self.shift(model, module, task, batches["forget"])):
                    return forget(model, batches)

            return replace(phase, loss=Terms({**terms, "forget": under}))

        return attacked

    def shift(self, model: nn.Module, module: nn.Module, task: Task, batch: Batch) -> Tensor:
        """Finds delta for a batch of forget, shaped as what leaves the module."""
        with mode(model, training=False), frozen(model), torch.enable_grad():
            output = until(module, lambda: task.rows(model, batch))
            if output is None:
                raise NotSupported(
                    f"LAT: expected {type(module).__name__} to take part in a pass, got a pass without. Set layer to "
                    "another."
                )
            held = task.positions(batch)
            ordered = output.ndim == 3
            allowed = held[..., None] if ordered and held is not None and held.shape == output.shape[:2] else None
            delta = torch.zeros_like(output)
            for _ in range(self.steps):
                delta = delta.detach().requires_grad_(True)
                with shifted(module, delta):
                    loss = task.rows(model, batch).losses().sum()
                (gradient,) = torch.autograd.grad(loss, delta)
                further = delta.detach() - self.step * self.radius * gradient / length(gradient).clamp_min(TINY)
                delta = further * (self.radius / length(further).clamp_min(TINY)).clamp(max=1)
                delta = delta if allowed is None else delta * allowed
        return delta.detach()

    def _module(self, model: nn.Module, task: Task) -> nn.Module:
        """Gives the module whose output is shifted; BadInput where the model has fewer layers."""
        parts = layers(task, model)
        usual = PAPER if len(parts) > PAPER + 1 else (len(parts) - 1) // 2
        number = usual if self.layer is None else self.layer
        if number >= len(parts):
            raise BadInput(f"LAT: expected layer to be at most {len(parts) - 1} (the model's last), got {number}.")
        return parts[number][-1]


def length(values: Tensor) -> Tensor:
    """Computes the Euclidean length at each position of `[n, positions, d]`, or of each example, to divide by."""
    flat = values if values.ndim == 3 else values.flatten(1)
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    return lengths if values.ndim == 3 else lengths.view(-1, *[1] * (values.ndim - 1))


@contextmanager
def shifted(module: nn.Module, delta: Tensor) -> Iterator[None]:
    """Adds delta to what leaves a module; NotSupported where a pass doesn't come by once, with as many examples."""
    shapes: list[torch.Size] = []

    def added(_: str, output: Tensor) -> Tensor | None:
        shapes.append(output.shape)
        return output + delta if output.shape == delta.shape else None

    with capture({"": module}, added):
        yield
    if shapes != [delta.shape]:
        raise NotSupported(
            f"LAT: expected a base that sends forget through {type(module).__name__} once, as it is, got {len(shapes)} "
            "passes or other examples. Choose another base, or set layer to an earlier one."
        )
