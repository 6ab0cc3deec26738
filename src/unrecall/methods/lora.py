"""LoRA: another method's training, of a low-rank change of weights that are themselves held."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field
from torch import nn

from unrecall.errors import NotSupported
from unrecall.methods.base import GradientMethod, Job, LoopMethod, Phase, Training, Wrapper, has_null, train
from unrecall.methods.npo import NPO
from unrecall.models.low_rank import ADAPTER, Adapted, LowRank, has_adapters, view
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.pretrained import checkpoint
from unrecall.training.randomness import draw_seed, own_randomness


@dataclass(frozen=True)
class LoRA(Wrapper, LoopMethod):
    """Lets the base method train a low-rank change of each linear layer, by PEFT, and adds it to the weights at last.

        W = W_0 + (alpha / r) B A,   A [r, inputs] random at first, B [outputs, r] zero at first

    Weights, and the statistics of norms, are held; A and B are trained in float32 where the weights have less. The
    experts of a mixture change too, each in its own way; its router does not. Student and reference are two views of
    the same weights, which are not copied before the end: the reference is the model with the change at zero. A base
    that writes weights itself can't be wrapped.

    Args:
        base: the method that trains; NPO by default, at lr 1e-4. A learning rate that suits all weights is about a
            tenth of what LoRA needs: name a larger one.
        r: rank of the change.
        alpha: its scale; the change is alpha / r times B A.
        dropout: share of a layer's inputs that the change does not see, drawn anew each step.
        target: names of linear layers, or how they end (q_proj+v_proj); all-linear is each of them but the head, and
            the head where there is no other, and the experts of a mixture, whose matrices have names too
            (down_proj). Never a layer whose weights are frozen or another's too, nor Mamba's out_proj, whose matrix
            its kernels read past any change.
        checkpointing: activations are computed again on the way back and not kept; Transformers models only.

    Expected to fail: as the base does. What must change in more directions than r, in layers that are left out, or in
    embeddings, stays. Merged into bfloat16, a change below 1/256 of a weight may be rounded away.

    Reference: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, "LoRA: Low-Rank Adaptation of Large Language Models",
    ICLR 2022, arXiv 2106.09685. Differs from the paper in target: it adapts W_q and W_v alone; all linear layers are
    from Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", NeurIPS 2023, arXiv 2305.14314. A starts as PEFT has it
    (Kaiming uniform), the paper's is Gaussian.
    """

    title = "LoRA"
    has_null = True

    base: GradientMethod = NPO(fit=replace(NPO.fit, lr=1e-4))
    r: Count = 16
    alpha: Positive = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target: tuple[str, ...] = ("all-linear",)
    checkpointing: bool = False

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Runs the base's phases on a view of `model`'s weights with the change beside them; the result has its own."""
        job = job.settled(model)
        adapted, phases = self._adapted(model, job)
        train(adapted.model, phases, job, self)
        result = copy.deepcopy(model).to(job.session.torch_device())
        adapted.add_to(result)
        if job.session.folder is not None and adapted.base:
            adapted.save(job.session.folder / ADAPTER)
        elif job.session.folder is not None:
            job.session.say("no adapter is left, as the model that it changes lies nowhere under a name")
        return result.eval()

    def training(self, model: nn.Module, job: Job) -> Training:
        """Makes the view of the weights with the change beside them, and the base's phases of its training."""
        adapted, phases = self._adapted(model, job.settled(model))
        return Training(adapted.model, phases)

    def _adapted(self, model: nn.Module, job: Job) -> tuple[Adapted, Sequence[Phase]]:
        """A view of `model`'s weights with the change beside them, and the base's phases of its training.

        NotSupported for a base that writes weights or frees them, and for a model that has adapters.
        """
        name = type(self.base).__name__
        if not has_null(self.base):
            raise NotSupported(f"LoRA: expected a base that only trains, got {name}, which writes weights itself.")
        if has_adapters(model):
            raise NotSupported(
                "LoRA: expected a model without adapters, got one with them. Use its merge_and_unload()."
            )
        change = LowRank(self.r, self.alpha, self.dropout, self.target)
        with own_randomness(draw_seed(job.generator)):
            adapted = change.beside(model, job.task, job.request.forget, job.session.torch_device())
        student = adapted.model
        weights = [p for p in student.parameters() if not p.requires_grad]
        original = view(student, weights).eval().requires_grad_(False)
        if self.checkpointing:
            checkpoint(student)
        phases = self.base.phases(student, original, job)
        if any(p.requires_grad for p in weights):
            raise NotSupported(f"LoRA: expected a base that frees no weights, got {name}. Use it on its own.")
        return adapted, phases
