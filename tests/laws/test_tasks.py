"""The door to the package: what every task must do, whatever it is about. Tasks are found by walking the folder."""

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unrecall.tasks
from tests.worlds import World, caption_tokenizer, picture_processor, word_tokenizer
from unrecall.data.batches import batch_size
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.nn.hooks import mode
from unrecall.tasks import protocols
from unrecall.tasks.base import Task

PROTOCOLS = {
    "classification": {"Perturbable", "Classed", "Classifying", "WithDifficulty"},
    "grouped": {"Perturbable", "Classed", "Classifying", "WithDifficulty", "InGroups"},
    "transformers_pictures": {"Perturbable", "Classed", "Classifying", "WithDifficulty", "Exportable", "OfFolders"},
    "transformers_texts": {"Classed", "Classifying", "WithDifficulty", "Exportable", "OfFolders"},
    "causal_lm": {"Textual", "Unfinished", "Prompted", "Exportable", "OfFolders", "WithDifficulty"},
    "contrastive": {"Perturbable", "Classed", "Paired", "Composed", "Exportable", "OfFolders"},
    "zero_shot": {"Perturbable", "Classed"},
    "recommendation": {"Ranked", "Recommending"},
}
"""What each task offers beyond the least."""

WORLDS = {
    "classification": "samples_world",
    "grouped": "grouped_world",
    "transformers_pictures": "pictures_world",
    "transformers_texts": "labelled_texts_world",
    "causal_lm": "text_world",
    "contrastive": "pairs_world",
    "zero_shot": "pairs_world",
    "recommendation": "tastes_world",
}

OTHER_SETTINGS: dict[str, dict[str, Callable[[], Any]]] = {
    "classification": {
        "head_name": lambda: "6",
        "read": lambda: lambda item: (item[0] / 2, item[1]),
        "forward": lambda: lambda model, inputs: model(inputs / 2),
        "bounds": lambda: (-1.0, 1.0),
        "classes": lambda: ("ant", "bee", "cat", "dog"),
        "continuous": lambda: False,
    },
    "causal_lm": {
        "tokenizer": caption_tokenizer,
        "template": lambda: "{prompt}?",
        "longest": lambda: 5,
        "ends": lambda: False,
        "joined": lambda: False,
        "prompts": lambda: True,
    },
    "contrastive": {
        "tokenizer": word_tokenizer,
        "classes": lambda: ("red", "green"),
        "prompt": lambda: "a {}",
        "mean": lambda: (0.5, 0.5, 0.5),
        "longest": lambda: 9,
        "processor": lambda: picture_processor(0.5),
        "bounds": lambda: (-1.0, 1.0),
    },
    "recommendation": {"items": lambda: 25, "longest": lambda: 3, "sensitive": lambda: (1,)},
}
OTHER_SETTINGS["transformers_pictures"] = OTHER_SETTINGS["classification"] | {
    "head_name": lambda: "classifier",
    "processor": lambda: picture_processor(0.5),
}
OTHER_SETTINGS["transformers_texts"] = OTHER_SETTINGS["classification"] | {
    "head_name": lambda: "classifier",
    "tokenizer": caption_tokenizer,
    "continuous": lambda: True,
}
OTHER_SETTINGS["grouped"] = OTHER_SETTINGS["classification"]
OTHER_SETTINGS["zero_shot"] = OTHER_SETTINGS["contrastive"]
"""Another value for each setting; `std` goes with `mean`."""


def find_tasks() -> dict[str, type[Task]]:
    """File name to class: every task of the folder that can be made."""
    tasks: dict[str, type[Task]] = {}
    for info in pkgutil.iter_modules(unrecall.tasks.__path__):
        for value in vars(importlib.import_module(f"unrecall.tasks.{info.name}")).values():
            own = isinstance(value, type) and issubclass(value, Task) and value.__module__.endswith(f".{info.name}")
            if own and not inspect.isabstract(value):
                tasks[info.name] = value
    return tasks


@dataclass(frozen=True, repr=False)
class Case:
    """A task, with a model and examples that it fits."""

    name: str
    task: Any
    world: World

    @property
    def model(self) -> nn.Module:
        return self.world.original

    @property
    def items(self) -> list[Any]:
        """Seven examples, from two sets, so that several classes are among them."""
        forget, retain = self.world.request.forget, self.world.request.retain
        return [forget[i] for i in range(3)] + [retain[5 * i] for i in range(4)]

    def batch(self) -> dict[str, Tensor]:
        collated: dict[str, Tensor] = self.task.collate(self.items)
        return collated

    def rows(self, batch: dict[str, Tensor]) -> Rows:
        with mode(self.model, training=False), torch.no_grad():
            rows: Rows = self.task.rows(self.model, batch)
        return rows


@pytest.fixture(params=PROTOCOLS)
def case(request: pytest.FixtureRequest) -> Case:
    world: World = request.getfixturevalue(WORLDS[request.param])
    task: Any = world.task
    return Case(request.param, task.classified() if request.param == "zero_shot" else task, world)


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)


def test_every_task_is_walked(case: Case) -> None:
    assert find_tasks().keys() == PROTOCOLS.keys()
    assert type(case.task) is find_tasks()[case.name]


def test_what_is_declared_is_offered_with_the_promised_parameters(case: Case) -> None:
    """`isinstance` looks at names alone; here a method also takes what its protocol promises."""
    known = {
        name: kind
        for name, kind in vars(protocols).items()
        if isinstance(kind, type) and getattr(kind, "_is_protocol", False) and kind.__module__ == protocols.__name__
    }
    offered = {name for name, kind in known.items() if protocols.offers(case.task, kind)}
    assert offered == PROTOCOLS[case.name]
    for name in offered:
        for method, promised in inspect.getmembers(known[name], inspect.isfunction):
            if not method.startswith("_"):
                own = getattr(type(case.task), method)
                assert list(inspect.signature(own).parameters) == list(inspect.signature(promised).parameters), method


def test_a_batch_has_one_entry_an_example(case: Case) -> None:
    batch = case.batch()
    assert {len(value) for value in batch.values()} == {len(case.items)} == {batch_size(batch)}
    rows = case.rows(batch)
    assert rows.examples == len(case.items)
    assert rows.example.unique().tolist() == list(range(len(case.items))), "each example has a row"
    assert rows.example.tolist() == sorted(rows.example.tolist()), "in order"
    assert len(rows.logits) == len(rows.targets) == len(rows.example)
    assert bool(((rows.targets >= 0) & (rows.targets < rows.logits.shape[1])).all())
    positions = case.task.positions(batch)
    assert positions is None or (positions.dtype == torch.bool and len(positions) == len(case.items))


def test_a_permuted_batch_has_permuted_losses(case: Case) -> None:
    batch = case.batch()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    rows, permuted = case.rows(batch), case.rows({name: value[order] for name, value in batch.items()})
    close(permuted.losses(), rows.losses()[order])
    if not case.task.rows_depend_on_batch:
        for new, old in enumerate(order.tolist()):
            close(permuted.logits[permuted.example == new], rows.logits[rows.example == old])
            assert torch.equal(permuted.targets[permuted.example == new], rows.targets[rows.example == old])


def test_only_a_task_that_says_so_mixes_examples(case: Case) -> None:
    together = case.rows(case.batch()).losses()
    alone = torch.cat([case.rows(case.task.collate([item])).losses() for item in case.items])
    assert torch.allclose(together, alone, atol=2e-5, rtol=1e-4) == (not case.task.rows_depend_on_batch)
    own_rows = protocols.with_own_rows(case.task)
    assert not own_rows.rows_depend_on_batch
    assert (own_rows is case.task) == (not case.task.rows_depend_on_batch)


def test_losses_are_those_of_the_rows(case: Case) -> None:
    batch = case.batch()
    with mode(case.model, training=False), torch.no_grad():
        close(case.task.losses(case.model, batch), case.rows(batch).exact_losses())


def test_a_view_has_the_same_rows_and_one_vector_an_example(case: Case) -> None:
    batch = case.batch()
    rows = case.rows(batch)
    with mode(case.model, training=False), torch.no_grad():
        view = case.task.view(case.model, batch)
    close(view.rows.logits, rows.logits)
    assert torch.equal(view.rows.targets, rows.targets)
    assert torch.equal(view.rows.example, rows.example)
    assert view.features.ndim == 2
    assert len(view.features) == len(case.items)


def test_features_are_what_enters_the_head(case: Case) -> None:
    """Their mean over an example's rows; a task without a linear head says so."""
    batch = case.batch()
    if case.name in ("contrastive", "zero_shot"):
        with pytest.raises(NotSupported, match="expected a model with a linear head, got a dual encoder"):
            case.task.head(case.model, batch)
        assert all(module in set(case.model.modules()) for module in case.task.endings(case.model, batch))
        return
    head = case.task.head(case.model, batch)
    assert case.task.endings(case.model, batch) == [head]
    entered: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0]))
    with mode(case.model, training=False), torch.no_grad():
        rows, features = case.task.view(case.model, batch)
    handle.remove()
    (entries,) = entered
    close(head(entries), rows.logits)
    for i in range(len(case.items)):
        close(features[i], entries[rows.example == i].mean(0))


def test_asking_changes_nothing(case: Case) -> None:
    model, batch = copy.deepcopy(case.model), case.batch()
    before = {name: value.clone() for name, value in batch.items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = hooks_of(model)  # Transformers leaves some of its own where hidden states were asked for
    with mode(model, training=False), torch.no_grad():
        case.task.view(model, batch)
        case.task.rows(model, batch)
        case.task.endings(model, batch)
    case.task.blocks(model)
    case.task.check(model, case.world.request)
    assert all(torch.equal(value, before[name]) for name, value in batch.items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert hooks_of(model) == hooks


def hooks_of(model: nn.Module) -> list[object]:
    return [
        hook for m in model.modules() for held in (m._forward_hooks, m._forward_pre_hooks) for hook in held.values()
    ]


def test_blocks_hold_every_parameter_once(case: Case) -> None:
    """But for one that stands beside the layers, in no module of its own, as the scale of a dual encoder does."""
    blocks = case.task.blocks(case.model)
    assert len({name for name, _ in blocks}) == len(blocks) >= 2
    held = [id(p) for _, modules in blocks for p in {id(p): p for m in modules for p in m.parameters()}.values()]
    assert len(held) == len(set(held)), "no parameter is in two blocks"
    beside = [name for name, p in case.model.named_parameters() if id(p) not in set(held)]
    assert beside == (["logit_scale"] if case.name in ("contrastive", "zero_shot") else [])


def test_items_undo_collate(case: Case) -> None:
    if not callable(getattr(case.task, "items", None)):
        assert case.name in ("causal_lm", "recommendation")
        return
    batch = case.batch()
    undone = case.task.items(batch)
    assert len(undone) == len(case.items)
    again = case.task.collate(undone)
    assert again.keys() == batch.keys()
    assert all(torch.equal(again[name], value) for name, value in batch.items())


def test_inputs_can_be_exchanged(case: Case) -> None:
    if not protocols.offers(case.task, protocols.Perturbable):
        with pytest.raises(NotSupported, match="expected a task with continuous inputs"):
            protocols.perturbable(case.task)
        return
    batch, (low, high) = case.batch(), case.task.bounds
    inputs = case.task.inputs(batch)
    assert low <= float(inputs.min()) <= float(inputs.max()) <= high
    other = case.task.with_inputs(batch, inputs.flip(0))
    assert torch.equal(case.task.inputs(other), inputs.flip(0))
    assert torch.equal(case.task.inputs(batch), inputs), "the batch itself stays"
    assert all(torch.equal(case.task.with_inputs(batch, inputs)[name], value) for name, value in batch.items())


def test_a_task_with_classes_classifies_each_example(case: Case) -> None:
    if not protocols.offers(case.task, protocols.Classed):
        with pytest.raises(
            NotSupported, match=r"Law: expected examples that have one class each, got (CausalLM|Recommendation)"
        ):
            protocols.classed("Law", case.task)
        assert protocols.class_names(case.task) == ()
        return
    assert protocols.class_names(case.task) == case.task.classes
    classified = case.task.classified()
    assert classified.classified() is classified
    assert not classified.rows_depend_on_batch
    with mode(case.model, training=False), torch.no_grad():
        rows = classified.rows(case.model, classified.collate(case.items))
    assert rows.example.tolist() == list(range(len(case.items)))
    labels = [item["label"] if isinstance(item, dict) else item[1] for item in case.items]
    assert rows.targets.tolist() == labels
    if protocols.offers(case.task, protocols.Classifying):
        assert [case.task.label(item) for item in case.items] == labels


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(case: Case, value: float) -> None:
    case.task.check(case.model, case.world.request)
    for index in (0, -1):
        model = copy.deepcopy(case.model)
        name, parameter = list(model.named_parameters())[index]
        with torch.no_grad():
            parameter.view(-1)[0] = value
        with pytest.raises(BadInput, match=f"expected finite weights, got NaN or infinity in '{name}'"):
            case.task.check(model, case.world.request)


def test_its_name_tells_settings_apart(case: Case) -> None:
    """Everything in the cache hangs on it."""
    other = OTHER_SETTINGS[case.name]
    assert repr(case.task) == repr(copy.copy(case.task))
    settings = {field.name for field in fields(case.task) if field.compare} - {"std"}
    assert settings == set(other)
    beside = {"mean": {"std": (0.5, 0.5, 0.5)}}
    variants = [replace(case.task, **{name: make()}, **beside.get(name, {})) for name, make in other.items()]
    assert len({repr(case.task), *map(repr, variants)}) == 1 + len(variants)


def test_people_and_compressors_see_each_example(case: Case) -> None:
    exhibits = [case.task.exhibit(item, "forgotten") for item in case.items]
    assert all("forgotten" in exhibit.caption for exhibit in exhibits)
    assert len({exhibit.content for exhibit in exhibits}) == len(case.items)
    raw = [case.task.raw(item) for item in case.items]
    assert all(isinstance(part, bytes) and part for part in raw)
    assert len(set(raw)) == len(case.items)
