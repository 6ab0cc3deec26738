"""How much each weight matters to the loss on some examples: gradients of each, squared, exact or by batches."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from unrecall.data.batches import Batch, batch_size
from unrecall.data.examples import Examples, Selection
from unrecall.data.signals import Rows
from unrecall.errors import UNFREEZE, BadInput, built_in
from unrecall.models.observe import in_order, repeated
from unrecall.nn.hooks import mode, without_checkpointing
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import check_own_rows

Weights: TypeAlias = dict[str, Tensor]
"""One tensor for each trainable parameter, by the parameter's name."""

Values: TypeAlias = Callable[[nn.Module, Batch], Tensor]
"""One number an example `[examples]`, which can be differentiated."""

FLOATS = 2**26
"""Per-example gradients held at once: 256 MB in float32."""

POSITIONS = 64
"""Convolutions with at most so many output positions are faster as matrix products; above, memory traffic eats it."""


def exact(
    model: nn.Module, task: Task, examples: Examples, chunk: int | None = None, of: Values | None = None
) -> Weights:
    """Computes the mean over examples of each example's squared gradient, the model in eval mode.

        I_j = (1/n) sum_i (d loss_i / d theta_j)^2

    It depends on neither batch size nor order; for `chunk` and `of` see `per_example`. Where an example's loss depends
    on its batch there is no such thing: then it is `batch_mean` over the task's own batches.
    """
    if task.rows_depend_on_batch:
        return batch_mean(model, task, examples, task.at_once)
    weights = trainable(model)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for gradients in per_example(model, task, examples, weights, chunk, of):
        for name, gradient in gradients.items():
            total[name] += gradient.square_().sum(0)
    return {name: value / len(examples) for name, value in total.items()}


def fisher(model: nn.Module, task: Task, examples: Examples, chunk: int | None = None) -> Weights:
    """Computes the diagonal of the Fisher information, labels as the model itself draws them, in eval mode.

        F_j = (1/n) sum_i sum_k p_ik (d log p_ik / d theta_j)^2

    p_ik is the probability of class k. One pass over the examples a class. For tasks of one row an example.
    """
    classes = classes_of(model, task, examples)
    parts = [exact(model, task, examples, chunk, partial(_surprise, task, label)) for label in range(classes)]
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


def _surprise(task: Task, label: int, model: nn.Module, batch: Batch) -> Tensor:
    """Minus log p_k times the root of p_k, which is not differentiated: its squared gradient is p_k (d log p_k)^2."""
    log_p = F.log_softmax(task.rows(model, batch).logits, 1)[:, label]
    return -log_p * (log_p.detach() / 2).exp()


@torch.no_grad()
def classes_of(model: nn.Module, task: Task, examples: Examples) -> int:
    """How many classes the model tells apart: the logits of a row."""
    with mode(model, training=False):
        rows: Rows = task.rows(model, next(in_order(model, task, Selection(examples, [0]))))
    return rows.logits.shape[1]


def per_example(
    model: nn.Module,
    task: Task,
    examples: Examples,
    weights: Weights,
    chunk: int | None = None,
    of: Values | None = None,
) -> Iterator[Weights]:
    """Computes the gradient of each example's loss in `weights`, `[chunk, ...]` each, in order, the model in eval mode.

    `of`: what is differentiated in place of the loss. `chunk` examples are differentiated at once (None: as many as
    256 MB of gradients hold, the task's `at_once` at most). Where vmap can't follow a task, say because the number of
    rows depends on the data, the examples go one by one.
    """
    check_own_rows("per_example", task, "Use batch_mean.")
    losses = Losses(model, task, of)

    def loss_of(weights: Weights, example: Batch) -> Tensor:
        return losses.under(weights, {name: value.unsqueeze(0) for name, value in example.items()}).mean()

    def one_by_one(weights: Weights, batch: Batch) -> Weights:
        singles = [grad(loss_of)(weights, {k: v[i] for k, v in batch.items()}) for i in range(batch_size(batch))]
        return {name: torch.stack([single[name] for single in singles]) for name in weights}

    differentiate: Callable[[Weights, Batch], Weights] = vmap(grad(loss_of), (None, 0))
    most = chunk or max(1, min(task.at_once, FLOATS // sum(weight.numel() for weight in weights.values())))
    for batch in in_order(model, task, examples, most):
        with mode(model, training=False), _ConvolutionsAsProducts(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            try:
                gradients = differentiate(weights, batch)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                differentiate = one_by_one
                gradients = differentiate(weights, batch)
        yield gradients


def batch_mean(model: nn.Module, task: Task, examples: Examples, batch_size: int = 128) -> Weights:
    """Computes the mean over batches of the squared gradient of a batch's mean loss, in eval mode; data in order.

        I_j = (1/B) sum_b (d mean_{i in b} loss_i / d theta_j)^2

    What many papers' code computes. It depends on the batch size (the gradients of unlike examples cancel within a
    batch, so that larger batches give smaller values) and on the order; a short last batch counts like the others.
    """
    total = {name: torch.zeros_like(weight) for name, weight in trainable(model).items()}
    count = 0
    with mode(model, training=False):
        for batch in in_order(model, task, examples, batch_size):
            count += 1
            for name, gradient in _gradient(model, task, batch).items():
                total[name] += gradient.square()
    return {name: value / count for name, value in total.items()}


def mean_gradient(model: nn.Module, task: Task, examples: Examples) -> Weights:
    """Computes the gradient of the mean loss over all examples, the model in eval mode."""
    total = {name: torch.zeros_like(weight) for name, weight in trainable(model).items()}
    count = 0
    with mode(model, training=False):
        for batch in in_order(model, task, examples):
            before, n = repeated(batch, count), batch_size(batch)
            for name, gradient in _gradient(model, task, batch, before).items():
                total[name] += (n - before) / len(examples) * gradient
            count += n - before
    return total


@torch.enable_grad()
def _gradient(model: nn.Module, task: Task, batch: Batch, first: int = 0) -> Weights:
    """The gradient of the mean loss of all examples of a batch but the `first` few, 0 where it doesn't depend on them.

    By plain autograd: `torch.func.grad` over swapped weights gives the same and takes longer.
    """
    names, weights = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
    if not built_in(type(task).losses):  # a user's own, which rows don't show
        loss = task.losses(model, batch)[first:].mean()
        own = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return dict(zip(names, own, strict=True))
    rows = task.rows(model, batch)
    left = in_logits(rows) * (rows.example >= first)[:, None] / (rows.examples - first)
    gradients = torch.autograd.grad(
        rows.logits, weights, left.to(rows.logits), allow_unused=True, materialize_grads=True
    )
    return dict(zip(names, gradients, strict=True))


@torch.no_grad()
def in_logits(rows: Rows) -> Tensor:
    """Computes the gradient of each example's loss in its logits `[rows, classes]`, p - 1 at the target, in float32.

    As minus the sum of the others' p: beside 1, float32 loses what is left of it where a model is sure.
    """
    p = rows.logits.float().softmax(1).scatter_(1, rows.targets[:, None], 0.0)
    p.scatter_(1, rows.targets[:, None], -p.sum(1, keepdim=True))
    counts = rows.counts()
    return p.div_(counts[rows.example][:, None])


def most_salient(gradient: Weights, share: float) -> dict[str, Tensor]:
    """Marks the round(share * n) largest of all |gradient| together; of equal ones the earlier weight is taken."""
    saliency = torch.cat([value.abs().flatten() for value in gradient.values()])
    order = saliency.argsort(descending=True, stable=True)
    free = torch.zeros_like(saliency, dtype=torch.bool)
    free[order[: round(share * len(order))]] = True
    parts = torch.split(free, [value.numel() for value in gradient.values()])
    return {name: part.view_as(value) for (name, value), part in zip(gradient.items(), parts, strict=True)}


def all_weights(model: nn.Module) -> Weights:
    """Gives all weights by name, frozen ones too, detached."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def trainable(model: nn.Module) -> Weights:
    """Gives the trainable parameters, detached, by name; BadInput where there is none."""
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise BadInput(f"importance: expected at least one trainable parameter, got none. {UNFREEZE}")
    return weights


class Losses(nn.Module):
    """The loss of each example, or another value, as what a module gives: `functional_call` swaps modules' weights."""

    def __init__(self, model: nn.Module, task: Task, of: Values | None = None) -> None:
        super().__init__()
        self.model, self.of = model, of or task.losses

    def forward(self, batch: Batch) -> Tensor:
        """Computes the losses `[examples]` of a batch."""
        return self.of(self.model, batch)

    def under(self, weights: Weights, batch: Batch) -> Tensor:
        """Computes the losses `[examples]` of a batch as if the model's weights were `weights`."""
        with without_checkpointing(self.model):
            value: Tensor = functional_call(self, {f"model.{name}": w for name, w in weights.items()}, (batch,))
        return value


class _ConvolutionsAsProducts(TorchFunctionMode):
    """Small convolutions become matrix products, whose per-example gradients are products too.

    vmap turns the weight gradient of a convolution into one with a group for each example, which is slow on CPUs.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in {F.conv2d, torch.conv2d} or kwargs or len(args) != 7:
            return func(*args, **(kwargs or {}))
        inputs, weight, bias, stride, padding, dilation, groups = args
        if inputs.ndim != 4 or groups != 1 or isinstance(padding, str):
            return func(*args)
        size = [
            (inputs.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
            for i in range(2)
        ]
        if size[0] * size[1] > POSITIONS:
            return func(*args)
        patches = F.unfold(inputs, weight.shape[2:], dilation, padding, stride)
        outputs = (weight.flatten(1) @ patches).unflatten(2, size)
        return outputs if bias is None else outputs + bias[:, None, None]
