"""A low-rank change beside the linear layers of a model, whose own weights are held."""

import copy
import importlib
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from unrecall.data.examples import Examples
from unrecall.disk.files import discard, writing_folder
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, MissingDependency, NotSupported, nearest, one_line
from unrecall.models.observe import in_order
from unrecall.nn.hooks import is_linear, routers, stacked_experts
from unrecall.tasks.base import Task

ADAPTER = "adapter"
"""The folder, in that of a session, in which a low-rank change is left as an adapter of PEFT."""


def adapter_of(folder: Path, digest: str) -> Path:
    """Where the adapter that made the model with these weights lies, in a session's folder, if there is one."""
    return folder / f"{ADAPTER}-{digest}"


def name_adapter(folder: Path, model: nn.Module) -> None:
    """Names the adapter that was just left in a session's folder after the weights of the model that it made."""
    if (folder / ADAPTER).is_dir():
        place = adapter_of(folder, digest_of(model))
        discard(place)
        (folder / ADAPTER).rename(place)


STATE_SPACE = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Transformers' names for models with Mamba's layers."""

UNREAD = "out_proj"
"""The layer of Mamba's whose matrix its kernels read themselves, so that PEFT refuses to put a change beside it."""


@dataclass(frozen=True)
class Adapted:
    """A view of a model's weights, which are held, with a change of zero beside some of them, which is trained.

    `changes`: PEFT's layer that holds the change, by the weight's name.
    """

    model: nn.Module
    changes: dict[str, Any]

    def add_to(self, model: nn.Module) -> None:
        """Adds the change to the weights of a model that is like the one that was viewed."""
        with torch.no_grad():
            for name, change in self.changes.items():
                model.get_parameter(name).add_(change.get_delta_weight("default"))

    @property
    def base(self) -> str:
        """The folder or hub id that the model was loaded from; empty where it lies nowhere."""
        return str(getattr(getattr(self.model, "config", None), "_name_or_path", ""))

    def save(self, folder: Path) -> None:
        """Writes the change as an adapter of PEFT, whole or not at all."""
        peft: Any = importlib.import_module("peft")
        model: Any = self.model
        config = copy.copy(model.peft_config["default"])
        config.base_model_name_or_path, config.inference_mode = self.base, True
        config.task_type = "CAUSAL_LM" if model.can_generate() else None
        layers = {name.removesuffix(".weight") for name in self.changes if name.endswith(".weight")}
        last = {name.rsplit(".", 1)[-1] for name in layers}
        if layers == {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in last}:
            config.target_modules = sorted(last)  # as people write it, and other libraries read it
        change = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with writing_folder(folder) as temporary:
            config.save_pretrained(temporary)
            tensors = {f"base_model.model.{name}": value.cpu().contiguous() for name, value in change.items()}
            save_file(tensors, temporary / "adapter_model.safetensors", {"format": "pt"})


@dataclass(frozen=True)
class LowRank:
    """What is put beside each linear layer: (alpha / r) B A, by PEFT; A [r, inputs] is random, B [outputs, r] zero.

    `dropout`: the share of a layer's inputs that the change does not see. `target`: names of linear layers, or how they
    end; all-linear is each but the head, the head where there is no other, and the experts of a mixture. `name`: who
    asks, for errors.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target: Sequence[str] = ("all-linear",)
    name: str = "LoRA"

    def beside(self, model: nn.Module, task: Task, examples: Examples, place: torch.device | None = None) -> Adapted:
        """The model with the change beside its weights, which are held and stay in the same memory.

        `examples`: some that the model is made for, to find its head by. `place`: another device, to which all of it
        goes. A is drawn from torch's own generator. The change is float32 where weights have less.
        Raises NotSupported where no layer may be changed, BadInput where the target names none, MissingDependency
        without PEFT.
        """
        layers = self._layers(model, task, examples)
        student = view(model, model.parameters()).to(place).requires_grad_(False)
        return Adapted(student, self._inject(student, layers))

    def _layers(self, model: nn.Module, task: Task, examples: Examples) -> list[str]:
        """Gives the names of the layers, and of the experts' parameters, that are changed."""
        experts = {name: weight for name, weight in stacked_experts(model).items() if weight.requires_grad}
        layers: dict[str, object] = {**_linear(model), **experts}
        try:
            head = task.head(model, next(in_order(model, task, examples, 1)))
        except NotSupported:
            head = None
        kind = str(getattr(getattr(model, "config", None), "model_type", ""))
        unread = UNREAD if kind in STATE_SPACE else ""
        body = [name for name, layer in layers.items() if layer is not head and name.rsplit(".", 1)[-1] != unread]
        if tuple(self.target) == ("all-linear",):
            if not layers:
                raise NotSupported(
                    f"{self.name}: expected linear layers that may be trained, got none. Train all weights."
                )
            return body or list(layers)
        chosen = {ending: [name for name in body if f".{name}".endswith(f".{ending}")] for ending in self.target}
        for ending, names in chosen.items():
            if not names:
                endings = {name.rsplit(".", 1)[-1] for name in body}
                raise BadInput(
                    f"{self.name}: expected target to be linear layers that may be trained, the head not among them, "
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
                f"{self.name}: expected dropout to be 0 where experts are changed, got {self.dropout:g}. Leave it out, "
                "or name a target without experts."
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
                raise NotSupported(
                    f"{self.name}: expected layers that PEFT can change, got: {one_line(error)}. "
                    "Name others in target, or train all weights."
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


def has_adapters(model: nn.Module) -> bool:
    """Whether a model, or one inside it, holds adapters of PEFT."""
    return any(hasattr(module, "peft_config") for module in model.modules())


def view(model: nn.Module, shared: Iterable[nn.Parameter]) -> nn.Module:
    """A copy of a model, but for the `shared` parameters: the copy's lie in the same memory."""
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
