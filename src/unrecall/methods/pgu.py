"""PGU: forgets along the directions that what stays does not enter the layers from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.disk.weights import read
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, Task, phase_over, train_only
from unrecall.models.importance import Weights
from unrecall.models.observe import in_order, repeated
from unrecall.nn.functional import own_moments
from unrecall.nn.hooks import capture, check_no_experts, is_linear, is_transposed, mode
from unrecall.spec.parameters import NonNegative, Positive, Share
from unrecall.training.loop import StepState, plain_step

FLOATS = 2**24
"""Layer inputs that are turned into rows at once: 128 MB in float64."""


@dataclass(frozen=True)
class PGU(GradientMethod):
    """Lowers the probability of what must go, and moves each layer only where inputs of retain have next to nothing.

        C = sum r r^T of each layer,  r [d] what enters it at one place;   C_r = C_all - C_forget = U S^2 U^T
        k = number of j with (S_1 + ... + S_j) / (S_1 + ... + S_d) <= retained_var,    P = U_1..k U_1..k^T
        L = mean[-log(1 - (p_y - offset))] - entropy mean H(p)  over forget;    g <- g - g P,  g [out, d]

    Layers are linear ones (GPT-2's transposed ones too) and 2-D convolutions, whose r are the patches under the
    kernel, by group where they have several. All other weights stay as they are, and so do statistics of norms: biases,
    norms, embeddings, weights that two modules share (a head tied to the embeddings) and those of layers that no pass
    calls (the output projection of nn.MultiheadAttention). What is projected is the whole change since the start, which
    for the plain SGD of the paper is the same as projecting each gradient, and keeps W r of retain for any recipe.

    C is taken in float64, the original in eval mode, padding left out. Needs two d x d matrices for a layer (d is 4608
    for 512 channels under a 3 x 3 kernel) and the time of one eigendecomposition each.

    Args:
        retained_var: share of the sum of S that is protected; 1 protects all that retain enters from, to rounding.
        offset: keeps the loss finite at p_y = 1; smaller pushes harder there (0.1 in the paper's depoisoning).
        entropy: weight of the entropy H, which is raised.
        stored: a safetensors file of C_all, which is `second_moments` over all training data. Retain is then not read.
            None: C_r is taken from retain itself, which is C_all - C_forget of the original.
        fit: SGD without momentum or weight decay, lr 0.05 falling to 0.01 over 100 epochs of forget, batch 128. Set
            `fit.until` to the accuracy that the original has on data it never saw for the paper's stop.

    Expected to fail: what retain and forget share can't be forgotten. Where inputs of retain fill all of a layer's
    space, what is left free are the directions in which they vary least; changes there must be large to forget, and
    then hurt use more than unprotected ones would. Inputs of later layers change as earlier ones move, but P stays.
    Examples that the model is all but certain of have next to no gradient. Nothing stops it by default, so that it may
    end far below the accuracy of a retrained model.

    Reference: Hoang, Rana, Gupta, Venkatesh, "Learn to Unlearn for Deep Neural Networks: Minimizing Unlearning
    Interference with Gradient Projection", WACV 2024, arXiv 2312.04095, from notes and the official code; defaults of
    SmallVGG on CIFAR-10. Differs from the code in its stop rule, by which it ends once validation accuracy exceeds
    forget accuracy and takes the nearer of the last two models (a method here sees no validation data); in lr that
    falls at each step, not each epoch; in C of data as they are and without dropout, where it augments training data
    and leaves dropout on; in one `retained_var` for all layers, 0.9 for some in its ResNet-18; in the meaning of 1,
    which there skips a layer; and in k, to which its script for classes adds 1.
    """

    title = "PGU"
    strength = Strength(("fit.lr",))

    retained_var: Share = 0.95
    offset: Positive = 0.05
    entropy: NonNegative = 0.2
    stored: str | None = None
    fit: Fit = Fit(
        lr=0.05, momentum=0.0, weight_decay=0.0, epochs=100, schedule="exponential", final=0.2, batchnorm="frozen"
    )

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget; all weights without a P are frozen."""
        request, task = job.request, job.task
        check_no_experts(student, "PGU", "Choose another method.")
        moments = self._moments(student, request, task)
        free = {name: free_directions(moment, self.retained_var) for name, moment in moments.items()}
        if not free:
            raise NotSupported(
                "PGU: expected linear layers or 2-D convolutions that may be trained and share no weights, got none."
            )
        layers, start = projected_layers(student), dict(original.named_parameters())
        train_only(student, (weight for name, weight in student.named_parameters() if name in free))

        def loss(rows: Rows, _: Batch) -> Tensor:
            log_p = F.log_softmax(rows.logits, 1)
            p = log_p.gather(1, rows.targets[:, None]).squeeze(1).exp()
            terms = self.entropy * own_moments(log_p)[0] - torch.log(1 + self.offset - p)
            return rows.per_example(terms).mean()

        def projected(current: StepState) -> Tensor:
            value = plain_step(current)
            with torch.no_grad():
                for name, weight in student.named_parameters():
                    if name in free:
                        change = project((weight - start[name]).float(), free[name], is_transposed(layers[name]))
                        weight.copy_(start[name] + change)
            return value

        return [replace(phase_over("forget", job, self.fit, loss), step=projected)]

    def _moments(self, model: nn.Module, request: Request, task: Task) -> Weights:
        """Computes C_r, the second moment of what retain sends into each layer, by the name of its weight."""
        if self.stored is None:
            return second_moments(model, task, request.retain)
        whole, of_forget = read(Path(self.stored)), second_moments(model, task, request.forget)
        for name, moment in of_forget.items():
            if name not in whole or whole[name].shape != moment.shape:
                actual = tuple(whole[name].shape) if name in whole else "none"
                raise BadInput(
                    f"PGU: expected stored to hold {name} of shape {tuple(moment.shape)}, got {actual}. "
                    "Write second_moments of this model over its training data."
                )
        return {name: whole[name].to(moment) - moment for name, moment in of_forget.items()}


def projected_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Finds the layers that get a P if a pass calls them, by the name of their weight."""
    holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    layers = {}
    for name, module in model.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        alone = weight is not None and weight.requires_grad and holders[id(weight)] == 1
        if alone and (is_linear(module) or isinstance(module, nn.Conv2d)):
            layers[f"{name}.weight".lstrip(".")] = module
    return layers


@torch.no_grad()
def second_moments(model: nn.Module, task: Task, examples: Examples) -> Weights:
    """Sums r r^T over all inputs r of each covered layer, by its weight's name: `[groups, d, d]` in float64."""
    layers = projected_layers(model)
    moments: Weights = {}
    positions: Tensor | None = None
    count = 0

    def add(name: str, inputs: Tensor) -> None:
        for rows in entering(layers[name], inputs, positions):
            product = rows.mT @ rows
            moments[name] = moments[name] + product if name in moments else product

    with mode(model, training=False), capture(layers, add, inputs=True):
        for batch in in_order(model, task, examples):
            batch = {name: value[repeated(batch, count) :] for name, value in batch.items()}  # noqa: PLW2901
            positions, count = task.positions(batch), count + len(batch["index"])
            task.rows(model, batch)
    return moments


def entering(layer: nn.Module, inputs: Tensor, positions: Tensor | None = None) -> Iterator[Tensor]:
    """Gives what enters a layer, some rows at a time, `[groups, rows, d]` in float64, so that W r + b leaves it.

    `positions` [examples, positions]: which positions of `inputs` [examples, positions, d] count; None where all do.
    """
    if not isinstance(layer, nn.Conv2d):
        counts = positions is not None and inputs.shape[:-1] == positions.shape
        rows = inputs[positions] if counts else inputs.flatten(0, -2) if inputs.ndim > 1 else inputs[None]
        yield from (part.double()[None] for part in torch.split(rows, max(1, FLOATS // rows.shape[1])))
        return
    inputs = inputs if inputs.ndim == 4 else inputs[None]
    padding = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    for part in torch.split(inputs, max(1, FLOATS // (inputs[0].numel() * layer.weight[0, 0].numel()))):
        around = F.pad(part, layer._reversed_padding_repeated_twice, padding)
        patches = F.unfold(around.double(), layer.kernel_size, layer.dilation, 0, layer.stride)
        grouped = patches.view(len(patches), layer.groups, -1, patches.shape[-1])
        yield grouped.permute(1, 0, 3, 2).flatten(1, 2)


def free_directions(moment: Tensor, retained_var: float) -> Tensor:
    """Gives the eigenvectors of C_r as columns, the first k replaced by 0; `[groups, d, d]` in float32.

    Eigenvalues that are no more than the rounding of float32 inputs count as 0 and are never among the k.
    """
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.flip(-1), vectors.flip(-1)
    rounding = values.shape[-1] * torch.finfo(torch.float32).eps ** 2
    size = values.where(values > rounding * values[..., :1], 0).clamp_min(0).sqrt()
    share = size.cumsum(-1) / size.sum(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    protected = (share <= retained_var + 1e-9) & (size > 0)
    free: Tensor = vectors.masked_fill(protected[..., None, :], 0)
    return free.float()


def project(change: Tensor, free: Tensor, transposed: bool = False) -> Tensor:
    """Takes change P off a weight's change: `[out, d]`, `[out, channels, height, width]`, or `[d, out]` transposed."""
    matrix = change.T if transposed else change.flatten(1)
    along = (matrix.reshape(len(free), -1, matrix.shape[1]) @ free @ free.mT).flatten(0, 1)
    return along.T if transposed else along.view_as(change)
