"""What is trained once is trained again as soon as data, recipe, weights or the code of the model are others."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, blobs, facts, network, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput
from unrecall.scenarios import cifar_data
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.cifar_data import Cifar, Pictures, Pretrained
from unrecall.scenarios.model_cache import TrainingSetup, first, trained_once
from unrecall.scenarios.networks import Normalize
from unrecall.scenarios.restor import _Clean
from unrecall.scenarios.teaching import Learner
from unrecall.tasks import CausalLM, Classification
from unrecall.training.loop import Fit
from unrecall.training.randomness import own_randomness


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path))
    return tmp_path


def kept(cache: Path) -> int:
    """How many models lie there."""
    return len(list(cache.glob("*.safetensors")))


def rounder(model: nn.Module) -> nn.Module:
    """The same weights with other activations."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Tanh())
    return model


def twice(cache: Path, train: Callable[[], nn.Module]) -> None:
    """The second time the same model comes out of the cache."""
    before = kept(cache)
    once, again = train(), train()
    assert kept(cache) == before + 1
    assert digest_of(once) == digest_of(again)


def test_any_difference_is_another_model(cache: Path) -> None:
    data, how = blobs(32, 4, 1), Fit(lr=0.05, epochs=1, batch_size=16)

    def train(
        model: nn.Module | None = None, how: Fit = how, seed: int = 0, told: str = "blobs", role: str = "original"
    ) -> nn.Module:
        model, task = model or network(), Classification()
        trained = trained_once("case", role, model, TrainingSetup(task, data, how, seed, told, first(data)), CPU)
        assert not trained.model.training
        assert trained.cost is not None
        assert trained.cost.passes == 32
        return trained.model

    twice(cache, train)
    twice(cache, lambda: train(rounder(network())))
    twice(cache, lambda: train(network(seed=1)))
    twice(cache, lambda: train(how=replace(how, lr=0.01)))
    twice(cache, lambda: train(seed=1))
    twice(cache, lambda: train(told="others"))
    twice(cache, lambda: train(role="retrained"))


def test_the_network_that_knows_cifar10_hangs_on_recipe_labels_and_code(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)

    def train(labels: Any = (0, 1, 2, 3, 4, 5)) -> nn.Module:
        pictures = Pictures(pixels, np.array(labels))
        with own_randomness(3):
            return Pretrained(Cifar(pictures, pictures), "resnet20", "", 1, 5)(0, CPU)

    twice(cache, train)
    twice(cache, lambda: train((5, 4, 3, 2, 1, 0)))
    plain = cifar_data.recipe
    with monkeypatch.context() as patch:
        patch.setattr(cifar_data, "recipe", lambda arch, **sgd: plain(arch, **{**sgd, "lr": 0.1}))
        twice(cache, train)
    with monkeypatch.context() as patch:
        patch.setattr(Normalize, "forward", lambda self, inputs: inputs - self.mean)
        twice(cache, train)


def test_the_model_that_knows_the_facts_hangs_on_its_code(cache: Path) -> None:
    tokenizer, data = word_tokenizer(), facts()[:6]
    how = Fit(optimizer="adamw", lr=1e-3, epochs=1, batch_size=6)

    def train(activation: str = "silu") -> nn.Module:
        made = Learner(tokenizer, lambda _, __: small_llama(len(tokenizer), hidden_act=activation), how, "")
        return _Clean(made, CausalLM(tokenizer, template=None), data)(0, CPU)

    twice(cache, train)
    twice(cache, lambda: train("relu"))


def test_a_build_that_gives_the_same_network_each_time_teaches_it_nothing_twice(cache: Path) -> None:
    data, unseen, given = blobs(48, 4, 1), blobs(40, 4, 2), network()
    request = Request(data[:8], data[8:], unseen[:20], unseen[20:])
    how = Fit(lr=0.05, epochs=1, batch_size=16)
    before = digest_of(given)
    scenario = Scenario("same", "", Classification(), request, build=lambda _, __: given, recipe=how)
    trained = [scenario.train_original(0, CPU), *(scenario.train_retrained(i, CPU) for i in range(3))]
    assert digest_of(given) == before, "what build gave is left as it was"
    assert len({id(one.model) for one in trained}) == 4
    digests = [digest_of(one.model) for one in trained]
    assert len(set(digests)) == 4

    fresh = replace(scenario, name="fresh", build=lambda _, __: network())
    assert digest_of(fresh.train_original(0, CPU).model) == digests[0], "as if it were made anew each time"


def case(**changes: Any) -> Scenario:
    data, unseen = blobs(48, 4, 1), blobs(40, 4, 2)
    request = Request(data[:8], data[8:], unseen[:20], unseen[20:])
    usual = {"build": lambda _, __: network(), "recipe": Fit(lr=0.05, epochs=1, batch_size=16)}
    return Scenario("mine", "", Classification(), request, **{**usual, **changes})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "original_data to be a data set with len() and [i], got int. Read them into a list"),
        ("abc", "original_data to be a data set with len() and [i], got str. Give the examples, not where they lie"),
        ({"x": 1}, "original_data to be a data set with len() and [i], got dict"),
        ([], "a non-empty original_data, got 0 examples"),
    ],
)
def test_what_the_original_is_trained_on_is_a_data_set(given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"Scenario: expected {said}")):
        case(original_data=given)


@pytest.mark.parametrize("odd", [(torch.ones(1, 5, 5), 0), (torch.ones(1, 4, 4), 99), "abc", (None, 0)])
def test_what_the_original_is_trained_on_can_be_learned_beside_the_request(odd: Any) -> None:
    scenario = case(original_data=[*blobs(7, 4, 1), odd])
    for ask in (lambda: scenario.start_key(0, CPU), lambda: scenario.train_original(0, CPU)):
        with pytest.raises(
            BadInput, match=r"original_data\[7\]: expected an example that can be learned beside forget\["
        ):
            ask()
    case(original_data=blobs(8, 4, 1)).train_original(0, CPU)


def test_a_build_that_gives_the_original_is_refused() -> None:
    original = network(seed=3)
    for given in (original, nn.Sequential(original)):
        scenario = case(original=original, build=lambda _, __, given=given: given)
        for ask in (lambda: scenario.start_key(0, CPU), lambda: scenario.train_retrained(0, CPU)):  # noqa: B023
            with pytest.raises(BadInput, match="mine: expected build to give a network that was not trained on forget"):
                ask()


@pytest.mark.parametrize("made", [None, (network(), 1), "net", nn.Linear], ids=["None", "tuple", "text", "class"])
def test_a_build_that_gives_no_network_is_refused(made: Any) -> None:
    with pytest.raises(BadInput, match=r"mine: expected build to give a torch\.nn\.Module, got "):
        case(build=lambda _, __: made).start_key(0, CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("build", lambda: None),
        ("build", blobs),
        ("reported", {"neggrad_plus": {"forget_accuracy": "x"}}),
        ("reported", {"neggrad_plus": 3}),
        ("reported", None),
    ],
)
def test_a_scenario_s_fields_are_what_they_must_be(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"Scenario: expected {name} to be "):
        case(**{name: value})
