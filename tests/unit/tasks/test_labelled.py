"""Data and models of another form: the hooks that take them, and the errors that name the hook."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import unrecall as ur
from tests.worlds import CPU, World, blobs, network, train
from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.evidence.model_keys import first_answers_digest
from unrecall.models.observe import observe
from unrecall.tasks import Classification
from unrecall.tasks.labelled import Example, example

PICTURE = torch.zeros(1, 4, 4)


def as_dictionary(item: tuple[Tensor, int]) -> dict[str, Any]:
    return {"id": "a", "image": item[0], "label": item[1]}


class Wrapped(nn.Module):
    """Gives its logits among other things."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=None, logits=self.inner(inputs))


HOOKED = Classification(
    read=lambda item: (item["image"], item["label"]), forward=lambda model, inputs: model(inputs).logits
)


def test_hooks_make_of_other_data_and_models_what_the_plain_ones_are(samples_world: World) -> None:
    w, plain = samples_world, Classification()
    hooked = Request(*([as_dictionary(x) for x in w.request[s]] for s in ("forget", "retain", "holdout", "test")))  # type: ignore[attr-defined]
    model = Wrapped(w.original)
    HOOKED.check(model, hooked)
    assert torch.equal(HOOKED.collate([hooked.forget[0]])["inputs"], plain.collate([w.request.forget[0]])["inputs"])
    signals = observe(model, HOOKED, hooked.forget), observe(w.original, plain, w.request.forget)
    assert all((getattr(signals[0], name) == getattr(signals[1], name)).all() for name in ("loss", "features"))
    assert HOOKED.head(model, HOOKED.collate([hooked.forget[0]])) is w.original[-1]  # type: ignore[index]
    assert HOOKED.label(hooked.forget[3]) == plain.label(w.request.forget[3])
    assert HOOKED.raw(hooked.forget[0]) == plain.raw(w.request.forget[0])
    assert HOOKED.exhibit(hooked.forget[0], "") == plain.exhibit(w.request.forget[0], "")


def test_what_a_task_gave_as_items_is_not_read_again() -> None:
    made = HOOKED.collate([as_dictionary(item) for item in blobs(3, 4, 1)])
    again = HOOKED.collate(HOOKED.items(made))
    assert all(torch.equal(made[name], again[name]) for name in ("inputs", "targets"))


def test_a_hooked_task_is_audited_from_end_to_end() -> None:
    data, unseen = blobs(80, 4, 1), blobs(80, 4, 2)
    sets = [[as_dictionary(item) for item in part] for part in (data[:8], data[8:], unseen[:20], unseen[20:])]
    request, model = Request(*sets), Wrapped(train(data, 0))
    attacks = ["recalibration", "prototypical", "residual_knowledge:points=2,draws=3", "rea_class", "linear_probe"]
    outcome = ur.forget(model, request, "grad_diff", task=HOOKED, tune=False, attacks=attacks, session=CPU)
    assert outcome.record.measurement("forget_accuracy").unlearned.value is not None  # type: ignore[union-attr]


def _divided(by: Any) -> Any:
    return lambda model, inputs: model(inputs / by)


def test_tasks_with_other_hooks_are_other_tasks(samples_world: World) -> None:
    assert repr(Classification()) == "Classification(head_name=None, bounds=(0.0, 1.0), classes=())"
    halved = Classification(forward=lambda model, inputs: model(inputs / 2))
    assert len({repr(Classification()), repr(HOOKED), repr(halved)}) == 3
    assert repr(halved) == repr(Classification(forward=halved.forward))
    given = [Classification(forward=lambda model, inputs, by=by: model(inputs / by)) for by in (2, 3)]
    assert repr(given[0]) != repr(given[1])
    within = [Classification(forward=_divided(value)) for value in (2, torch.ones(2), torch.zeros(2))]
    assert len({repr(task) for task in within}) == 3, "what a hook took along counts"
    w = samples_world
    keys = {first_answers_digest(w.original, task, w.request) for task in (Classification(), halved)}
    assert len(keys) == 2, "what is kept of one is not taken for the other's"


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        (as_dictionary((PICTURE, 1)), "got dict with id, image, label. Say how an item is read: Classification(read="
                                      "lambda item: (item['image'], item['label']))"),
        ({"pixels": PICTURE, "who": 1}, "(item['INPUT'], item['LABEL'])"),
        ({"prompt": "who", "answer": "she"}, "Such examples have a task of their own: ur.tasks.CausalLM(tokenizer)"),
        ({"image": PICTURE, "caption": "a"}, "Such examples have a task of their own: ur.tasks.Contrastive(tokenizer)"),
        ((PICTURE, PICTURE, 3), "lambda item: (item[0], item[2])). Two inputs: docs/own-scenario.md"),
        ((PICTURE, "ann"), "Number the classes: say how an item is read: Classification(read=lambda item: (item[0], "),
        ((PICTURE, [0, 1, 1]), "multi-label, regression and segmentation have no one class a row"),
        ((PICTURE, torch.eye(4)[2]), "One-hot labels: say how an item is read: Classification(read=lambda item: "
                                     "(item[0], int(item[1].argmax())))"),
        ((PICTURE, 0.5), "a regression has no classes"),
        ((PICTURE, torch.tensor(0.5)), "a regression has no classes"),
        ((Image.new("L", (4, 4)), 1), "Make the picture a tensor, by the data set's transform or in Cl"),
        (3, "got int. Examples are picked by their numbers with forget, retain = ur.split(data, indices)"),
        (PICTURE, "Wrap the data set in one whose [i] gives such pairs"),
        (("a text", 1), "Wrap the data set in one whose [i] gives such pairs"),
    ],
)  # fmt: skip
def test_an_item_of_another_form_is_told_how_to_be_read(item: Any, advice: str) -> None:
    with pytest.raises(BadInput, match=r"forget\[0\]: expected \(input, label\) .*" + re.escape(advice)):
        example(item, "forget[0]")


def test_a_pair_is_taken_as_it_is() -> None:
    read = example((PICTURE.numpy(), torch.tensor(3)), "forget[0]")
    assert isinstance(read, Example)
    assert read.label == 3


@pytest.mark.parametrize("read", [lambda item: item["img"], lambda item: item.image, lambda item: item + 1])
def test_a_hook_that_fails_is_named(read: Any) -> None:
    items = [as_dictionary(item) for item in blobs(8, 4, 1)]
    with pytest.raises(BadInput, match=r"forget\[0\]: expected read to give \(input, label\), got (Key|Attrib|Type)"):
        Classification(read=read).check(network(), Request(items[:4], items[4:]))


@pytest.mark.parametrize("hook", ["read", "forward"])
def test_a_hook_is_a_function_of_the_right_arguments(hook: str) -> None:
    for wrong in (3, lambda: None):
        with pytest.raises(BadInput, match=f"Classification: expected {hook} to be a function"):
            Classification(**{hook: wrong})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), "logit for each of two classes or more, got one output"),
        (Wrapped(network()), r"got SimpleNamespace\. .*forward=lambda model, inputs: model\(inputs\)\.logits\)"),
    ],
)
def test_outputs_of_another_form_are_told_how_to_be_had(samples_world: World, model: nn.Module, message: str) -> None:
    with pytest.raises(BadInput, match=f"^model: expected .*{message}"):
        Classification().check(model, samples_world.request)


def scaled(by: float, plus: float = 0.0) -> Request:
    data = [(by * x + plus, y) for x, y in blobs(12, 4, 1)]
    data[6] = (torch.full((1, 4, 4), by + plus), 0)
    data[7] = (torch.full((1, 4, 4), plus), 0)
    return Request(data[:4], data[4:])


@pytest.mark.parametrize(
    ("request_", "bounds"),
    [(scaled(1), (0, 1)), (scaled(0.5), (0, 1)), (scaled(255), (0, 255)), (scaled(200), (0, 255)),
     (scaled(4, -2), (-2, 2)), (scaled(37), (0, 37)), (scaled(300), (0, 300))],
)  # fmt: skip
def test_bounds_follow_the_inputs(request_: Request, bounds: tuple[float, float]) -> None:
    task = Classification.of(request_)
    assert task.bounds == bounds
    task.check(network(), request_)
    if bounds != (0, 1):
        given = rf"Classification\(bounds=\({bounds[0]:.1f}, {bounds[1]:.1f}\)\)"
        with pytest.raises(BadInput, match=f"or say in which range they lie: {given}"):
            Classification().check(network(), request_)


def test_inputs_that_span_next_to_nothing_of_their_bounds_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"retain: expected inputs that span 1 % of the bounds \[0, 1\] or more, got \[0"
    ):
        Classification().check(network(), scaled(1 / 255))


def test_sets_that_number_their_classes_each_for_itself_are_refused() -> None:
    """As two folders of pictures do, of which one lacks a class."""

    class Folder(list[Any]):
        class_to_idx: dict[str, int]

    def folder(count: int, seed: int, **numbers: int) -> Folder:
        made = Folder(blobs(count, 4, seed))
        made.class_to_idx = numbers
        return made

    model = network()
    alike = Request(folder(20, 0, cat=0, cow=1), folder(40, 100, cat=0, cow=1, dog=2))
    Classification().check(model, alike)
    unlike = Request(folder(20, 0, cow=0, dog=1), Selection(folder(40, 100, cat=0, cow=1, dog=2), range(30)))
    with pytest.raises(BadInput, match="retain: expected class 'cow' to be number 0, as in forget, got 1"):
        Classification().check(model, unlike)
    Classification(read=lambda item: item).check(model, unlike)  # a hook says what is what

    class Renumbered:
        def __init__(self, dataset: Folder) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, index: int, /) -> Any:
            return self.dataset[index][0], self.dataset[index][1]

    Classification().check(model, Request(Renumbered(folder(20, 0, cow=0, dog=1)), unlike.retain))
