"""The classification adapter: what it finds in a model, and what it refuses before any compute."""

import base64
import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.worlds import World, blobs, network
from unrecall.data.examples import Absent, iterate
from unrecall.data.request import SPLITS, Request
from unrecall.errors import BadInput, NotSupported
from unrecall.models.observe import observe
from unrecall.scenarios.networks import resnet18, resnet20, small_cnn
from unrecall.tasks import Classification, Perturbable
from unrecall.training.randomness import seeded

TASK = Classification()


class TwoLinears(nn.Module):
    """A side branch of the head's own shape, run after the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.side = nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs.flatten(1)).relu()
        logits: Tensor = self.head(hidden)
        self.side(hidden)
        return logits


class Scaled(nn.Module):
    """Ends in a layer that is no linear one, so that the head must be named."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * self.head(inputs.flatten(1))


def batch(n: int = 6) -> dict[str, Tensor]:
    return TASK.collate(blobs(n, 4, 1))


def test_collate_makes_tensors_of_whatever_a_data_set_gives() -> None:
    made = TASK.collate([(np.ones((1, 2), np.float64), np.int64(3)), (torch.zeros(1, 2), torch.tensor(1))])
    assert made["inputs"].dtype == torch.float32
    assert made["inputs"].shape == (2, 1, 2)
    assert made["targets"].tolist() == [3, 1]
    assert [label for _, label in TASK.items(made)] == [3, 1]


def test_rows_are_one_an_example() -> None:
    rows = TASK.rows(network().eval(), batch())
    assert rows.logits.shape == (6, 4)
    assert rows.example.tolist() == list(range(6))
    torch.testing.assert_close(rows.losses(), nn.functional.cross_entropy(rows.logits, rows.targets, reduction="none"))


def test_head_is_found_where_its_output_is_the_models() -> None:
    model = TwoLinears()
    assert TASK.head(model, batch()) is model.head
    assert TASK.head(net := network(), batch()) is net[6]
    for build in (small_cnn, resnet20, resnet18):
        built = build(10)
        pictures = {"inputs": torch.rand(2, 1 if build is small_cnn else 3, 8, 8), "targets": torch.tensor([0, 1])}
        assert TASK.head(built, pictures) in built.modules()


def test_head_that_is_not_the_end_is_an_error_until_it_is_named() -> None:
    model = Scaled()
    with pytest.raises(NotSupported, match="expected the model to end in a linear layer"):
        TASK.head(model, batch())
    with pytest.raises(NotSupported, match="head_name"):
        TASK.view(model, batch())
    assert Classification(head_name="head").head(model, batch()) is model.head
    with pytest.raises(NotSupported, match=r"got 'haed'\. Known: head"):
        Classification(head_name="haed").head(model, batch())


def test_features_are_what_enters_the_head_and_cost_no_second_pass() -> None:
    model, passes = network().eval(), 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_hook(count)
    view = TASK.view(model, batch())
    assert passes == 1
    torch.testing.assert_close(model[6](view.features), view.rows.logits)
    assert not any(module._forward_hooks for module in model[:7]), "no hook is left behind"


def test_asking_changes_no_mode_and_no_statistic() -> None:
    model = network().train()
    model[4].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    TASK.head(model, batch())
    observe(model, TASK, blobs(20, 4, 1))
    assert [m.training for m in model] == [True, True, True, True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("model", [network(), small_cnn(), resnet20(), TwoLinears(), nn.Linear(3, 2)])
def test_blocks_hold_every_parameter_once_from_input_to_output(model: nn.Module) -> None:
    blocks = TASK.blocks(model)
    held = [p for _, modules in blocks for module in modules for p in module.parameters()]
    assert [id(p) for p in held] == [id(p) for p in model.parameters()] or len(held) == len(list(model.parameters()))
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len({name for name, _ in blocks}) == len(blocks)


def test_a_norm_belongs_to_the_block_before_it() -> None:
    names = [(name, len(modules)) for name, modules in TASK.blocks(small_cnn())]
    assert names == [("1", 2), ("4", 2), ("7", 2), ("12", 1)]


def test_it_can_be_perturbed() -> None:
    assert isinstance(TASK, Perturbable)
    one = batch()
    assert torch.equal(TASK.inputs(TASK.with_inputs(one, one["inputs"] / 2)), one["inputs"] / 2)


def with_first(request: Request, split: str, change: Callable[[Tensor, int], Any]) -> Request:
    examples = [request[split][i] for i in range(len(request[split]))]  # type: ignore[index]
    return replace(request, **{split: [change(*examples[0]), *examples[1:]]})


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * torch.nan, y), r"\[0\]: expected finite inputs, got NaN"),
        (lambda x, y: (x / 0, y), r"\[0\]: expected finite inputs, got NaN or infinity"),
        (lambda x, y: (x, 4), r"\[0\]: expected a label in 0\.\.3 \(the model's outputs\), got 4"),
        (lambda x, y: (x, -100), r"\[0\]: expected a label in 0\.\.3 .*got -100"),
        (lambda x, y: (x, 1.5), r"\[0\]: expected \(input, label\) .* got \(Tensor, float\)"),
        (lambda x, y: (x, torch.zeros(4)), r"\[0\]: expected \(input, label\) .* got \(Tensor, Tensor\)"),
        (lambda x, y: x, r"\[0\]: expected \(input, label\) with a tensor and a whole number, got Tensor"),
        (lambda x, y: ("a text", y), r"\[0\]: expected \(input, label\) .* got \(str, int\)"),
        (lambda x, y: (x * 255, y), r"\[0\]: expected inputs within \[0, 1\], got .*Normalise inside the model"),
        (lambda x, y: (x - 0.5, y), r"\[0\]: expected inputs within \[0, 1\]"),
    ],
    ids=[
        "nan",
        "infinite",
        "label too large",
        "ignored label",
        "fraction",
        "one-hot",
        "no pair",
        "text",
        "255",
        "minus",
    ],
)
def test_check_names_the_example_that_is_off(
    samples_world: World, split: str, change: Callable[[Tensor, int], Any], message: str
) -> None:
    broken = with_first(samples_world.request, split, change)
    with pytest.raises(BadInput, match=f"^{split}{message}"):
        TASK.check(samples_world.original, broken)


def test_check_refuses_inputs_of_another_shape(samples_world: World) -> None:
    broken = with_first(samples_world.request, "test", lambda x, y: (torch.zeros(1, 5, 5), y))
    with pytest.raises(BadInput, match=r"test\[0\]: expected inputs of shape \(1, 4, 4\), got \(1, 5, 5\)"):
        TASK.check(samples_world.original, broken)


def test_pictures_with_channels_last_are_told_to_be_turned() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4))
    turned = [(x.permute(1, 2, 0).numpy(), y) for x, y in blobs(16, 4, 1)]
    request = Request(turned[:8], turned[8:])
    advice = r"lambda item: \(torch.as_tensor\(item\[0\]\)\.permute\(2, 0, 1\), item\[1\]\)"
    with pytest.raises(BadInput, match=rf"inputs \(8, 4, 4, 1\).* Put channels before .*read={advice}"):
        TASK.check(model, request)
    Classification(read=lambda item: (torch.as_tensor(item[0]).permute(2, 0, 1), item[1])).check(model, request)


def test_a_class_request_has_its_class_in_holdout(class_world: World) -> None:
    others = [item for item in iterate(class_world.request.test) if item[1] != 0]
    request = replace(class_world.request, holdout=others[:8], test=others[8:])
    with pytest.raises(BadInput, match=r"holdout to have examples of classes \[0\].* leave holdout out"):
        TASK.check(class_world.original, request)
    TASK.check(class_world.original, replace(request, holdout=Absent("none is unseen")))


def test_check_refuses_a_forgotten_class_that_the_model_has_no_output_for(class_world: World) -> None:
    TASK.check(class_world.original, class_world.request)
    as_samples = replace(class_world.request, kind="samples", masked=())
    with pytest.raises(BadInput, match=r"got none of \[0\]. .* say so: kind='class', masked=\(0,\)"):
        TASK.check(class_world.original, as_samples)
    TASK.check(class_world.original, as_samples.only("forget"))  # a method that doesn't read retain
    with pytest.raises(BadInput, match=r"masked classes in 0\.\.3 .*got 7"):
        TASK.check(class_world.original, replace(class_world.request, masked=(0, 7)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(network(), nn.Softmax(1)), "expected logits, got probabilities"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), r"expected to accept inputs \(8, 1, 4, 4\), got: "),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm2d(16)), r"expected to accept inputs .*, got: expected 4D input"),
        (nn.Sequential(nn.Conv2d(1, 4, 1)), r"expected logits \[examples, classes\], got \(8, 4, 4, 4\)"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(128, 4)), r"expected logits \[examples, classes\], got \(4,\)"),
    ],
    ids=["probabilities", "channels", "dimensions", "maps", "one row"],
)
def test_check_refuses_models_that_are_no_classifiers(samples_world: World, model: nn.Module, message: str) -> None:
    with pytest.raises(BadInput, match=f"^model: {message}"):
        TASK.check(model, samples_world.request)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["6.weight", "1.running_var"])
def test_check_refuses_weights_that_are_not_finite(samples_world: World, value: float, place: str) -> None:
    model = network()
    model.state_dict()[place].view(-1)[0] = value
    with pytest.raises(BadInput, match=f"expected finite weights, got NaN or infinity in '{place}'"):
        TASK.check(model, samples_world.request)


def test_check_passes_what_is_right_and_respects_bounds(samples_world: World) -> None:
    TASK.check(samples_world.original, samples_world.request)
    shifted = with_first(samples_world.request, "test", lambda x, y: (x - 0.5, y))
    Classification(bounds=(-1.0, 1.0)).check(samples_world.original, shifted)


def test_the_bounds_that_an_error_proposes_are_those_of_all_sets(samples_world: World) -> None:
    lower = with_first(samples_world.request, "forget", lambda x, y: (x - 0.5, y))
    shifted = with_first(lower, "test", lambda x, y: (x - 3.0, y))
    with pytest.raises(BadInput, match=r"forget\[0\].* Classification\(bounds=\(.*\)\)\.$") as raised:
        TASK.check(samples_world.original, shifted)
    proposed = str(raised.value).partition("bounds=(")[2].partition(")")[0]
    low, high = (float(value) for value in proposed.split(","))
    Classification(bounds=(low, high)).check(samples_world.original, shifted)


@pytest.mark.parametrize("channels", [1, 3])
def test_exhibit_is_a_picture_that_reads_back(channels: int) -> None:
    values = torch.rand(channels, 5, 7)
    shown = Classification(classes=("a cat", "a dog")).exhibit((values, 1), "odd")
    assert shown.kind == "picture"
    assert shown.caption == "a dog: odd"
    head, _, data = shown.content.partition(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).reshape(5, 7, channels)
    np.testing.assert_allclose(pixels, (values.permute(1, 2, 0) * 255).numpy(), atol=1)


def test_exhibit_of_anything_else_is_a_list_of_numbers() -> None:
    shown = TASK.exhibit((torch.tensor([0.5, 0.25]), 3), "odd")
    assert (shown.kind, shown.content, shown.caption) == ("text", "0.5 0.25", "class 3: odd")


def test_blocks_of_a_network_behind_its_normalisation() -> None:
    from unrecall.scenarios.networks import resnet20, small_cnn

    names = [name for name, _ in Classification().blocks(resnet20())]
    assert len(names) == 11
    assert names[0] == "1.conv1"
    assert names[-3:] == ["1.layers.2.1", "1.layers.2.2", "1.linear"]
    held = [p for _, modules in Classification().blocks(resnet20()) for m in modules for p in m.parameters()]
    assert len(held) == len(list(resnet20().parameters())), "each parameter once"
    assert [name for name, _ in Classification().blocks(small_cnn())] == ["1", "4", "7", "12"]
    assert [name for name, _ in Classification().blocks(torch.nn.Linear(2, 2))] == [""]


def test_a_hook_must_take_the_model_in_the_precision_in_which_it_is_trained(samples_world: World) -> None:
    w, half = samples_world, copy.deepcopy(samples_world.original).to(torch.bfloat16)
    with pytest.raises(BadInput, match=r"inputs\.to\(next\(model\.parameters\(\)\)\.dtype\)"):
        TASK.check(half, w.request)
    with pytest.raises(BadInput, match="expected to accept inputs in float32 too"):
        Classification(forward=lambda model, inputs: model(inputs.bfloat16())).check(half, w.request)
    task = Classification(forward=lambda model, inputs: model(inputs.to(next(model.parameters()).dtype)))
    task.check(half, w.request)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("named", [None, "1"])
def test_probabilities_are_refused_in_any_precision(dtype: torch.dtype, named: str | None) -> None:
    class Softmax(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return logits.to(dtype).softmax(1).float()

    data = [(torch.rand(1, 4, 4, generator=seeded(i)), i % 10) for i in range(40)]
    request = Request(data[:10], data[10:20], data[20:30], data[30:])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), Softmax())
    with pytest.raises(BadInput, match="expected logits, got probabilities"):
        Classification(head_name=named).check(model, request)
    Classification(head_name="1").check(model[:2], request)


@pytest.mark.parametrize(
    "change",
    [lambda logits: 100 * logits.softmax(1), lambda logits: logits.softmax(1) + 0.01],
    ids=["per cent", "plus one hundredth"],
)
def test_probabilities_in_another_scale_are_refused(samples_world: World, change: Any) -> None:
    with pytest.raises(BadInput, match="expected logits, got probabilities"):
        TASK.check(Then(samples_world.original, change), samples_world.request)


@pytest.mark.parametrize(
    "change",
    [torch.relu, torch.ones_like, torch.zeros_like, lambda logits: logits - logits.mean(1, keepdim=True)],
    ids=["not negative", "ones", "zeros", "centred"],
)
def test_logits_that_only_look_like_probabilities_pass(samples_world: World, change: Any) -> None:
    TASK.check(Then(samples_world.original, change), samples_world.request)


class Then(nn.Module):
    """A model, and what is done with its outputs."""

    def __init__(self, model: nn.Module, change: Any) -> None:
        super().__init__()
        self.inner, self.change = model, change

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.change(self.inner(inputs))


def test_the_head_of_a_compiled_model_is_found() -> None:
    model = network().eval()
    compiled: Any = torch.compile(model, backend="eager")
    batch = TASK.collate([(torch.rand(1, 4, 4), 0)] * 3)
    compiled(batch["inputs"])
    assert TASK.head(compiled, batch) is model[6]
    assert TASK.view(compiled, batch).features.shape == (3, 32)


@pytest.mark.parametrize(
    "settings",
    [{"bounds": b} for b in (None, (0,), ("a", "b"), (-float("inf"), float("inf")), (1, 0))]
    + [{"classes": None}, {"classes": "cat"}, {"head_name": 3}],
    ids=str,
)
def test_settings_of_a_wrong_kind_are_refused(settings: Any) -> None:
    with pytest.raises(BadInput, match=f"Classification: expected {next(iter(settings))} to be "):
        Classification(**settings)


@pytest.mark.parametrize(
    "error", [RuntimeError("std::bad_alloc"), RuntimeError("CUDA out of memory. Tried"), ValueError("posix_memalign")]
)
def test_too_little_memory_is_not_the_model_s_fault(samples_world: World, error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)[:5]):
        TASK.check(Then(samples_world.original, fail), samples_world.request)
