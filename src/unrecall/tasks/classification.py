"""Classification: any module that maps a batch of inputs to one row of logits each."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.data.covariates import Covariates
from unrecall.data.examples import Batch, Examples, iterate
from unrecall.data.request import SPLITS, Request
from unrecall.data.signals import Rows, View
from unrecall.errors import NOTHING, BadInput, Fields, NotSupported, check_fields, kind_of, out_of_memory
from unrecall.nn.hooks import mode, trained_output, uncompiled
from unrecall.record.schema import Exhibit
from unrecall.tasks.base import Task, check_class_request, check_finite, opened, parts_of
from unrecall.tasks.input_difficulty import Labelled, difficulty_of_inputs, shrunk
from unrecall.tasks.pictures import coarse, png

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


LARGEST = 2**31
"""No label is larger."""


def _are_bounds(value: object) -> bool:
    """Whether something is a finite range of numbers."""
    if not isinstance(value, tuple | list) or not all(map(kind_of(int, float), value)) or len(value) != 2:
        return False
    return bool(-math.inf < value[0] < value[1] < math.inf)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple | list) and all(map(kind_of(str), value))


FIELDS: Fields = {
    "head_name": (kind_of(str, NOTHING), "a layer's name or None"),
    "bounds": (_are_bounds, "two finite numbers, the lower one first, as (0.0, 1.0)"),
    "classes": (_are_names, "a tuple of names, empty where there are none"),
}
"""What each setting of the task must be."""


@dataclass(frozen=True)
class Classification(Task):
    """Examples are `(input, label)`; inputs lie within `bounds`, so normalisation belongs inside the model.

    `head_name`: dotted name of the linear layer that gives the logits; found by itself where left None.
    `bounds`: the range that inputs live in and that perturbations are clamped to; pixels in [0, 1] by default.
    `classes`: names of the classes, for people.

    Outputs must be logits. Probabilities, times a number or plus one, are refused where their rows show it; sigmoids of
    single outputs, and probabilities of a single example times a number, look like small logits and are not.
    """

    head_name: str | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Names and bounds of a wrong kind are refused; lists become tuples."""
        check_fields("Classification", FIELDS, vars(self))
        for name in ("bounds", "classes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def collate(self, items: Sequence[Any]) -> Batch:
        """`inputs` [examples, ...] float32 and `targets` [examples] int64."""
        inputs = torch.stack([torch.as_tensor(item[0], dtype=torch.float32) for item in items])
        return {"inputs": inputs, "targets": torch.tensor([int(item[1]) for item in items])}

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One row an example."""
        logits: Tensor = model(batch["inputs"])
        n = len(logits)
        return Rows(logits, batch["targets"], torch.arange(n, device=logits.device), n)

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are what enters the head, flattened; the head is recognised in the same pass."""
        model = uncompiled(model)
        with self._watching(model) as linears:
            rows = self.rows(model, batch)
        _, features = self._ending(linears, rows.logits)
        return View(rows, features.flatten(1))

    def label(self, item: Any) -> int:
        """The class of an example, which is its second part."""
        return int(item[1])

    def classified(self) -> Task:
        """The task itself: a row is an example already."""
        return self

    def inputs(self, batch: Batch) -> Tensor:
        """The inputs `[examples, ...]`, within `bounds`."""
        return batch["inputs"]

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same labels with other inputs."""
        return {**batch, "inputs": inputs}

    def items(self, batch: Batch) -> list[tuple[Tensor, int]]:
        """`(input, label)` pairs."""
        return list(zip(batch["inputs"], batch["targets"].tolist(), strict=True))

    def difficulty(self, retain: Examples, pool: Examples, seed: int) -> Covariates:
        """By class, distance to retain, and the confidence of a logistic regression on retain."""
        return difficulty_of_inputs(self._labelled(retain), self._labelled(pool), seed)

    def _labelled(self, examples: Examples) -> Labelled:
        """Inputs, made small enough to be held at once, and classes."""
        starts = range(0, len(examples), 256)
        batches = [self.collate([examples[i] for i in range(a, min(a + 256, len(examples)))]) for a in starts]
        inputs = torch.cat([shrunk(batch["inputs"]) for batch in batches])
        return Labelled(inputs, torch.cat([batch["targets"] for batch in batches]))

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """The linear layer whose output *is* the model's output; `head_name` where the user named one."""
        model = uncompiled(model)
        with mode(model, training=False), torch.no_grad(), self._watching(model) as linears:
            output = model(batch["inputs"][:1])
        return self._ending(linears, output)[0]

    @contextmanager
    def _watching(self, model: nn.Module) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
        """Collects (layer, input, output) of the linear layers that may be the head."""
        linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        if self.head_name is not None and self.head_name not in linears:
            names = ", ".join(linears) or "none"
            raise NotSupported(
                f"Classification: expected head_name to be a linear layer, got '{self.head_name}'. Known: {names}."
            )
        passed: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Linear):
                passed.append((module, inputs[0], output))

        with ExitStack() as stack:
            for name, m in linears.items():
                if self.head_name in (None, name):
                    stack.enter_context(m.register_forward_hook(note))
            yield passed

    def _ending(self, linears: list[tuple[nn.Linear, Tensor, Tensor]], logits: Tensor) -> tuple[nn.Linear, Tensor]:
        for module, entered, left in linears:
            if self.head_name is not None or left is logits:
                return module, entered
        raise NotSupported(
            "Classification: expected the model to end in a linear layer, got none whose output is the model's. "
            "Name it: Classification(head_name='...')."
        )

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """Sequences are opened, anything else that holds weights is a block; a norm joins the block before it.

        A model that is wrapped whole (behind its normalisation, say) is opened as if it were not.
        """
        parts, deeper = [("", model)], parts_of("", model)
        while len(parts) == 1 and parts != deeper:
            parts, deeper = deeper, parts_of(*deeper[0])
        blocks: list[tuple[str, list[nn.Module]]] = []
        for name, module in opened(parts):
            if blocks and isinstance(module, _NORMS):
                blocks[-1][1].append(module)
            else:
                blocks.append((name, [module]))
        return blocks

    def check(self, model: nn.Module, request: Request) -> None:
        """Outputs must be logits `[n, classes]`; labels must lie inside them; nothing may be NaN."""
        check_finite(model)
        device = next(model.parameters()).device
        first = [_pair(request.forget[i], f"forget[{i}]") for i in range(min(8, len(request.forget)))]
        probe = self.collate([item for item in first if item[0].shape == first[0][0].shape])
        inputs = probe["inputs"].to(device)
        with mode(model, training=False), torch.no_grad():
            try:
                output = model(inputs)
                trained = trained_output(model, inputs) if len(inputs) > 1 else output  # BatchNorm takes no single one
            except (AssertionError, RuntimeError, ValueError, IndexError, TypeError) as error:
                if out_of_memory(error):
                    raise
                line = (str(error).splitlines() or [type(error).__name__])[0]
                raise BadInput(
                    f"model: expected to accept inputs {tuple(inputs.shape)}, got: {line}. "
                    "Wrap the model in a module that brings float32 inputs into its shape and precision."
                ) from error
        _check_logits(output, len(inputs), "")
        if bool(inputs.isfinite().all() and output.isnan().any()):
            raise BadInput(
                "model: expected finite outputs, got NaN though weights and inputs are finite. Look for a division by "
                "0, or a root or logarithm of numbers below it, in its forward."
            )
        if total := _sum_of_probabilities(output.float()):
            raise BadInput(
                f"model: expected logits, got probabilities (rows sum to {total:.3g}). Return what enters the softmax: "
                "wrap the model, or leave its last layer out."
            )
        _check_logits(trained, len(inputs), " in train mode too")
        classes, shape = output.shape[1], probe["inputs"].shape[1:]
        for unknown in set(request.masked) - set(range(classes)):
            raise BadInput(
                f"Request: expected masked classes in 0..{classes - 1} (the model's outputs), got {unknown}."
            )
        looked_for = f"{self!r} {classes} {tuple(shape)}"
        if looked_for not in request.checked:
            for split, examples in request.sets.items():
                self._check_examples(split, examples, classes, shape)
            if request.kind == "class":
                check_class_request(request, *({int(label) for _, label in iterate(request[s])} for s in SPLITS[:2]))
            request.checked.add(looked_for)

    def _check_examples(self, split: str, examples: Examples, classes: int, shape: torch.Size) -> None:
        low, high = self.bounds
        for i, item in enumerate(iterate(examples)):
            tensor, label = _pair(item, f"{split}[{i}]")
            if tensor.shape != shape:
                raise BadInput(
                    f"{split}[{i}]: expected inputs of shape {tuple(shape)}, got {tuple(tensor.shape)}. "
                    "Bring them to one shape."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise BadInput(f"{split}[{i}]: expected finite inputs, got NaN or infinity. Remove the example.")
            if tensor.numel() and (float(tensor.min()) < low - 1e-6 or float(tensor.max()) > high + 1e-6):
                raise BadInput(
                    f"{split}[{i}]: expected inputs within [{low:g}, {high:g}], got [{float(tensor.min()):.3g}, "
                    f"{float(tensor.max()):.3g}]. Normalise inside the model, or set Classification(bounds=...)."
                )
            if not 0 <= label < classes:
                raise BadInput(
                    f"{split}[{i}]: expected a label in 0..{classes - 1} (the model's outputs), got {label}. "
                    "Number the classes from 0, in the order of the outputs."
                )

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """A picture where the input has two or three dimensions, a list of numbers otherwise."""
        value = torch.as_tensor(item[0], dtype=torch.float32)
        label = int(item[1])
        name = self.classes[label] if label < len(self.classes) else f"class {label}"
        if value.ndim == 3 and value.shape[0] in (1, 3):
            return Exhibit(kind="picture", content=png(value, self.bounds), caption=f"{name}: {caption}")
        numbers = " ".join(f"{float(v):.3g}" for v in value.flatten()[:32])
        return Exhibit(kind="text", content=numbers, caption=f"{name}: {caption}")

    def raw(self, item: Any) -> bytes:
        """The input in 256 steps between its bounds, a byte a value."""
        return coarse(torch.as_tensor(item[0], dtype=torch.float32), self.bounds).numpy().tobytes()


def _check_logits(output: object, count: int, when: str) -> None:
    """BadInput unless a model's output is one row of real numbers for each of `count` inputs."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != count:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BadInput(
            f"model: expected logits [examples, classes]{when}, got {shape}. Wrap the model in a module whose forward "
            "returns the logits alone."
        )
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise BadInput(
            f"model: expected logits in floats{when}, got {kind}. Wrap the model in one that returns floats."
        )


def _sum_of_probabilities(outputs: Tensor) -> float:
    """What rows of probabilities sum to, which may be times a number or plus one; 0 where outputs are none."""
    sums = outputs.sum(1)
    if not bool((outputs >= 0).all()):
        return 0.0
    if bool((sums - 1).abs().max() < 5e-3):  # half precision sums so
        return 1.0
    differ = bool((outputs - outputs[0]).abs().max() > 1e-3 * sums[0])
    same = bool((sums - sums[0]).abs().max() < 1e-3 * sums[0])
    return float(sums[0]) if len(outputs) >= 4 and differ and same else 0.0


def _pair(item: Any, where: str) -> tuple[Tensor, int]:
    """An example as input and label; BadInput says which one is neither."""
    try:
        value, label = item
        if isinstance(label, str | bytes):
            raise TypeError(label)
        tensor = torch.as_tensor(value, dtype=torch.float32)
        if abs(float(label)) > LARGEST:
            raise BadInput(
                f"{where}: expected a label that numbers a class, got {label!r:.20}. Number the classes from 0, in the "
                "order of the outputs."
            )
        if int(label) == float(label):
            return tensor, int(label)
    except (OverflowError, TypeError, ValueError, RuntimeError):
        pass
    raise BadInput(
        f"{where}: expected (input, label) with a tensor and a whole number, got {_brief(item)}. Wrap the data set in "
        "one whose [i] gives such pairs."
    )


def _brief(item: Any) -> str:
    if isinstance(item, tuple | list):
        return "(" + ", ".join(type(part).__name__ for part in item) + ")"
    return type(item).__name__
