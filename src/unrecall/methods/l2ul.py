"""L2UL: makes chosen examples go wrong, and lets adversarial copies of them stand for the data that stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unrecall.data.batches import batch_size, move, repeat
from unrecall.data.examples import Examples, Selection
from unrecall.errors import NotSupported
from unrecall.methods.base import Batch, Batches, Fit, GradientMethod, Job, Phase, Strength, Task
from unrecall.models.importance import Weights
from unrecall.models.observe import device_of, in_order, looked_up
from unrecall.models.perturb import Walk, draw_others, other_answers, pgd
from unrecall.nn.functional import nll
from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Count, Index, NonNegative
from unrecall.tasks.protocols import Perturbable, check_own_rows, offers, perturbable


@dataclass(frozen=True)
class L2UL(GradientMethod):
    """Needs the model and forget alone: adversarial copies that look like other classes keep the boundaries in place.

        L = n_f/(n_f + n_a) L_f + n_a/(n_f + n_a) CE(X_a, T) + (lambda/2) sum_i w_i (theta_i - theta0_i)^2

        misclassify:  L_f = -CE(X_f, Y_f)          relabel:  L_f = CE(X_f, Y*),   Y* != Y_f random, drawn once
        X_a   targeted l2-PGD from X_f on the original, towards random T != Y_f, made once
        w     1 - (Omega - min Omega) / (max Omega - min Omega) within each tensor, in [0, 1]; 1 where all are equal
        Omega = (1/n) sum_b n_b |d mean_{x in b} ||z(x)||_2 / d theta|  over batches b of forget, z the logits

    n_f and n_a are the sizes of the step's two batches. Weights that matter little to forget are held most. Adversarial
    and forget examples go through the model in two passes, BatchNorm in train mode. The original is in eval mode while
    copies are made and Omega is taken.

    Args:
        goal: "misclassify" or "relabel".
        per_example: adversarial copies of each example (the paper: 200 on CIFAR-100 and ImageNet, 300 on UTKFace); 0
            makes none, which is all that is left where inputs are not continuous.
        ratio: how many batches of adversarial examples a step draws beside one of forget, all of `fit.batch_size`; 8
            makes 256 beside 32.
        eps: radius of the l2 ball, in widths of the task's bounds; the paper: 1 to 5 for CIFAR-10 pictures.
        step: length of a PGD step, in widths too.
        steps: PGD steps.
        lambda_: weight of the penalty; 0 leaves it out.
        fit: SGD, lr 1e-3, momentum 0.9, weight decay 1e-4, batch 32, at most 1000 passes over the adversarial
            examples (over forget where there are none) and 500 steps; ends as soon as forget accuracy is 0, looked up
            at each step. Where that is slow because forget is large, raise `fit.check_every`.

    Expected to fail: a retrained model gets many of the forgotten examples right, so that accuracy 0 marks them. Copies
    stand only for classes that they reach within `eps`, and only as the original sees them; the last few examples may
    take many steps, which cost use.

    Reference: Cha, Cho, Hwang, Lee, Moon, Lee, "Learning to Unlearn: Instance-wise Unlearning for Pre-trained
    Classifiers", AAAI 2024, arXiv 2301.11578, from notes and the official code. Differs from the code in where PGD
    starts (uniform in direction and length within the ball; there a random input, projected); in Omega of eval mode
    (there train mode); in shuffling: forget is drawn anew each time round and the adversarial examples in `ratio`
    interleaved parts, each shuffled by itself; and in ending after 500 steps, for what can't reach accuracy 0 (the same
    passes at learning rate 0, say) would go on for 1000 passes. goal="relabel" ends by forget accuracy too.
    """

    title = "L2UL"
    strength = Strength(("fit.lr",))

    goal: Literal["misclassify", "relabel"] = "misclassify"
    per_example: Index = 20
    ratio: Count = 8
    eps: NonNegative = 4.0
    step: NonNegative = 0.1
    steps: Count = 100
    lambda_: NonNegative = 1.0
    fit: Fit = Fit(lr=1e-3, weight_decay=1e-4, epochs=1000, steps=500, batch_size=32, until=0.0, check_every=1)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over the adversarial examples with forget cycling beside them, or over forget alone."""
        request, task, generator = job.request, job.task, job.generator
        self._check(task)
        labels = other_answers(original, task, request.forget, generator) if self.goal == "relabel" else ()
        walk = Walk(self.eps, self.step, self.steps, "l2")
        adversarial = adversaries(original, job, self.per_example, walk) if self.per_example else Adversaries((), ())
        parts = adversarial.parts(self.ratio)
        shares = anchors(student, task, request.forget, self.fit.batch_size) if self.lambda_ > 0 else {}
        start = dict(original.named_parameters())

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            forget = batches["forget"]
            n_f, n_a = batch_size(forget), sum(batch_size(batches[name]) for name in parts)
            total = torch.zeros((), device=device_of(model))
            if parts:
                batch, targets = adversarial.batch({name: batches[name] for name in parts})
                rows = task.rows(model, batch)
                total = total + n_a / (n_f + n_a) * rows.per_example(nll(rows.logits, targets)).mean()
            rows = task.rows(model, forget)
            if self.goal == "misclassify":
                forgotten = -rows.losses().mean()
            else:
                forgotten = rows.per_example(nll(rows.logits, looked_up(labels, forget))).mean()
            total = total + n_f / (n_f + n_a) * forgotten
            weights = dict(student.named_parameters())
            for name, share in shares.items():
                total = total + self.lambda_ / 2 * (share * (weights[name] - start[name]).square()).sum()
            return total

        return [Phase(loss, {**parts, "forget": request.forget}, self.fit)]

    def _check(self, task: Task) -> None:
        """Raises NotSupported where the task lacks continuous inputs or classes that the parameters ask for."""
        if self.per_example and not offers(task, Perturbable):
            name = type(task).__name__
            raise NotSupported(f"L2UL: expected a task with continuous inputs, got {name}. Set per_example=0.")
        if self.per_example or self.goal == "relabel":
            check_own_rows(self, task, "Set per_example=0 and goal='misclassify'.")


class Adversaries(NamedTuple):
    """Adversarial examples as a data set has them, and for each the classes that its rows were moved to, `[rows]`."""

    examples: Sequence[Any]
    targets: Sequence[Tensor]

    def parts(self, ratio: int) -> dict[str, Examples]:
        """Deals the examples into `ratio` streams, none of them empty, so that a step draws `ratio` batches."""
        n = min(ratio, len(self.examples))
        return {f"adversarial {i}": Selection(self.examples, range(i, len(self.examples), n)) for i in range(n)}

    def batch(self, batches: Batches) -> tuple[Batch, Tensor]:
        """Joins what all streams drew into one batch, and gives the classes that it was moved to, `[rows]`."""
        whole = {key: torch.cat([batch[key] for batch in batches.values()]) for key in next(iter(batches.values()))}
        index = torch.cat([i + len(batches) * batch["index"] for i, batch in enumerate(batches.values())])
        joined = {**whole, "index": index}
        return joined, looked_up(self.targets, joined)


def adversaries(model: nn.Module, job: Job, per_example: int, walk: Walk) -> Adversaries:
    """Makes `per_example` copies of each forget example, and moves each by `walk` towards a class of its own."""
    task, generator = job.task, job.generator
    items: list[Any] = []
    targets: list[Tensor] = []
    for batch in in_order(model, task, job.request.forget, max(1, task.at_once // per_example)):
        copies = repeat(batch, per_example)
        others = draw_others(model, task, copies, generator)
        perturbed = pgd(model, task, copies, walk._replace(targets=torch.cat(others)), generator)
        items += perturbable(task).items(move(perturbed, torch.device("cpu")))
        targets += others
    return Adversaries(items, targets)


def anchors(model: nn.Module, task: Task, examples: Examples, batch_size: int) -> Weights:
    """Computes w of each trainable tensor: 1 for what matters least to `examples`, 0 for what matters most."""
    shares = {}
    for name, values in importance(model, task, examples, batch_size).items():
        spread = values.max() - values.min()
        shares[name] = 1 - (values - values.min()) / spread if spread > 0 else torch.ones_like(values)
    return shares


def importance(model: nn.Module, task: Task, examples: Examples, batch_size: int) -> Weights:
    """Computes Omega: the memory-aware synapses of Aljundi et al., with the logits' length in place of its square."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    with mode(model, training=False), torch.enable_grad():
        for batch in in_order(model, task, examples, batch_size):
            rows = task.rows(model, batch)
            length = rows.per_example(rows.logits.norm(dim=1)).mean()
            gradients = torch.autograd.grad(length, list(weights.values()), allow_unused=True, materialize_grads=True)
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += rows.examples / len(examples) * gradient.abs()
    return total
