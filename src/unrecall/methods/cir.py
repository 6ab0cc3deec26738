"""CIR: breaks what feed-forward layers say on forget, along what its inputs and gradients don't have in common."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, Task, train_only
from unrecall.models.chosen_layers import (
    FEED_FORWARD,
    activations,
    by_position,
    called,
    head_weight,
    layers,
    usual,
    with_matrices,
)
from unrecall.models.low_rank import has_adapters
from unrecall.nn.hooks import capture, is_plain_convolution, is_transposed
from unrecall.spec.parameters import Count, Index, NonNegative, Positive
from unrecall.training.disruption import disruption
from unrecall.training.loop import StepState, epoch_steps
from unrecall.training.randomness import draw_seed, own_randomness
from unrecall.training.terms import Gradients, check_own_loss, move_along, product, slope

PAPER = (6, 11)
"""The first and the last layer that the authors break, in models of 16 layers and more."""
COMMON = "CIR: what inputs and gradients have in common"
"""Under which name the optimiser's state holds the directions, so that an interrupted run goes on the same."""

ITERATIONS = 16
"""Of the search for principal components, as in the authors' code."""
TINY = 1e-20
"""Keeps a ratio finite where there is nothing."""


@dataclass(frozen=True)
class CIR(GradientMethod):
    """Turns feed-forward outputs away from what they were on forget, by weights' gradients without common directions.

        L_f = mean over layers of  mean_t max(<o_t, o_t^0>, 0) / (mean_t |o_t^0|)^2     o the output, o^0 the original's
        g_W = sum_t (P_g g_t) (P_a a_t)^T,      W <- W - lr g / |g|,                    |g| over all weights together
        then  W <- W - lr retain_weight grad L_r,     L_r = mean_t |h_t - h_t^0| / mean_t |h_t^0| on retain

    a_t is what enters a layer at position t and g_t the gradient in what leaves it; P_a and P_g take out the mean and
    the principal components of an epoch's a and g. The first epoch moves nothing and only gathers them, each later one
    uses those of the epoch before it. h is what leaves the last broken layer. Only the layers' weights up to there are
    trained, no biases. It ends with the first epoch after which KL(p_0 || p) on retain is above `kl`. Positions are
    those that are not padding; of forget all but an example's first. A convolution's positions are its places, each
    a_t a patch.

    Args:
        first, last: the layers that are broken, counted from 0. None: 6 and 11, as in the authors' code, where there
            are more than 12, and the same parts of fewer: from 3/8 to 3/4 of them.
        target: names of layers, or how they end. Empty: gate_proj, up_proj and down_proj where a model has them, and
            otherwise every linear layer and 2-D convolution but the head. The last of them in each broken layer is the
            one whose output is broken.
        inputs, outputs: how many directions P_a and P_g take out, the mean among them; at most a quarter of the width.
        retain_weight: of L_r's gradient beside a step of length 1; 0.0015 is a rate of 3e-4 beside one of 0.2. At 0
            retain is read for `kl` alone.
        kl: the budget on retain in nats, over a sample of 512 examples.
        fit: plain SGD, lr 0.2 (the length of each step), batch 32, 200 epochs over forget at most.

    Expected to fail: where forget and retain have all directions in common, as narrow models have; where an epoch is a
    step or two, so that directions are those of few positions, and the budget is spent before the first look.
    A model with adapters is refused, and so is CIR inside LoRA.

    Reference: Sondej, Yang, "Collapse of Irrelevant Representations (CIR) Ensures Robust and Non-Disruptive LLM
    Unlearning", arXiv 2509.11816, from the authors' code (src/CIR.py, Llama-3.2-1B). Differs from the code in the
    budget, Wikitext's loss times 1.001 there; in a P that takes out all directions at once (there one after another,
    and the mean is not quite at right angles to the others); in the quarter of the width; and in keeping the last
    position of the longest text. Convolutions and layers without those names are ours.
    """

    title = "CIR"
    strength = Strength(("fit.lr", "kl"), high=2**10)

    first: Index | None = None
    last: Index | None = None
    target: tuple[str, ...] = ()
    inputs: Count = 24
    outputs: Count = 36
    retain_weight: NonNegative = 0.0015
    kl: Positive = 0.01
    fit: Fit = Fit(lr=0.2, momentum=0.0, weight_decay=0.0, batch_size=32, epochs=200, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it; all but the weights it moves are frozen."""
        request, task = job.request, job.task
        chosen = self._chosen(student, original, job)
        train_only(student, (layer.weight for layer in chosen.trained.values()))
        spent, epoch = disruption(original, job), Gathered()

        def held(model: nn.Module, batches: Batches) -> Tensor:
            with torch.no_grad():
                before = activations(original, chosen.original_end, task, batches["retain"], "CIR")
            return apart(activations(model, chosen.end, task, batches["retain"], "CIR"), before)

        def step(current: StepState) -> Tensor:
            check_own_loss("CIR", current, phase)
            own = Gathered()
            value = slope(current, partial(likeness, chosen, task, own), "forget").value
            for name in own:
                epoch.setdefault(name, []).extend((a.cpu(), g.cpu()) for a, g in own[name])
            if self._move(current, chosen, own) and self.retain_weight > 0:
                pull = slope(current, held, "retain").gradients
                move_along(current, {p: self.retain_weight * g for p, g in pull.items()})
            if ends_epoch(current):
                self._gather(current, epoch, job)
            return value

        def ends_epoch(current: StepState) -> bool:
            return (current.number + 1) % epoch_steps(phase) == 0

        streams = {"forget": request.forget, "retain": request.retain}
        if self.retain_weight == 0:
            del streams["retain"]
        loss = partial(likeness, chosen, task, Gathered())
        phase = Phase(loss, streams, self.fit, ends=lambda now: ends_epoch(now) and spent(now.model) > self.kl)
        return [replace(phase, step=step)]

    def _move(self, current: StepState, chosen: "Chosen", own: "Gathered") -> bool:
        """Takes a step of length lr along what isn't common; in the first epoch, where nothing is known of it, none."""
        directions, gradients = state_of(current).get(COMMON, {}), Gradients()
        for name, pairs in own.items():
            layer = chosen.trained[name]
            if name in directions:
                sides = [q.to(layer.weight.device) for q in directions[name]]
                total = torch.stack([selective(a, g, *sides) for a, g in pairs]).sum(0)
                gradients[layer.weight] = (total.T if is_transposed(layer) else total).reshape(layer.weight.shape)
        if not gradients:
            current.optimizer.zero_grad(set_to_none=True)
            current.optimizer.step()  # of nothing, so that the schedule finds it done
            return False
        size = product(gradients, gradients).sqrt()
        move_along(current, {p: g / size.where(size > 0, 1) for p, g in gradients.items()})
        return True

    def _gather(self, current: StepState, epoch: "Gathered", job: Job) -> None:
        """Finds what the epoch's inputs, and its gradients, had in common, and drops both."""
        counts = (self.inputs, self.outputs)
        with own_randomness(draw_seed(job.generator)):
            state_of(current)[COMMON] = {
                name: [common(torch.cat(v), n) for v, n in zip(zip(*pairs, strict=True), counts, strict=True)]
                for name, pairs in epoch.items()
            }
        epoch.clear()

    def _chosen(self, model: nn.Module, original: nn.Module, job: Job) -> "Chosen":
        """Finds the layers that are trained and those that are broken; BadInput where the model has fewer."""
        if has_adapters(model):
            raise NotSupported(
                "CIR: expected a model without adapters, got one with them, where what is broken would be an adapter's "
                "output, which is 0 at first. Use its merge_and_unload(), or leave out lora."
            )
        blocks, others = layers(job.task, model), layers(job.task, original)
        first, last = self._range(len(blocks))
        inside = {id(m) for modules in blocks[: last + 1] for module in modules for m in module.modules()}
        matrices = {name: m for name, m in with_matrices(model).items() if id(m) in inside and _plain(m)}
        head = head_weight(model, job.task, job.request.forget)
        if self.target:
            names = called(list(matrices), self.target, "CIR")
        else:
            names = usual(model, [name for name in matrices if name != head], FEED_FORWARD, "CIR")
        parts = [{id(m) for module in modules for m in module.modules()} for modules in blocks[first : last + 1]]
        own = [[name for name in names if id(matrices[name]) in part] for part in parts]
        broken = [within[-1] for within in own if within]
        if not broken:
            raise NotSupported(
                f"CIR: expected a linear layer or 2-D convolution that is trained in layers {first} to {last}, got "
                "none. Set first and last to others."
            )
        before = {name: original.get_submodule(name.rpartition(".")[0]) for name in broken}
        return Chosen({name: matrices[name] for name in names}, blocks[last][-1], original, before, others[last][-1])

    def _range(self, count: int) -> tuple[int, int]:
        """Gives the numbers of the first and the last broken layer of so many."""
        usual_first, usual_last = PAPER if count > PAPER[1] + 1 else (3 * count // 8, max(0, 3 * count // 4 - 1))
        last = usual_last if self.last is None else self.last
        first = min(usual_first, last) if self.first is None else self.first
        if last >= count or first > last:
            raise BadInput(
                f"CIR: expected first to be at most last, and last at most {count - 1} (the model's), got first "
                f"{first} and last {last}."
            )
        return first, last


def state_of(current: StepState) -> dict[Any, Any]:
    """Gives what the optimiser remembers; what stands under a text there is left alone by it."""
    return current.optimizer.state


class Chosen(NamedTuple):
    """Trained layers by their weight's name, the last broken block, and the original: broken layers, the same block."""

    trained: dict[str, Any]
    end: nn.Module
    original: nn.Module
    original_broken: dict[str, nn.Module]
    original_end: nn.Module


class Gathered(dict[str, list[tuple[Tensor, Tensor]]]):
    """Inputs `[positions, d_in]` and gradients `[positions, d_out]` of layers, by their weight's name."""


def likeness(chosen: Chosen, task: Task, own: Gathered, model: nn.Module, batches: Batches) -> Tensor:
    """Computes L_f; once it is differentiated, what entered each trained layer and its gradients stand in `own`."""
    positions = after_first(task.positions(batches["forget"]))
    before: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}

    def leaves(name: str, output: Tensor) -> Tensor:
        after[name] = output
        if output.requires_grad:
            entered = by_position(patches(chosen.trained[name], inputs[name]), positions).float()
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda g: own.setdefault(name, []).append((entered, by_position(g, positions).float().clone()))
            )
        return output.clone()  # what follows may work in place

    with torch.no_grad(), capture(chosen.original_broken, before.__setitem__):
        task.rows(chosen.original, batches["forget"])
    with (
        capture(chosen.trained, lambda name, value: inputs.__setitem__(name, value.detach()), inputs=True),
        capture(chosen.trained, leaves),
    ):
        task.rows(model, batches["forget"])
    if missing := [name for name in chosen.original_broken if name not in after]:
        raise NotSupported(
            f"CIR: expected {missing[0]} to take part in a pass, got a pass without. Set first, last or target."
        )
    turned = [alike(*(by_position(said[name], positions).float() for said in (after, before))) for name in before]
    return torch.stack(turned).mean()


def alike(after: Tensor, before: Tensor) -> Tensor:
    """Computes mean_t max(<o_t, o_t^0>, 0) / (mean_t |o_t^0|)^2 of outputs `[positions, d]`."""
    size = before.norm(dim=1).mean()
    value: Tensor = (after * before).sum(1).clamp_min(0).mean() / size.square().clamp_min(TINY)
    return value


def apart(after: Tensor, before: Tensor) -> Tensor:
    """Computes mean_t |h_t - h_t^0| / mean_t |h_t^0| of activations `[positions, d]`."""
    value: Tensor = (after - before).norm(dim=1).mean() / before.norm(dim=1).mean().clamp_min(TINY)
    return value


def after_first(positions: Tensor | None) -> Tensor | None:
    """Marks all positions that hold input `[examples, positions]` but each example's first."""
    return None if positions is None else positions & (positions.long().cumsum(1) > 1)


def patches(layer: Any, inputs: Tensor) -> Tensor:
    """Gives what a layer's matrix is multiplied with at each position; of a convolution patches `[n, places, d]`."""
    if not isinstance(layer, nn.Conv2d):
        return inputs
    assert not isinstance(layer.padding, str)
    unfolded = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return unfolded.transpose(1, 2)


def common(vectors: Tensor, count: int) -> Tensor:
    """Finds the mean and the principal components of vectors `[n, d]`: at right angles, of length 1, `[d, count]`.

    There are fewer where that is more than a quarter of d, or where there are fewer vectors.
    """
    n, d = vectors.shape
    count = min(count, max(1, d // 4))
    vectors = vectors / vectors.abs().max().clamp_min(TINY)
    directions = vectors.mean(0)[:, None]
    if (components := min(count - 1, n - 1)) > 0:
        directions = torch.cat([directions, torch.pca_lowrank(vectors, components, niter=ITERATIONS)[2]], 1)
    q: Tensor = torch.linalg.qr(directions)[0]
    return q


def selective(inputs: Tensor, gradients: Tensor, of_inputs: Tensor, of_gradients: Tensor) -> Tensor:
    """Computes sum_t (P_g g_t) (P_a a_t)^T, `[d_out, d_in]`, without the directions `[d, k]` of either side."""
    inputs, gradients = (v - v @ q @ q.T for v, q in ((inputs, of_inputs), (gradients, of_gradients)))
    return gradients.T @ inputs


def _plain(layer: Any) -> bool:
    """Whether a layer's gradient is a product that is known here: not of a convolution in groups, or wrapped around."""
    return not isinstance(layer, nn.Conv2d) or is_plain_convolution(layer)
