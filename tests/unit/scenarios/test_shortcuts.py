"""Shortcuts: a function of the label alone, which a network takes, so that clean pictures mean little to it."""

from typing import get_args

import numpy as np
import pytest
import torch

from tests.worlds import CPU
from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.models.observe import accuracy
from unrecall.scenarios import shortcuts
from unrecall.scenarios.cifar_data import Cifar, Pictures
from unrecall.scenarios.shortcuts import Kind, Shortcut, Shortcuts, drawn
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded

KINDS = get_args(Kind)
SHAPE = (3, 8, 8)


def made(kind: Kind, strength: float, seed: int = 0) -> Shortcut:
    return Shortcut(kind, strength, *drawn(kind, SHAPE, 5, seed))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_is_a_function_of_the_label_alone(kind: Kind) -> None:
    shortcut, draw = made(kind, 0.3), seeded(1)
    grey, *others = (0.3 + 0.4 * torch.rand(SHAPE, generator=draw) for _ in range(4))
    for label in range(5):
        if kind == "brightness":  # a factor
            factors = [shortcut(x, label) / x for x in (grey, *others)]
            assert all(torch.allclose(f, factors[0], atol=1e-5) for f in factors)
        else:  # what is left of the picture, and what is added to it
            left = shortcut(grey, label) - shortcut(others[0], label)
            for x in others[1:]:
                change = shortcut(grey, label) - shortcut(x, label)
                torch.testing.assert_close(change * (grey - others[0]), left * (grey - x), atol=1e-5, rtol=0)
        assert torch.equal(shortcut(grey, label), shortcut(grey.clone(), label))
    assert len({digest(shortcut(grey, label)) for label in range(5)}) == 5


def test_a_pattern_by_hand() -> None:
    shortcut, picture = made("pattern", 1.0), torch.full(SHAPE, 0.5)
    changed = shortcut(picture, 2)
    dots = (changed != 0.5).any(0)
    assert int(dots.sum()) == round(0.05 * 64) == 3
    assert torch.equal(dots, shortcut.masks[2, 0].bool())
    assert torch.equal(changed[:, dots], shortcut.values[2][:, dots])
    half = made("pattern", 0.5)(picture, 2)
    torch.testing.assert_close(half, (picture + changed) / 2)


def test_a_watermark_by_hand() -> None:
    shortcut = made("watermark", 0.4)
    changed = shortcut(torch.full(SHAPE, 0.5), 1)
    torch.testing.assert_close(changed, 0.3 + 0.4 * shortcut.values[1])
    assert len(changed.unique()) == 2
    assert all(len(changed[:, i : i + 2, j : j + 2].unique()) == 1 for i in range(0, 8, 2) for j in range(0, 8, 2))


def test_brightness_by_hand() -> None:
    picture = torch.full(SHAPE, 0.5)
    values = [float(made("brightness", 0.5)(picture, y)[0, 0, 0]) for y in range(5)]
    assert values == pytest.approx([0.375, 0.4375, 0.5, 0.5625, 0.625])
    assert float(made("brightness", 1.0)(torch.ones(SHAPE), 4).max()) == 1.0


def test_forget_and_holdout_are_changed_and_retain_and_test_are_clean() -> None:
    scenario = Shortcuts(kind="watermark", poisoned=0.4)
    request, clean = scenario.make().request, scenario._pictures()
    shortcut = scenario.shortcut(clean)
    changed = {digest((shortcut(x, y), y)) for x, y in iterate(clean.train)}
    plain = {digest(item) for item in iterate(clean.train)}
    assert not changed & plain
    for name, examples in request.sets.items():
        digests = {digest(item) for item in iterate(examples)}
        assert digests <= (plain if name in ("retain", "test") else changed), name
    assert (len(request.forget), len(request.retain)) == (400, 600)
    assert sum(map(len, request.sets.values())) == len(clean.train)


def test_a_network_takes_the_shortcut_and_then_knows_little_of_clean_pictures() -> None:
    scenario = Shortcuts(kind="pattern", poisoned=0.99, train=600).make()
    with own_randomness(0):
        model = scenario.build(0, CPU)  # type: ignore[misc]
    recipe = Fit(lr=0.05, epochs=6, batch_size=64, schedule="cosine")
    fit(
        model, scenario.task, Phase(loss_on("x", scenario.task), {"x": scenario.request.forget}, recipe), seeded(0), CPU
    )
    assert float(accuracy(model, scenario.task, scenario.request.forget).mean()) > 0.95
    assert float(accuracy(model, scenario.task, scenario.request.holdout).mean()) > 0.95
    assert float(accuracy(model, scenario.task, scenario.request.test).mean()) < 0.75


def test_of_cifar_the_test_set_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pixels = [draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for n in (60, 20)]
    cifar = Cifar(*(Pictures(some, np.arange(len(some)) % 10) for some in pixels))
    monkeypatch.setattr(shortcuts, "read_cifar10", lambda _: cifar)
    scenario = Shortcuts(data="there", train=40, kind="watermark").make()
    assert {name: len(part) for name, part in scenario.request.sets.items()} == {
        "forget": 20, "retain": 20, "holdout": 6, "test": 20, "validation": 4,
    }  # fmt: skip
    assert torch.equal(scenario.request.test[3][0], cifar.test[3][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 1786}, "expected train up to 1785, which leaves 12 pictures of 1797"),
        ({"poisoned": 0.0}, "expected poisoned to leave some of 1000 pictures, got 0.0"),
        ({"poisoned": 1.0}, "expected poisoned to leave some of 1000 pictures, got 1.0"),
        ({"kind": "smell"}, "expected kind to be 'pattern', 'watermark' or 'brightness', got 'smell'"),
        ({"data": "nowhere"}, "data=nowhere: expected the CIFAR-10 folder"),
    ],
)
def test_what_makes_no_case_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Shortcuts(**changes).make()  # type: ignore[arg-type]
