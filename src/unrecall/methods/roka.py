"""ROKA: unlearns one example a step, and heals with the retained examples that lean on the same units."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Rows, Strength, Task
from unrecall.models.contribution import contributions, nearest
from unrecall.models.layers import named
from unrecall.models.observe import by_example, in_order, looked_up, repeated
from unrecall.nn.functional import nll
from unrecall.nn.hooks import batchnorms, mode
from unrecall.spec.parameters import Count, NonNegative

Labels: TypeAlias = Callable[[Batch, Rows], Tensor]
"""The class that each row of a batch counts as, `[rows]`."""


@dataclass(frozen=True)
class ROKA(GradientMethod):
    """Climbs the loss of one forget example a step, and trains its siblings to stay as they are.

        R_i(x) = h_i(x) df_c(x)/dh_i(x)                       contribution of unit i to the logit f_c of x's own class
        L      = -CE(x_f, c_f) + alpha mean over siblings CE(x_s, argmax z(x_s))
        targeted (STU):        x_f = b with probability q_b / sum q,  q = the label's probability;  c_f the label
        non-targeted (SNTU):   x_f = argmax_b cos(R_b, r_0);  c_f what the original predicted
        siblings:              the k retained examples b with the highest cos(R_b, R_f)

    r_0 is the mean R over forget. It and c_f are those of the original and never change; R and q are the current
    model's, in eval mode, and count as constants, as do the siblings' labels. q of an example with several rows is the
    geometric mean. Forget and retain are drawn apart: x_f is one of as many forget examples as a batch of all the data
    would hold on average, at least one, and siblings come from a batch of retain. The targeted form passes over what
    belongs to a class that is forgotten whole, or is taken for one. Where rows are pairs they have no such class, and
    no pseudo-label that would be the same in another batch: c_f is the pair's own in both forms.

    A small step raises L_f and lowers L_s where alpha |g_s|^2 > g_f.g_s and |g_f|^2 > alpha g_f.g_s (g: gradients).
    If they oppose each other any alpha will do; otherwise there is a largest one too, beside the paper's smallest.

    Args:
        form: "targeted", "non-targeted", or "auto": targeted where a class is forgotten.
        alpha: weight of healing; 0 is gradient ascent on x_f alone, and reads no retain.
        neighbours: k, at most as many as a batch of retain holds.
        heal: what siblings are trained to be: "pred", what the model takes them for, or "label", their own class.
        layers: dotted names of the modules whose outputs h are; empty: what enters the head, or the end of each tower.
        fit: SGD, lr 2e-3 without momentum or weight decay, clip 1, batch 128, 200 steps, BatchNorm frozen, for one
            example and k siblings make no statistics.

    What healing is worth depends on the model. A saturated network keeps its other classes without it, moved by one
    clipped example a step; one that is still learning needs it, and "label" at that: a CNN trained on
    digits for two epochs, class 0 gone, had 0.12 of the others left after 100 steps at lr 0.01 without healing, 0.11
    with "pred", 0.73 with "label".

    Expected to fail: the ascent has no bound, and "pred" sharpens what the model says, right or wrong: it corrects
    nothing, and where retain has collapsed it stays so. Forgetting samples of a class that is kept, siblings are of
    that class, their gradients nearly those of x_f, and healing undoes most of it. Of many forget examples in a batch
    the non-targeted form takes the most typical, which are those with the least gradient: a smaller fit.batch_size
    leaves fewer to choose from.

    Reference: Shin, Tapia, Diaz, Jeon, Ferreira, Daneshyari, "ROKA", arXiv 2603.00436, 2026, algorithms STU and SNTU,
    from notes; neither full text nor code was found. Differs from the paper in the two draws (it draws one batch from
    all data, which seldom holds a rare forget example). Ours, for nothing on them was found: alpha, k, the layer, the
    optimiser, clipping, R by each example's own class, and leaving out the forgotten class among siblings.
    """

    title = "ROKA"
    strength = Strength(("fit.lr",), high=2**10)

    form: Literal["auto", "targeted", "non-targeted"] = "auto"
    alpha: NonNegative = 5.0
    neighbours: Count = 8
    heal: Literal["pred", "label"] = "pred"
    layers: tuple[str, ...] = ()
    fit: Fit = Fit(lr=2e-3, momentum=0.0, weight_decay=0.0, epochs=200, steps=200, clip=1.0, batchnorm="frozen")

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it."""
        request, task = job.request, job.task
        self._check(student, request)
        targeted = self.form == "targeted" or (self.form == "auto" and request.kind == "class")
        initial = None if targeted else initial_view(original, task, request.forget, self.layers)
        classes = torch.tensor(request.masked if targeted and not task.rows_depend_on_batch else (), dtype=torch.long)
        size = math.ceil(self.fit.batch_size * len(request.forget) / (len(request.forget) + len(request.retain)))
        forgotten: Labels = _own if initial is None else initial.of_rows
        healed: Labels = _predicted if self.heal == "pred" else _own

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            batch = batches["forget"] if task.rows_depend_on_batch else part(batches["forget"], slice(size))
            labels = None if initial is None else initial.labels(batch)
            vectors, rows = contributions(student, task, batch, self.layers, labels)
            losses, candidates = rows.losses()[:size], vectors[:size]
            first = draw_example(losses) if initial is None else nearest(initial.centroid, candidates, 1)
            total = -_losses(model, task, batch, first, forgotten).mean()
            if self.alpha == 0:
                return total
            retained, rows = contributions(student, task, batches["retain"], self.layers)
            siblings = nearest(vectors[first[0]], retained, self.neighbours, of_classes(rows, classes))
            if len(siblings):
                total = total + self.alpha * _losses(model, task, batches["retain"], siblings, healed).mean()
            return total

        streams = {"forget": request.forget}
        if self.alpha > 0:
            streams["retain"] = request.retain
        return [Phase(loss, streams, self.fit, whole=True)]

    def _check(self, student: nn.Module, request: Request) -> None:
        """Raises BadInput for unknown layers, more neighbours than a batch holds, and BatchNorm in train mode."""
        named(student, self.layers)
        if self.alpha > 0 and self.neighbours > min(self.fit.batch_size, len(request.retain)):
            raise BadInput(
                f"ROKA: expected neighbours to be at most fit.batch_size ({self.fit.batch_size}) and the number of "
                f"retain examples ({len(request.retain)}), got {self.neighbours}. Lower neighbours, or raise "
                "batch_size where there are enough."
            )
        if self.fit.batchnorm == "train" and batchnorms(student):
            raise BadInput(
                "ROKA: expected fit.batchnorm to be 'frozen' where a model has BatchNorm, got 'train'. One example "
                "makes no statistics."
            )


def draw_example(losses: Tensor) -> Tensor:
    """Draws one example: b with probability q_b / sum q, where q = exp(-loss), however small each q is. `[1]`

    The b with the least E_b / q_b is such a draw, for E that are independent and exponential. It takes the generator
    that the engine sets for each step.
    """
    return (losses + torch.empty_like(losses).exponential_().log()).argmin(0, keepdim=True)


def of_classes(rows: Rows, classes: Tensor) -> Tensor:
    """Marks the examples that are of one of the classes, or taken for it, in any of their rows: `[examples]`."""
    classes = classes.to(rows.targets.device)
    masks = torch.isin(rows.targets, classes) | torch.isin(rows.logits.argmax(1), classes)
    return rows.summed(masks.float()) > 0


class Initial(NamedTuple):
    """What the original said of the forget examples.

    `predicted`: the class of each row, by example; empty where it is another with other batch mates. `centroid`: the
    mean contribution `[units]`.
    """

    predicted: tuple[Tensor, ...]
    centroid: Tensor

    def labels(self, batch: Batch) -> Tensor | None:
        """Looks up the pseudo-labels `[rows]` of a batch of forget; None where there are none."""
        return looked_up(self.predicted, batch) if self.predicted else None

    def of_rows(self, batch: Batch, rows: Rows) -> Tensor:
        """Looks up the pseudo-labels of a batch; its targets where there are none."""
        labels = self.labels(batch)
        return rows.targets if labels is None else labels


def initial_view(model: nn.Module, task: Task, forget: Examples, layers: Sequence[str]) -> Initial:
    """Computes the pseudo-labels and the centroid of the forget examples from `model`, the original."""
    predicted: list[Tensor] = []
    summed: list[Tensor] = []
    count = 0
    for batch in in_order(model, task, forget):
        labels = None
        if not task.rows_depend_on_batch:
            with mode(model, training=False), torch.no_grad():
                rows = task.rows(model, batch)
            labels = rows.logits.argmax(1)
            predicted += by_example(rows, labels)
        vectors = contributions(model, task, batch, layers, labels).vectors[repeated(batch, count) :]
        summed.append(vectors.sum(0))
        count += len(vectors)
    return Initial(tuple(predicted), torch.stack(summed).sum(0) / len(forget))


def part(batch: Batch, which: Tensor | slice) -> Batch:
    """Cuts some of a batch's examples out of it."""
    return {name: value[which] for name, value in batch.items()}


def _losses(model: nn.Module, task: Task, batch: Batch, which: Tensor, labels: Labels) -> Tensor:
    """Computes the cross-entropy of some examples `[which]`; where rows mix, the rest of the batch goes along."""
    if not task.rows_depend_on_batch:
        batch, which = part(batch, which), torch.arange(len(which), device=which.device)
    rows = task.rows(model, batch)
    return rows.per_example(nll(rows.logits, labels(batch, rows)))[which]


def _own(_: Batch, rows: Rows) -> Tensor:
    return rows.targets


def _predicted(_: Batch, rows: Rows) -> Tensor:
    return rows.logits.argmax(1)
