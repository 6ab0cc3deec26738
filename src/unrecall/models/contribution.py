"""What each unit adds to an example's own logit, and which examples lean on the same units."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.models.layers import named
from unrecall.nn.hooks import differentiable, frozen, mode
from unrecall.tasks.base import Task


class Contributions(NamedTuple):
    """R of each example, `[examples, units]` in float32, and the rows of the pass that it comes from, in eval mode."""

    vectors: Tensor
    rows: Rows


def contributions(
    model: nn.Module, task: Task, batch: Batch, layers: Sequence[str] = (), labels: Tensor | None = None
) -> Contributions:
    """Computes Input x Gradient of each unit from one pass, forward and back, for the whole batch; everything detached.

        R_i(x) = h_i(x) df_c(x)/dh_i(x)

    f_c is the logit of an example's target, the mean where it has several rows. One backward pass of the sum over
    examples gives each its own gradient, for in eval mode they don't mix; a pair's logit among a batch's other pairs
    depends on that pair alone.

    Args:
        model: left as it was, gradients of its parameters included.
        task: gives the rows, and where the last representation is.
        batch: the examples.
        layers: dotted names of the modules whose outputs h are, one after the other where they are several, or used
            several times. Empty: h is what enters the head, or the last module of each tower; the backward pass then
            is that of the head alone.
        labels: `[rows]`, the class c of each row, in place of its target.

    Activations `[examples, positions, d]` are summed over positions, `[examples, channels, height, width]` over places.
    Raises BadInput for a layer that isn't there or takes no part.

    Reference: a simplified layer-wise relevance propagation, as ROKA (arXiv 2603.00436) uses it.
    """
    modules = named(model, layers) or {f"ending {i}": m for i, m in enumerate(task.endings(model, batch))}
    watching = differentiable(modules, inputs=not layers)
    with mode(model, training=False), frozen(model), torch.enable_grad(), watching as activations:
        rows = task.rows(model, batch)
        logits = rows.logits.gather(1, (rows.targets if labels is None else labels)[:, None]).squeeze(1)
        total = rows.per_example(logits).sum()
    idle = [name for name, uses in activations.items() if not uses]
    if idle or not total.requires_grad:
        raise BadInput(
            f"layers: expected modules whose activations lead to the logits, got {', '.join(idle or modules)}. "
            "Set layers to others."
        )
    units = [(name, h) for name, uses in activations.items() for h in uses]
    gradients = torch.autograd.grad(total, [h for _, h in units], allow_unused=True)
    parts = [_flat(name, h.detach(), g, rows.examples) for (name, h), g in zip(units, gradients, strict=True)]
    return Contributions(torch.cat(parts, 1), Rows(rows.logits.detach(), rows.targets, rows.example, rows.examples))


def _flat(name: str, h: Tensor, gradient: Tensor | None, examples: int) -> Tensor:
    """Multiplies h by its gradient, and sums over positions or places: `[examples, units]`."""
    if h.ndim < 2 or len(h) != examples:
        raise NotSupported(f"{name}: expected activations [{examples} examples, ...], got {tuple(h.shape)}.")
    product = torch.zeros_like(h).float() if gradient is None else h.float() * gradient.float()
    if product.ndim == 2:
        return product
    return product.sum(1) if product.ndim == 3 else product.flatten(2).sum(2)


def nearest(query: Tensor, vectors: Tensor, k: int, excluded: Tensor | None = None) -> Tensor:
    """Finds the indices of the `k` vectors `[n, d]` with the highest cosine to the query `[d]`, highest first: `[k]`.

    For several queries `[m, d]`: `[m, k]`, from one matrix product. `excluded` `[n]` says which vectors don't count;
    where fewer than `k` are left, fewer come back.
    """
    cosine = F.normalize(query, dim=-1) @ F.normalize(vectors, dim=1).T
    if excluded is not None:
        cosine = cosine.masked_fill(excluded, -torch.inf)
    left = len(vectors) if excluded is None else int((~excluded).sum())
    return cosine.topk(min(k, left), -1).indices
