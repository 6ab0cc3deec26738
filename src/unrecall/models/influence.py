"""How much weights and neurons add to the probability of an answer: their values times its gradient."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.signals import Rows
from unrecall.errors import NotSupported
from unrecall.models.observe import predicted
from unrecall.nn.functional import exact_nll
from unrecall.nn.hooks import differentiable, frozen, is_linear, mode
from unrecall.tasks.base import Task

Probability: TypeAlias = Literal["product", "mean", "log"]


def probability(rows: Rows, how: Probability = "product") -> Tensor:
    """Computes P(y|x) of each example `[examples]`, out of the probabilities p_k of its K rows.

    product: p_1 ... p_K;  mean: (p_1 ... p_K)^(1/K), which doesn't shrink with K;  log: log p_1 + ... + log p_K
    """
    log_p = -exact_nll(rows.logits, rows.targets)
    if how == "log":
        return rows.summed(log_p).float()
    return (rows.summed(log_p) if how == "product" else rows.per_example(log_p)).exp().float()


def weight_gradients(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    weights: Mapping[str, Tensor],
    how: Probability = "product",
) -> dict[str, Tensor]:
    """Computes d sum_x P(y|x) / d phi over all the batches, in float32, by name; the model in eval mode.

    A weight that has no part in P is left out. Gradients that the model holds are left alone.
    """
    total: dict[str, Tensor] = {}
    with mode(model, training=False), torch.enable_grad():
        for batch in batches:
            summed = probability(task.rows(model, batch), how).sum()
            gradients = torch.autograd.grad(summed, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    total[name] = total[name].add_(gradient) if name in total else gradient.float()
    return total


class NeuronInfluence(NamedTuple):
    """h * dP/dh of every neuron, in float32, at the position where it is highest and where it is lowest.

    `highest`, `lowest` `[examples, neurons]`; `probability` `[examples]`: P(y|x); `confidence` `[examples]`: the
    geometric mean of the rows' probabilities, whatever P is; `right` `[examples]`: the share of rows predicted right.
    """

    highest: Tensor
    lowest: Tensor
    probability: Tensor
    confidence: Tensor = torch.ones(1)
    right: Tensor = torch.ones(1)


def neuron_influence(model: nn.Module, task: Task, batch: Batch, how: Probability = "product") -> NeuronInfluence:
    """Computes the influence of every output of every linear layer but the head, in the order of the model's layers.

    A neuron has one influence a position; positions that hold no input don't count. Examples don't mix in eval mode, so
    one backward pass of the summed P gives the gradient of each example's own. NotSupported where there is no such
    layer, or where a layer's first dimension is not the examples.
    """
    head = task.head(model, batch)
    layers = {name: m for name, m in model.named_modules() if is_linear(m) and m is not head}
    with mode(model, training=False), frozen(model), torch.enable_grad(), differentiable(layers) as outputs:
        rows = task.rows(model, batch)
        probabilities, confidence = probability(rows, how), probability(rows, "mean").detach()
        right = rows.per_example(predicted(rows.logits, rows.targets)[1].float())
    activations = [(name, output) for name in layers for output in outputs[name]]
    if not activations or not probabilities.requires_grad:
        raise NotSupported(f"{type(model).__name__}: expected linear layers before the head, got none in use.")
    gradients = torch.autograd.grad(probabilities.sum(), [h for _, h in activations], allow_unused=True)
    positions = task.positions(batch)
    highest: dict[str, Tensor] = {}
    lowest: dict[str, Tensor] = {}
    for (name, h), gradient in zip(activations, gradients, strict=True):
        product, empty = _positions(name, h.detach(), gradient, positions, len(probabilities))
        top, bottom = product.masked_fill(empty, -torch.inf).amax(1), product.masked_fill(empty, torch.inf).amin(1)
        highest[name] = torch.maximum(highest.get(name, top), top)
        lowest[name] = torch.minimum(lowest.get(name, bottom), bottom)
    high, low = (torch.cat(list(neurons.values()), 1) for neurons in (highest, lowest))
    return NeuronInfluence(high, low, probabilities.detach(), confidence, right)


def _positions(
    name: str, output: Tensor, gradient: Tensor | None, positions: Tensor | None, examples: int
) -> tuple[Tensor, Tensor]:
    """h * dP/dh `[examples, positions, neurons]`, and which positions hold no input `[examples or 1, positions, 1]`."""
    if output.ndim < 2 or len(output) != examples:
        raise NotSupported(
            f"{name}: expected an output [{examples} examples, ..., neurons], got {tuple(output.shape)}."
        )
    product = torch.zeros_like(output) if gradient is None else output.float() * gradient.float()
    product = product.reshape(examples, -1, output.shape[-1]).float()
    if positions is None or positions.shape != product.shape[:2]:
        return product, torch.zeros(1, product.shape[1], 1, dtype=torch.bool, device=product.device)
    return product, ~positions[:, :, None]
