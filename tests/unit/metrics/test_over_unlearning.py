"""OU@eps by hand arithmetic, for models that answer the same whatever they are shown; and how many are looked at."""

import math

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World, network
from unrecall.evidence.setting import Models, Setting
from unrecall.metrics import over_unlearning


def constant(*odds: float) -> nn.Module:
    """A model that answers with these odds."""
    model = network(len(odds))
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(odds).log())
    return model.eval()


def setting_of(w: World, *unlearned: float) -> Setting:
    """The forgotten class is the first; without it the original gives the others a half each."""
    request = w.request.with_own(masked=(0,))
    return Setting(Models(constant(2, 1, 1), constant(*unlearned)), request, w.task, 0, CPU)


def test_both_divergences_by_hand(class_world: World) -> None:
    """p = (0, 1/2, 1/2) and q = (1/3, 1/3, 1/3): m = (1/6, 5/12, 5/12)."""
    js, kl = over_unlearning.measure(setting_of(class_world, 1, 1, 1)).measurements
    assert kl.unlearned.value == pytest.approx(math.log(1.5), rel=1e-5)
    by_hand = math.log(0.5 / (5 / 12)) / 2 + (math.log(2) / 3 + 2 / 3 * math.log((1 / 3) / (5 / 12))) / 2
    assert js.unlearned.value == pytest.approx(by_hand, rel=1e-5)


def test_a_model_that_only_lacks_the_class_is_at_no_distance(class_world: World) -> None:
    js, _ = over_unlearning.measure(setting_of(class_world, 1e-9, 1, 1)).measurements
    assert js.unlearned.value == pytest.approx(0, abs=1e-6)
    assert js.original.value is not None and js.original.value > 0.1


def test_of_many_examples_some_are_looked_at_and_a_note_says_it(
    class_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_of(class_world, 1, 1, 1)
    total = len(setting.request.forget)
    whole, _ = over_unlearning.measure(setting).measurements
    assert (whole.note, whole.unlearned.n) == ("", total)
    monkeypatch.setattr(over_unlearning, "SAMPLE", 5)
    some, _ = over_unlearning.measure(setting).measurements
    assert (some.note, some.unlearned.n) == (f"on 5 of {total} forget examples, evenly spread", 5)


def test_samples_have_no_value(samples_world: World) -> None:
    w = samples_world
    setting = Setting(Models(w.original, w.original), w.request, w.task, 0, CPU)
    assert {row.unlearned.note for row in over_unlearning.measure(setting).measurements} == {
        "defined for class requests only"
    }
