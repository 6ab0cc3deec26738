"""UNSIR: breaks a class with noise that the model takes least for it, and then repairs the others."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples, Joined, Selection, split_off
from unrecall.methods.base import Batches, Fit, GradientMethod, Job, Phase, Strength, Task, loss_on, train_helper
from unrecall.models.observe import device_of
from unrecall.models.perturb import noise_like, unit
from unrecall.spec.parameters import Count, NonNegative, Share
from unrecall.tasks.protocols import check_own_rows, perturbable


@dataclass(frozen=True)
class UNSIR(GradientMethod):
    """Trains on noise under the labels of forget beside a part of retain, and then on that part alone.

        noise:   min over z of  -CE(f0(x(z)), y) + penalty mean ||z||^2,    x(z) = centre + width z / 4, z of N(0, I)
        impair:  L = CE over noise, under y, and a part of retain, in mixed batches
        repair:  L = CE over that part of retain

    f0 is the original in eval mode. Noise maximises the loss of the class, so that learning it as that class undoes
    what the class was. Its labels are those of the forget examples in turn, which themselves are not trained on.

    Args:
        noises: how many noise inputs there are, all labels together (the paper: 256 for each class).
        penalty: weight of the length of z.
        shape: how noise is made: Adam, lr 0.1, 40 steps of all noise inputs.
        share: the part of retain that is read, drawn once (the paper: 1,000 of 5,000 of each class).
        ratio: how many times noise is shown for each example of that part; each noise input several times.
        impair: Adam, lr 0.02, no weight decay, batch 256, 1 epoch over both.
        repair: Adam, lr 0.01, the same over the part of retain.

    Expected to fail: for samples of a class that is kept, for the whole class is broken and retain then brings it back,
    the forgotten examples' likeness with it. The rates are those of a ResNet-18 and harsh: what the impairing breaks
    besides, one epoch of a part of retain may not repair. NotSupported on tasks without continuous inputs, and where
    rows depend on the other examples of a batch.

    Reference: Tarun, Chundawat, Mandal, Kankanhalli, "Fast Yet Effective Machine Unlearning", TNNLS 2023, arXiv
    2111.08947, from its code. Differs from the code in keeping the model in eval mode while noise is made; in labels,
    where the code gives all noise label 0; and in ratio and share in place of counts, at the code's proportions for a
    class. Its noise stands for inputs that were normalised; x(z) puts it where such inputs lie.
    """

    title = "UNSIR"
    strength = Strength(("impair.lr",))

    noises: Count = 256
    penalty: NonNegative = 0.1
    shape: Fit = Fit(optimizer="adam", lr=0.1, weight_decay=0.0, epochs=40, batch_size=256)
    share: Share = 0.2
    ratio: Annotated[float, Field(gt=0, le=100)] = 0.64
    impair: Fit = Fit(optimizer="adam", lr=0.02, weight_decay=0.0, batch_size=256)
    repair: Fit = Fit(optimizer="adam", lr=0.01, weight_decay=0.0, batch_size=256)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes the noise, a phase over it and the part of retain, and one over that part."""
        request, task = job.request, job.task
        perturbable(task)
        check_own_rows(self, task, "Choose another method.")
        noise = shaped_noise(self, original, job)
        part, _ = split_off(request.retain, max(1, round(self.share * len(request.retain))), job.generator)
        shown = Selection(noise, [i % len(noise) for i in range(max(1, round(self.ratio * len(part))))])
        return [
            Phase(loss_on("mixed", task), {"mixed": Joined([shown, part])}, self.impair),
            Phase(loss_on("retain", task), {"retain": part}, self.repair),
        ]


class Noise(nn.Module):
    """z of each noise input, `[noises, ...]`, as weights that the loop can train."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z)

    def inputs(self, task: Task, batch: Batch) -> Batch:
        """Puts x(z) in place of the inputs of a batch of noise."""
        able = perturbable(task)
        centre = sum(able.bounds) / 2
        return able.with_inputs(batch, centre + unit(able) * self.z[batch["index"]])


def shaped_noise(method: UNSIR, original: nn.Module, job: Job) -> Examples:
    """Makes noise that the original takes least for the labels of forget, as examples under these labels."""
    task, forget = job.task, job.request.forget
    carriers = Selection(forget, [i % len(forget) for i in range(method.noises)])
    whole = {**task.collate([carriers[i] for i in range(len(carriers))]), "index": torch.arange(len(carriers))}
    noise = Noise(noise_like(perturbable(task).inputs(whole), job.generator)).to(device_of(original))

    def loss(_: nn.Module, batches: Batches) -> Tensor:
        batch = batches["noise"]
        losses = task.rows(original, noise.inputs(task, batch)).losses()
        return (method.penalty * noise.z[batch["index"]].flatten(1).square().sum(1) - losses).mean()

    train_helper(noise, Phase(loss, {"noise": carriers}, method.shape), job, "unsir, noise")
    with torch.no_grad():
        batch = noise.inputs(task, move(whole, device_of(original)))
    return perturbable(task).items(move(batch, torch.device("cpu")))
