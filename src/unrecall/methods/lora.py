"""LoRA: another method's training, of a low-rank change of weights that are themselves held."""

import copy
import importlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from unrecall.errors import BadInput, MissingDependency, NotSupported, nearest
from unrecall.methods.base import GradientMethod, Job, Wrapper, copy_of, train
from unrecall.methods.npo import NPO
from unrecall.models.observe import in_order
from unrecall.nn.hooks import is_linear, routers, stacked_experts
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.pretrained import checkpoint
from unrecall.training.randomness import draw_seed, own_randomness

STATE_SPACE = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Transformers' names for models with Mamba's layers."""

UNREAD = "out_proj"
"""The layer of Mamba's whose matrix its kernels read themselves, so that PEFT refuses to put a change beside it."""


@dataclass(frozen=True)
class LoRA(Wrapper):
    """Lets the base method train a low-rank change of each linear layer, by PEFT, and adds it to the weights at last.

        W = W_0 + (alpha / r) B A,   A [r, inputs] random at first, B [outputs, r] zero at first

    Weights, and the statistics of norms that have weights, are held; A and B are trained in float32 where the weights
    have less. The experts of a mixture change too, each in its own way; its router does not. Student and reference are
    two views of the same weights, which are not copied before the end: the reference is the model with the change at
    zero. A base that writes weights itself can't be wrapped.

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

    base: GradientMethod = NPO(fit=replace(NPO.fit, lr=1e-4))
    r: Count = 16
    alpha: Positive = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target: tuple[str, ...] = ("all-linear",)
    checkpointing: bool = False

    def unlearn(self, model: nn.Module, job: Job) -> nn.Module:
        """Runs the base's phases on a view of `model`'s weights with the change beside them; the result has its own."""
        job, name = job.settled(model), type(self.base).__name__
        if not self.base.has_null:
            raise NotSupported(f"LoRA: expected a base that only trains, got {name}, which writes weights itself.")
        if hasattr(model, "peft_config"):
            raise NotSupported(
                "LoRA: expected a model without adapters, got one with them. Use its merge_and_unload()."
            )
        layers = self._layers(model, job)
        student = _view(model, model.parameters()).to(job.session.place()).requires_grad_(False)
        with own_randomness(draw_seed(job.generator)):
            changes = self._inject(student, layers)
        weights = [p for p in student.parameters() if not p.requires_grad]
        original = _view(student, weights).eval().requires_grad_(False)
        if self.checkpointing:
            checkpoint(student)
        phases = self.base.phases(student, original, job)
        if any(p.requires_grad for p in weights):
            raise NotSupported(f"LoRA: expected a base that frees no weights, got {name}. Use it on its own.")
        train(student, phases, job, self)
        result = copy_of(model, job)
        with torch.no_grad():
            for name, change in changes.items():
                result.get_parameter(name).add_(change.get_delta_weight("default"))
        return result.eval()

    def _layers(self, model: nn.Module, job: Job) -> list[str]:
        """Gives the names of the layers, and of the experts' parameters, that are changed."""
        experts = {name: weight for name, weight in stacked_experts(model).items() if weight.requires_grad}
        layers: dict[str, object] = {**_linear(model), **experts}
        try:
            head = job.task.head(model, next(in_order(model, job.task, job.request.forget, 1)))
        except NotSupported:
            head = None
        kind = str(getattr(getattr(model, "config", None), "model_type", ""))
        unread = UNREAD if kind in STATE_SPACE else ""
        body = [name for name, layer in layers.items() if layer is not head and name.rsplit(".", 1)[-1] != unread]
        if self.target == ("all-linear",):
            if not layers:
                raise NotSupported("LoRA: expected linear layers that may be trained, got none. Use the base alone.")
            return body or list(layers)
        chosen = {ending: [name for name in body if f".{name}".endswith(f".{ending}")] for ending in self.target}
        for ending, names in chosen.items():
            if not names:
                endings = {name.rsplit(".", 1)[-1] for name in body}
                raise BadInput(
                    "LoRA: expected target to be linear layers that may be trained, the head not among them, "
                    f"got '{ending}'. {nearest(ending, endings)}"
                )
        return [name for name in body if any(name in names for names in chosen.values())]

    def _inject(self, student: nn.Module, layers: list[str]) -> dict[str, Any]:
        """Puts a trainable change of zero beside each of the layers, in place, and gives the changes by weight."""
        try:
            peft: Any = importlib.import_module("peft")
        except ImportError as error:
            raise MissingDependency("peft", "llm") from error
        experts = [name for name in layers if name in stacked_experts(student)]
        if experts and self.dropout:
            raise BadInput(
                f"LoRA: expected dropout to be 0 where experts are changed, got {self.dropout:g}. Leave it out, or "
                "name a target without experts."
            )
        linear = [name for name in layers if name not in experts]
        config = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="|".join(map(re.escape, linear)) if linear else [],
            target_parameters=experts or None,
        )
        # For a mixture that it knows, PEFT would read the names as those of the model's older files, and find others.
        of_model = vars(student).pop("config", None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # it is set right, for each layer alone
            try:
                peft.inject_adapter_in_model(config, student)
            except ValueError as error:
                line = " ".join(str(error).split())[:300]
                raise NotSupported(
                    f"LoRA: expected layers that PEFT can change, got: {line}. Name others in target, or use the base "
                    "alone."
                ) from error
        if of_model is not None:
            vars(student)["config"] = of_model
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
        changes: dict[str, Any] = {f"{name}.weight": student.get_submodule(name) for name in linear}
        for name, module in student.named_modules():
            if (matrix := getattr(module, "parameter_name", None)) and hasattr(module, "get_delta_weight"):
                changes[f"{name.replace('.base_layer', '')}.{matrix}"] = module  # one around another, a matrix each
        return changes


def _view(model: nn.Module, shared: Iterable[nn.Parameter]) -> nn.Module:
    """Copies a model, but for the `shared` parameters: the copy's lie in the same memory."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in shared}
    return copy.deepcopy(model, memo)


def _linear(model: nn.Module) -> dict[str, nn.Module]:
    """Finds, by name, the linear layers that may be trained and share their weights with none; GPT-2's too.

    A layer that says which experts of a mixture an example goes to, and how much each counts, is none of them.
    """
    owners: dict[int, int] = {}
    for _, weight in model.named_parameters(remove_duplicate=False):
        owners[id(weight)] = owners.get(id(weight), 0) + 1
    inside: set[nn.Module] = {m.out_proj for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    inside |= routers(model)
    return {
        name: layer
        for name, layer in model.named_modules()
        if is_linear(layer) and owners[id(layer.weight)] == 1 and layer.weight.requires_grad and layer not in inside
    }
