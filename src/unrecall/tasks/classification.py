"""Classification: any module that maps a batch of inputs to one row of logits each."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from unrecall.data.batches import Batch
from unrecall.data.covariates import Covariates
from unrecall.data.digests import not_finite
from unrecall.data.examples import Examples, iterate
from unrecall.data.identity import digests_of_rows
from unrecall.data.request import Request, Split
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, Fields, NotSupported, check_fields, kind_of, out_of_memory
from unrecall.nn.hooks import frozen, in_training, mode, uncompiled
from unrecall.nn.usable import check_finite
from unrecall.record.schema import Exhibit
from unrecall.spec.parameters import takes
from unrecall.tasks.base import (
    Task,
    check_class_holdout,
    check_class_request,
    check_samples_request,
    down_to_layers,
    parts_of,
)
from unrecall.tasks.hook_key import hook_key
from unrecall.tasks.input_difficulty import Labelled, difficulty_of_inputs, shrunk
from unrecall.tasks.labelled import Example, check_class_numbers, check_logits, check_no_probabilities, example
from unrecall.tasks.pictures import coarse, png

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


NARROW = 0.01
"""The share of the width of the bounds that inputs span at least; 8/255, a usual radius, is three times that."""
REFUSES = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model raises that doesn't take its inputs."""
PIXELS = (0.0, 255.0)
BRIGHT = 128.0
"""What is brighter than that, and no more than 255, is a pixel in whole numbers."""


def _are_bounds(value: object) -> bool:
    """Whether something is a finite range of numbers."""
    if not isinstance(value, tuple | list) or not all(map(kind_of(int, float), value)) or len(value) != 2:
        return False
    return bool(-math.inf < value[0] < value[1] < math.inf)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple | list) and all(map(kind_of(str), value))


FIELDS: Fields = {
    "head_name": (kind_of(str, NoneType), "a layer's name or None"),
    "bounds": (_are_bounds, "two finite numbers, the lower one first, as (0.0, 1.0)"),
    "classes": (_are_names, "a tuple of names, empty where there are none"),
    "read": (lambda value: value is None or takes(value, 1), "a function of an item, or None"),
    "forward": (lambda value: value is None or takes(value, 2), "a function of a model and inputs, or None"),
    "continuous": (kind_of(bool, NoneType), "True, False or None"),
}
"""What each setting of the task must be."""


@dataclass(frozen=True, repr=False)
class Classification(Task):
    """Examples are `(input, label)`; inputs lie within `bounds`, so normalisation belongs inside the model.

    `head_name`: dotted name of the linear layer that gives the logits; found by itself where left None.
    `bounds`: the range that inputs live in and that perturbations are clamped to; pixels in [0, 1] by default. Radii
    are shares of its width. `classes`: names of the classes, for people. `continuous`: whether the logits have a
    gradient by the inputs; without one, as of word numbers, nothing perturbs them. None: a scenario, a method and an
    audit look at the model.

    Data and models of another form come with two hooks: `read(item)` gives `(input, label)` of what the data set holds,
    and `forward(model, inputs)` gives the logits `[examples, classes]` of inputs `[examples, ...]`:

        Classification(
            read=lambda item: (item["image"], item["label"]), forward=lambda model, inputs: model(inputs).logits
        )

    Outputs must be logits. Probabilities, times a number or plus one, are refused where their rows show it; sigmoids of
    single outputs, and probabilities of a single example times a number, look like small logits and are not.
    """

    ragged: ClassVar[bool] = False
    """Whether inputs may differ in length; `collate` then pads them."""

    head_name: str | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    classes: tuple[str, ...] = ()
    read: Callable[[Any], tuple[Any, Any]] | None = None
    forward: Callable[[nn.Module, Tensor], Tensor] | None = None
    continuous: bool | None = None
    hook_keys: Mapping[str, tuple[Callable[..., Any], str]] = field(default_factory=dict, compare=False)
    """Each hook with what it is called in `repr`."""

    def __post_init__(self) -> None:
        """Names and bounds of a wrong kind are refused; lists become tuples."""
        check_fields("Classification", FIELDS, vars(self))
        for name in ("bounds", "classes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        keys = {}  # made now and handed on by `replace`, for what a hook holds may change as it runs
        for name in ("read", "forward"):
            if (hook := getattr(self, name)) is not None:
                pair = self.hook_keys.get(name)
                keys[name] = pair if pair is not None and pair[0] is hook else (hook, hook_key(hook))
        object.__setattr__(self, "hook_keys", keys)

    def __repr__(self) -> str:
        """All settings; a hook by what decides its code, so that whatever is kept under this text belongs to it."""
        shown = [f"{name}={getattr(self, name)!r}" for name in ("head_name", "bounds", "classes")]
        shown += [f"{name}={key}" for name, (_, key) in self.hook_keys.items()]
        shown += ["continuous=False"] * (self.continuous is False)
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def of(cls, request: Request) -> "Classification":
        """The task of a request as its inputs lie: in [0, 1], in [0, 255], or in a range of their own."""
        task = cls()
        return replace(task, bounds=task.bounds_of(request.sets))

    def bounds_of(self, sets: Mapping[str, Examples]) -> tuple[float, float]:
        """The bounds of inputs: [0, 1] or [0, 255] where they lie in one of them, else the range in which they lie."""
        ranges = [self.range_of(item, f"{name}[{i}]") for name in sets for i, item in enumerate(iterate(sets[name]))]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if low >= 0 and (high <= 1 or BRIGHT < high <= PIXELS[1]):
            return (0.0, 1.0) if high <= 1 else PIXELS
        return low, high if high > low else low + 1

    def range_of(self, item: Any, where: str) -> tuple[float, float]:
        """The smallest and the largest value of an item's input; BadInput for none, and for NaN."""
        value = self._read(item, where).input
        if not value.numel():
            raise BadInput(f"{where}: expected an input with values, got an empty tensor. Remove the example.")
        low, high = (float(bound) for bound in torch.aminmax(value))
        if not math.isfinite(low + high):
            raise not_finite(where)
        return low, high

    def collate(self, items: Sequence[Any]) -> Batch:
        """`inputs` [examples, ...] float32 and `targets` [examples] int64."""
        examples = [self._example(item) for item in items]
        inputs = torch.stack([value if isinstance(value, Tensor) else torch.as_tensor(value) for value, _ in examples])
        return {"inputs": inputs.float(), "targets": torch.tensor([int(label) for _, label in examples])}

    def contents(self, items: Sequence[Any]) -> list[str]:
        """sha256 of each input as float32, and its class; inputs must be of one shape where they aren't ragged."""
        if self.ragged:
            return super().contents(items)
        batch = self.collate(items)
        return digests_of_rows((batch["inputs"] + 0, batch["targets"]), range(len(items)))  # -0.0 is 0.0

    def _example(self, item: Any) -> tuple[Any, Any]:
        """Input and label of an item; what `items` gave is read already."""
        if self.read is not None and not isinstance(item, Example):
            item = self.read(item)
        return item[0], item[1]

    def _read(self, item: Any, where: str) -> Example:
        """The same, checked: BadInput names the item and what to do."""
        if self.read is None or isinstance(item, Example):
            return example(item, where)
        try:
            return example(self.read(item), where)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"{where}: expected read to give (input, label), got {type(error).__name__}: {error}. Correct "
                "Classification(read=...)."
            ) from error

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(inputs) if self.forward is None else self.forward(model, inputs)
        return logits

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One row an example."""
        logits = self._logits(model, batch["inputs"])
        n = len(logits)
        return Rows(logits, batch["targets"], torch.arange(n, device=logits.device), n, single=True)

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are what enters the head, flattened; the head is recognised in the same pass."""
        model = uncompiled(model)
        with self._watching(model) as linears:
            rows = self.rows(model, batch)
        _, features = self._ending(linears, rows.logits)
        return View(rows, features.flatten(1))

    def label(self, item: Any) -> int:
        """The class of an example."""
        return int(self._example(item)[1])

    def classified(self) -> Task:
        """The task itself: a row is an example already."""
        return self

    def inputs(self, batch: Batch) -> Tensor:
        """The inputs `[examples, ...]`, within `bounds`."""
        return batch["inputs"]

    def with_inputs(self, batch: Batch, inputs: Tensor) -> Batch:
        """The same labels with other inputs."""
        return {**batch, "inputs": inputs}

    def with_labels(self, batch: Batch, labels: Tensor) -> Batch:
        """The same inputs with other labels."""
        return {**batch, "targets": labels}

    def items(self, batch: Batch) -> list[Example]:
        """`(input, label)` pairs."""
        return [Example(*pair) for pair in zip(batch["inputs"], batch["targets"].tolist(), strict=True)]

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
            output = self._logits(model, batch["inputs"][:1])
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
        for name, module in down_to_layers(parts):
            if blocks and isinstance(module, _NORMS):
                blocks[-1][1].append(module)
            else:
                blocks.append((name, [module]))
        return blocks

    def settled(self, model: nn.Module | None, request: Request) -> Task:
        """The task with `continuous` decided: whether a gradient of the logits reaches an input of forget.

        Left open where the model takes no such input, which `check` says.
        """
        weight = None if model is None else next(model.parameters(), None)
        if self.continuous is not None or model is None or weight is None:
            return self
        try:
            device = weight.device
            inputs = self.collate([request.forget[0]])["inputs"].to(device).requires_grad_(True)
            with mode(model, training=False), frozen(model), torch.enable_grad():
                logits = self._logits(model, inputs)
                if logits.requires_grad:
                    logits.sum().backward()  # type: ignore[no-untyped-call]
        except (BadInput, OSError, *REFUSES):
            return self
        return replace(self, continuous=inputs.grad is not None)

    def check(self, model: nn.Module, request: Request) -> None:
        """Outputs must be logits `[n, classes]`; labels must lie inside them; nothing may be NaN."""
        check_finite(model)
        device = next(model.parameters()).device
        first = [self._read(request.forget[i], f"forget[{i}]") for i in range(min(8, len(request.forget)))]
        probe = self.collate([item for item in first if self.ragged or item.input.shape == first[0].input.shape])
        inputs = probe["inputs"].to(device)
        output, trained = self._outputs(model, inputs)
        check_logits(output, len(inputs))
        if bool(inputs.isfinite().all() and output.isnan().any()):
            raise BadInput(
                "model: expected finite outputs, got NaN though weights and inputs are finite. Look for a division by "
                "0, or a root or logarithm of numbers below it, in its forward."
            )
        check_no_probabilities(output.float())
        check_logits(trained, len(inputs), " in train mode too")
        classes, shape = output.shape[1], probe["inputs"].shape[1:]
        for unknown in set(request.masked) - set(range(classes)):
            raise BadInput(
                f"Request: expected masked classes in 0..{classes - 1} (the model's outputs), got {unknown}."
            )
        looked_for = f"{self!r} {classes} {tuple(shape)}"
        if looked_for not in request.checked:
            self._check_in_float32(model, inputs)
            if self.read is None:
                check_class_numbers(request.sets)
            labels = {name: self._check_examples(name, request, classes, shape) for name in request.sets}
            if request.kind == "class":
                check_class_request(request, labels["forget"], labels["retain"])
                rare = not labels["holdout"] & labels["forget"]  # perhaps too rare to be among those that were checked
                check_class_holdout(request, self._classes("holdout", request) if rare else labels["holdout"])
            if request.kind == "samples" and len(request.retain):
                rare = not labels["forget"] & labels["retain"]  # perhaps too rare to be among those that were checked
                check_samples_request(labels["forget"], self._classes("retain", request) if rare else labels["retain"])
            request.checked.add(looked_for)

    def _classes(self, split: Split, request: Request) -> set[int]:
        """The classes of all examples of a set."""
        return {self._read(item, f"{split}[{i}]").label for i, item in enumerate(iterate(request[split]))}

    def _outputs(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What a model gives in eval and in train mode, where there is more than one input; BadInput where nothing."""
        accepting = _accepting(f"inputs {tuple(inputs.shape)}", _channels_last(model, inputs))
        with mode(model, training=False), torch.no_grad(), accepting:
            output = self._logits(model, inputs)
            if len(inputs) == 1:  # BatchNorm takes no single one
                return output, output
            return output, cast(Tensor, in_training(model, lambda: self._logits(model, inputs)))

    def _check_in_float32(self, model: nn.Module, inputs: Tensor) -> None:
        """BadInput where a copy of a 16-bit model in float32, which is what is trained, takes no inputs."""
        if any(p.dtype.itemsize < 4 for p in model.parameters()):
            with torch.no_grad(), _accepting("inputs in float32 too, in which its weights are trained"):
                self._logits(copy.deepcopy(model).float().eval(), inputs)

    def _check_examples(self, split: str, request: Request, classes: int, shape: torch.Size) -> set[int]:
        """BadInput for the first example of a set that isn't as it must be; gives the classes of all."""
        low, high = self.bounds
        least, most, labels = math.inf, -math.inf, set[int]()
        for i, item in request.to_check(split):
            tensor, label = self._read(item, f"{split}[{i}]")
            if tensor.shape != shape and not self.ragged:
                raise BadInput(
                    f"{split}[{i}]: expected inputs of shape {tuple(shape)}, got {tuple(tensor.shape)}. "
                    "Bring them to one shape."
                )
            if tensor.numel():
                smallest, largest = (float(value) for value in torch.aminmax(tensor))
                if not math.isfinite(smallest + largest):
                    raise not_finite(f"{split}[{i}]")
                least, most = min(least, smallest), max(most, largest)
            if least < low - 1e-6 or most > high + 1e-6:
                own = self.bounds_of(request.sets)
                raise BadInput(
                    f"{split}[{i}]: expected inputs within [{low:g}, {high:g}], got [{least:.3g}, {most:.3g}]. "
                    f"Normalise inside the model, or say in which range they lie: Classification(bounds={own})."
                )
            if not 0 <= label < classes:
                raise BadInput(
                    f"{split}[{i}]: expected a label in 0..{classes - 1} (the model's outputs), got {label}. "
                    "Number the classes from 0, in the order of the outputs."
                )
            labels.add(label)
        if split == "retain" and 0 < most - least < NARROW * (high - low):
            raise BadInput(
                f"retain: expected inputs that span 1 % of the bounds [{low:g}, {high:g}] or more, got [{least:.3g}, "
                f"{most:.3g}], in which a radius of 8/255 of the bounds means nothing. Classification(bounds=...)."
            )
        return labels

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """A picture where the input has two or three dimensions, a list of numbers otherwise."""
        value, label = self._read(item, "exhibit")
        name = self.classes[label] if label < len(self.classes) else f"class {label}"
        if value.ndim == 3 and value.shape[0] in (1, 3):
            return Exhibit(kind="picture", content=png(value, self.bounds), caption=f"{name}: {caption}")
        numbers = " ".join(f"{float(v):.3g}" for v in value.flatten()[:32])
        return Exhibit(kind="text", content=numbers, caption=f"{name}: {caption}")

    def raw(self, item: Any) -> bytes:
        """The input in 256 steps between its bounds, a byte a value."""
        return coarse(self._read(item, "example").input, self.bounds).numpy().tobytes()


def _channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether inputs have the channels last that the model's first convolution expects before height and width."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return inputs.ndim == 4 and inputs.shape[-1] == channels != inputs.shape[1]


@contextmanager
def _accepting(what: str, channels_last: bool = False) -> Iterator[None]:
    """BadInput, with what to do, where a model takes no inputs in this block; `what`: these, in words."""
    try:
        yield
    except REFUSES as error:
        if out_of_memory(error):
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        hook = "forward=lambda model, inputs: model(inputs.to(next(model.parameters()).dtype))"
        advice = "Bring float32 inputs into its shape and precision: "
        if channels_last:
            hook = "read=lambda item: (torch.as_tensor(item[0]).permute(2, 0, 1), item[1])"
            advice = "Put channels before height and width: "
        elif "indices" in line or "Long" in line:
            hook = "forward=lambda model, inputs: model(inputs.long())"
            advice = "Inputs that are numbers of words become whole numbers again by "
        raise BadInput(
            f"model: expected to accept {what}, got: {line[:300]}. {advice}Classification({hook})."
        ) from error
