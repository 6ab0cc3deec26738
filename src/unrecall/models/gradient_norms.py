"""The norms of single examples' gradients, from what enters layers and from the gradients in what leaves them.

The gradient of a layer's matrix W is a sum over an example's positions t of products of two vectors, so that its norm
takes no gradient of the size of W:

    G = sum_t l_t r_t^T        ||G||^2 = sum_s sum_t (l_s . l_t) (r_s . r_t)

Reference: Goodfellow, "Efficient Per-Example Gradient Computations", 2015, arXiv 1510.01799; of many positions: Li,
Tramer, Liang, Hashimoto, "Large Language Models Can Be Strong Differentially Private Learners", ICLR 2022, arXiv
2110.05679. Differs from both in adding up all uses of a weight first, so that one that two layers share is right.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap

from unrecall.data.batches import Batch, batch_size
from unrecall.data.examples import Examples, Selection
from unrecall.data.signals import Rows
from unrecall.errors import NotSupported
from unrecall.models.importance import FLOATS, Weights, all_weights, in_logits, per_example
from unrecall.models.observe import in_order
from unrecall.nn.hooks import frozen, is_plain_convolution, is_transposed, mode
from unrecall.tasks.base import Task

ACTIVATIONS = 2**25
"""Numbers that enter and leave the layers in a pass, about: 128 MB in float32."""
FEW = 3
"""Examples whose norms are computed both ways, and backwards too, so that a model that the formulas don't fit, or that
puts a batch in another order, is noticed."""
ROUNDING = 1e-3
"""By what share of the norm the two ways may differ there."""


class Product(NamedTuple):
    """The gradient of a matrix `[a, b]` for each example, as the sum over positions of left times right transposed.

    `left` [n, positions, a], or the indices [n, positions] of its only 1; `right` [n, positions, b].
    """

    left: Tensor
    right: Tensor


Formula: TypeAlias = Callable[[Any, Tensor, Tensor], Iterator[tuple[str, Product | Tensor]]]
"""From a layer, what entered it and the gradient in what left it: the gradients `[n, ...]` of its weights, by name."""


def gradient_norms(model: nn.Module, task: Task, examples: Examples) -> np.ndarray:
    """Computes the 2-norm of the gradient of each example's loss in all weights `[n]`, in order, in eval mode.

    One pass and its gradients in activations, a batch; of weights that stand in no layer with a formula, or are used
    outside theirs, the gradients themselves. Weights that are frozen count too.
    """
    places = range(min(FEW, len(examples)))
    few, back = Selection(examples, places), Selection(examples, places[::-1])
    with mode(model, training=False):
        first = next(in_order(model, task, few, FEW))
        head = _head(model, task, first)
        sample = _squares(model, task, first, head)
        other = _squares(model, task, next(in_order(model, task, back, FEW)), head)
        if not (_holds(sample, model, task, few) and _holds(other, model, task, back)):
            return _root(_exact(model, task, examples, all_weights(model)))
        most = max(1, min(task.at_once, len(few) * ACTIVATIONS // max(1, sample.activations)))
        parts = [_squares(model, task, batch, head) for batch in in_order(model, task, examples, most)]
        by_formula = set(sample.by_weight).intersection(*(part.by_weight for part in parts))
        squares = torch.cat([part.total(by_formula) for part in parts])
        others = {name: weight for name, weight in all_weights(model).items() if name not in by_formula}
        return _root(squares + _exact(model, task, examples, others) if others else squares)


def _root(squares: Tensor) -> np.ndarray:
    return squares.clamp_min(0).sqrt().cpu().numpy()


def _square(gradients: Tensor) -> Tensor:
    """The squared norm of each example's gradient `[n, ...]`, `[n]`."""
    return gradients.flatten(1).double().square().sum(1)


def _exact(model: nn.Module, task: Task, examples: Examples, weights: Weights) -> Tensor:
    """The squared norms of the examples' gradients in some weights `[n]`, from the gradients themselves."""
    with frozen(model):
        parts = per_example(model, task, examples, weights)
        return torch.cat([torch.stack([_square(gradient) for gradient in part.values()]).sum(0) for part in parts])


class _Squares(NamedTuple):
    """Of a batch: the squared norms of gradients `[n]`, by the names of the weights that formulas hold for.

    `activations`: how many numbers entered and left the layers.
    """

    by_weight: dict[str, Tensor]
    activations: int

    def total(self, names: set[str]) -> Tensor:
        """The squared norms over these weights `[n]`."""
        return torch.stack([self.by_weight[name] for name in names]).sum(0)


def _holds(sample: _Squares, model: nn.Module, task: Task, examples: Examples) -> bool:
    """Whether the norms of these examples are those of their gradients; of small weights alone in a large model."""
    if not sample.by_weight:
        return False
    checked, size = Weights(), 0
    for name, weight in sorted(all_weights(model).items(), key=lambda named: named[1].numel()):
        size += len(examples) * weight.numel()
        if name in sample.by_weight and (size <= FLOATS or not checked):
            checked[name] = weight
    exact = _root(_exact(model, task, examples, checked))
    return np.allclose(_root(sample.total(set(checked))), exact, rtol=ROUNDING, atol=1e-12)


# A pass.


class _Use(NamedTuple):
    """One call of a layer: what entered it, and where the gradient in what left it comes by.

    None for what isn't one tensor.
    """

    layer: nn.Module
    inputs: Tensor | None
    outputs: Tensor | GradientEdge | None

    def weights(self) -> dict[str, nn.Parameter]:
        """The layer's own weights, by name."""
        return dict(self.layer.named_parameters(recurse=False))


class _Pass(NamedTuple):
    """The calls of layers with the gradient in what left each, the weights used elsewhere, and the rows."""

    calls: list[tuple[_Use, Tensor | None]]
    elsewhere: set[nn.Parameter]
    rows: Rows


def _squares(model: nn.Module, task: Task, batch: Batch, head: nn.Module | None) -> _Squares:
    """Differentiates a batch in what leaves its layers, and applies their formulas."""
    names = {weight: name for name, weight in model.named_parameters()}
    calls, elsewhere, rows = _differentiated(model, task, batch)
    zeros = torch.zeros(batch_size(batch), dtype=torch.float64, device=rows.logits.device)
    parts: dict[nn.Parameter, list[Product | Tensor]] = {
        weight: [] for layer in _layers(model) for weight in layer.parameters(recurse=False)
    }
    activations = 0
    for use, gradient in calls:
        pair = None if gradient is None else _of_examples(use, gradient, rows, head)
        if pair is not None:
            activations += sum(tensor.numel() for tensor in pair)
            for key, part in _formula(use.layer)(use.layer, *pair):  # type: ignore[misc]
                parts[use.weights()[key]].append(part)
        elif gradient is not None:
            elsewhere.update(use.weights().values())
    squares = {names[weight]: _summed(uses, zeros) for weight, uses in parts.items() if weight not in elsewhere}
    return _Squares({name: square for name, square in squares.items() if square is not None}, activations)


def _of_examples(use: _Use, gradient: Tensor, rows: Rows, head: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """What entered a layer and the gradient in what left it `[n, ...]`; None where it isn't known whose is what.

    What enters the head may be those positions alone that are rows.
    """
    inputs = use.inputs
    if inputs is None:
        return None
    if use.layer is head and len(inputs) == len(gradient) == len(rows.example):
        return _by_example(rows, inputs), _by_example(rows, gradient)
    return (inputs, gradient) if len(inputs) == len(gradient) == rows.examples else None


def _differentiated(model: nn.Module, task: Task, batch: Batch) -> _Pass:
    """A pass, differentiated in what leaves its layers.

    A weight is frozen while its layer runs, so that one that has a gradient all the same was used elsewhere too. So are
    those of a layer that gave something else than a tensor.
    """
    weights = list(model.parameters())
    uses: list[_Use] = []
    with _watched(model, uses), torch.enable_grad():
        rows = task.rows(model, batch)
        elsewhere = {weight for use in uses if use.outputs is None for weight in use.weights().values()}
        uses = [use for use in uses if use.outputs is not None]
        wanted: list[Any] = [use.outputs for use in uses]
        left = in_logits(rows).to(rows.logits)
        gradients = torch.autograd.grad(rows.logits, [*wanted, *weights], left, allow_unused=True)
    beside = zip(weights, gradients[len(uses) :], strict=True)
    elsewhere |= {weight for weight, gradient in beside if gradient is not None}
    return _Pass(list(zip(uses, gradients, strict=False)), elsewhere, rows)


def _head(model: nn.Module, task: Task, batch: Batch) -> nn.Module | None:
    """The layer that gives the logits, whose positions may be those of rows alone."""
    try:
        return task.head(model, batch)
    except NotSupported:
        return None


def _by_example(rows: Rows, values: Tensor) -> Tensor:
    """What belongs to rows `[rows, ...]` as `[examples, most rows, ...]`, with 0 where an example has fewer."""
    order = rows.example.argsort(stable=True)
    counts = rows.counts()
    example = rows.example[order]
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[example]
    regrouped = values.new_zeros(rows.examples, int(counts.max()), *values.shape[1:])
    regrouped[example, place] = values[order]
    return regrouped


@contextmanager
def _watched(model: nn.Module, uses: list[_Use]) -> Iterator[None]:
    """Adds each call of a layer to `uses`, during which its weights are frozen; all others can be differentiated."""
    trained = [(weight, weight.requires_grad) for weight in model.parameters()]

    def enters(layer: nn.Module, _: object) -> None:
        for weight in layer.parameters(recurse=False):
            weight.requires_grad_(False)

    def leaves(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor | None:
        for weight in layer.parameters(recurse=False):
            weight.requires_grad_(True)
        call_inputs = (*arguments, *named.values())
        inputs = call_inputs[0].detach() if len(call_inputs) == 1 and isinstance(call_inputs[0], Tensor) else None
        if not isinstance(output, Tensor):
            uses.append(_Use(layer, inputs, None))
        elif output.requires_grad:
            uses.append(_Use(layer, inputs, get_gradient_edge(output)))
        else:  # the first of the model
            uses.append(_Use(layer, inputs, output.detach().requires_grad_(True)))
            return uses[-1].outputs.clone()  # type: ignore[union-attr]
        return None

    with ExitStack() as stack:
        stack.callback(lambda: [weight.requires_grad_(before) for weight, before in trained])
        for weight, _ in trained:
            weight.requires_grad_(True)
        for layer in _layers(model):
            stack.callback(layer.register_forward_pre_hook(enters).remove)
            stack.callback(layer.register_forward_hook(leaves, with_kwargs=True).remove)
        yield


# What each layer makes of it.


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose weights have a formula."""
    return [module for module in model.modules() if _formula(module) is not None]


def _formula(layer: nn.Module) -> Formula | None:
    """How a layer's gradients follow from what enters it and from the gradient in what leaves it; None where unknown.

    Layers whose `forward` is another one than PyTorch's have no formula, but for norms, which are differentiated.
    """
    own, forward = {name for name, _ in layer.named_parameters(recurse=False)}, type(layer).forward
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return _of_batchnorm if own == {"weight", "bias"} and layer.running_mean is not None else None
    if (own and isinstance(layer, NORMS)) or type(layer).__name__.endswith("RMSNorm"):
        return _of_norm if own and not list(layer.children()) else None
    if "weight" not in own or not own <= {"weight", "bias"}:
        return None
    if forward is nn.Linear.forward or is_transposed(layer):
        return _of_linear
    if forward is nn.Embedding.forward and _plain_embedding(layer):
        return _of_embedding
    return _of_convolution if forward is nn.Conv2d.forward and is_plain_convolution(layer) else None


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers of few weights that treat each example alone, as RMSNorms of Transformers do."""


def _plain_embedding(layer: Any) -> bool:
    """Whether gradients are neither scaled nor sparse, and no pass changes weights."""
    return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse


def _of_linear(layer: nn.Module, inputs: Tensor, gradient: Tensor) -> Iterator[tuple[str, Product | Tensor]]:
    """Weights `[out, in]`, of Transformers' Conv1D `[in, out]`; positions are all dimensions between."""
    entered, left = (tensor.float().reshape(len(tensor), -1, tensor.shape[-1]) for tensor in (inputs, gradient))
    yield "weight", Product(entered, left) if is_transposed(layer) else Product(left, entered)
    if layer.bias is not None:
        yield "bias", left.sum(1)


def _of_embedding(layer: Any, inputs: Tensor, gradient: Tensor) -> Iterator[tuple[str, Product | Tensor]]:
    """Weights `[words, d]`; a padding index learns nothing."""
    words, left = inputs.reshape(len(inputs), -1), gradient.float().reshape(len(inputs), -1, gradient.shape[-1])
    yield "weight", Product(words, left if layer.padding_idx is None else left * words.ne(layer.padding_idx)[..., None])


def _of_convolution(layer: Any, inputs: Tensor, gradient: Tensor) -> Iterator[tuple[str, Product | Tensor]]:
    """Weights `[out, in * height * width]`; positions are those of the patches.

    Where the gradients themselves take fewer multiplications they are computed place by place of the kernel, without
    patches.
    """
    left, positions = gradient.float().flatten(2), gradient.shape[2] * gradient.shape[3]
    a, b = layer.out_channels, layer.weight[0].numel()
    if positions * (a + b) > a * b:
        yield (
            "weight",
            torch.stack([left @ part.flatten(2).mT for part in _shifted(layer, inputs.float(), gradient)], 1),
        )
    else:
        patches = F.unfold(inputs.float(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        yield "weight", Product(left.mT, patches.mT)
    if layer.bias is not None:
        yield "bias", left.sum(2)


def _shifted(layer: Any, inputs: Tensor, gradient: Tensor) -> Iterator[Tensor]:
    """What each place of the kernel meets `[n, in, height, width]`."""
    padding = [size for pad in reversed(layer.padding) for size in (pad, pad)]
    padded, sizes = F.pad(inputs, padding), gradient.shape[2:]
    for place in itertools.product(*map(range, layer.kernel_size)):
        rows, columns = (
            slice(i * dilation, i * dilation + (size - 1) * stride + 1, stride)
            for i, dilation, size, stride in zip(place, layer.dilation, sizes, layer.stride, strict=True)
        )
        yield padded[:, :, rows, columns]


def _of_batchnorm(layer: Any, inputs: Tensor, gradient: Tensor) -> Iterator[tuple[str, Product | Tensor]]:
    """Weights `[channels]`, by running statistics."""
    mean, variance = (value.float()[:, None] for value in (layer.running_mean, layer.running_var))
    entered, left = (tensor.float().reshape(*tensor.shape[:2], -1) for tensor in (inputs, gradient))
    yield "weight", ((entered - mean) * left).sum(2) * (variance + layer.eps).rsqrt()[:, 0]
    yield "bias", left.sum(2)


def _of_norm(layer: nn.Module, inputs: Tensor, gradient: Tensor) -> Iterator[tuple[str, Product | Tensor]]:
    """The gradients themselves, for they are small."""
    own = {name: weight.detach() for name, weight in layer.named_parameters(recurse=False)}

    def of_example(entered: Tensor, left: Tensor) -> Weights:
        pull = vjp(lambda weights: functional_call(layer, weights, (entered.unsqueeze(0),)), own)[1]
        gradients: Weights = pull(left.unsqueeze(0))[0]
        return gradients

    yield from vmap(of_example)(inputs, gradient).items()


# Arithmetic.


def _summed(parts: list[Product | Tensor], zeros: Tensor) -> Tensor | None:
    """The squared norm of the sum of all uses of a weight `[n]`; None where they aren't of one kind."""
    products = [part for part in parts if isinstance(part, Product)]
    if products and len(products) < len(parts):
        return None
    if products:
        return of_products(products)
    return zeros if not parts else _square(torch.stack([part for part in parts if isinstance(part, Tensor)]).sum(0))


def of_products(products: list[Product]) -> Tensor:
    """Computes the squared norm of the sum of products `[n]`, by whichever way takes fewer multiplications.

    Those are the matrices themselves, positions * a * b, or the inner products of positions, positions^2 * (a + b).
    """
    positions = sum(product.right.shape[1] for product in products)
    if all(product.left.is_floating_point() for product in products):
        a, b = products[0].left.shape[-1], products[0].right.shape[-1]
        if positions * (a + b) > a * b:
            return _square(torch.stack([left.mT @ right for left, right in products]).sum(0))
    total = torch.zeros(len(products[0].right), dtype=torch.float64, device=products[0].right.device)
    for (i, first), (k, second) in itertools.combinations_with_replacement(enumerate(products), 2):
        both = _inner(first.left, second.left) * (first.right @ second.right.mT)
        total += (1 if i == k else 2) * both.double().sum((1, 2))
    return total


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """The inner products of the left vectors of all positions `[n, positions, positions]`."""
    if first.is_floating_point() and second.is_floating_point():
        return first @ second.mT
    if second.is_floating_point():
        return _inner(second, first).mT
    if first.is_floating_point():
        return first.gather(2, second[:, None].expand(-1, first.shape[1], -1))
    return (first[:, :, None] == second[:, None]).float()
