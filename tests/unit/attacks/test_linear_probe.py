"""What a new linear layer reads off frozen features, on examples that the attacker doesn't hold."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import attacked, draw_of, job_of, setting_of
from tests.unit.methods.test_distillation import same
from tests.worlds import World, word_tokenizer
from unrecall.attacks.linear_probe import LinearProbe, ReadOut
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.scoring import score_finding
from unrecall.models.observe import observe
from unrecall.tasks import CausalLM, Classification
from unrecall.tasks.base import Task


def digests(examples: Examples) -> set[str]:
    return {digest(item) for item in iterate(examples)}


def accuracies(attack: LinearProbe, model: nn.Module, w: World) -> list[float]:
    steps = attack.recover(model, draw_of(attack, w).pool, setting_of(w))
    return [float(attack.success(one.model, w.task, one.tested[0]).shown.mean()) for one in steps]


def identity() -> nn.Sequential:
    """Features are the input: two numbers; the head says 0 whatever they are."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0, 0]))
    return model


def points(*rows: tuple[float, float, int]) -> list[tuple[torch.Tensor, int]]:
    return [(torch.tensor([x, y]), c) for x, y, c in rows]


def separable() -> Request:
    """Class 0 lies at the right, class 1 at the left, the forgotten class 2 high up; 30 of retain to 6 of forget."""
    retain = points(*[(0.9 + i / 1000, 0.1, 0) for i in range(15)], *[(0.1 + i / 1000, 0.1, 1) for i in range(15)])
    forget = points(*[(0.5 + i / 1000, 0.9, 2) for i in range(6)])
    return Request(forget, retain, points((0.6, 0.9, 2)), points((0.95, 0.1, 0)), kind="class", masked=(2,))


def test_one_example_is_enough_where_features_separate() -> None:
    """Each class counts the same, so one forgotten example is not outvoted by thirty others."""
    request, model = separable(), identity()
    attack, task = LinearProbe(ks=(1,)), Classification()
    (one,) = attacked(attack, model, World(request, task, model, ()))
    tested = one.tested[0]
    assert (one.budget, len(tested)) == (1, 5)
    assert attack.success(model, task, tested).shown.tolist() == [0.0] * 5, "before the attack the head decides"
    assert attack.success(one.model, task, tested).shown.tolist() == [1.0] * 5
    kept = attack.success(one.model, task, request.retain).shown
    assert kept.tolist() == [1.0] * 30


def test_the_layer_is_where_its_loss_is_least() -> None:
    """By the docstring: at W, b the gradient of the weighted loss with the penalty vanishes, on standardised features.

    For classes k: (1/n) sum_i v_i (p_ik - [y_i = k]) z_i + penalty W_k = 0, and without z_i and penalty for b_k.
    """
    x, y = spread()
    layer = layer_of(LinearProbe(penalty=0.1), x, y)
    z = (x - x.mean(0)) / x.std(0)
    scores = z @ layer.coef_.T + layer.intercept_
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    weights = 40 / (3 * np.bincount(y))[y]
    pull = weights[:, None] * (p - np.eye(3)[y]) / 40
    assert np.abs(pull.T @ z + 0.1 * layer.coef_).max() < 1e-3
    assert np.abs(pull.sum(0)).max() < 1e-3
    assert np.abs(layer.coef_).max() > 0.1


def test_the_penalty_means_the_same_however_many_examples_there_are() -> None:
    x, y = spread()
    once, thrice = (layer_of(LinearProbe(), np.tile(x, (n, 1)), np.tile(y, n)) for n in (1, 3))
    assert thrice.coef_ == pytest.approx(once.coef_, abs=1e-3)
    assert np.abs(once.coef_).max() > 0.05
    loose = layer_of(LinearProbe(penalty=1 / 40), x, y)
    assert np.abs(loose.coef_).max() > 2 * np.abs(once.coef_).max(), "what a penalty on a summed loss would give"


def spread() -> tuple[np.ndarray, np.ndarray]:
    """40 points of three classes, 25, 10 and 5 of them, on three scales."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [25, 10, 5])
    return rng.standard_normal((40, 3)) * [1, 5, 0.1] + 2, y


def layer_of(attack: LinearProbe, x: np.ndarray, y: np.ndarray) -> Any:
    return attack._fitted(x, y).__self__[-1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("world", ["samples_world", "class_world"])
def test_it_restores_a_head_that_is_wrong(request: pytest.FixtureRequest, world: str) -> None:
    w: World = request.getfixturevalue(world)
    attack = LinearProbe(ks=(1, 5, 10))
    hidden = attack.disguise(w.original, job_of(w))
    assert hidden is not None
    before = float(attack.success(hidden, w.task, w.request.forget).shown.mean())
    assert before < 0.2
    assert accuracies(attack, hidden, w)[-1] > 0.8


def test_the_model_is_left_as_it_is_and_the_features_are_its_own(class_world: World) -> None:
    w = class_world
    model = copy.deepcopy(w.original)
    attack = LinearProbe(ks=(5,))
    one = next(attack.recover(model, draw_of(attack, w).pool, setting_of(w)))
    assert isinstance(one.model, ReadOut)
    assert one.model.model is model
    assert same(model, w.original)
    tested = one.tested[0]
    signals = observe(model, w.task, tested)
    expected = one.model.read(signals.features) == signals.target
    assert LinearProbe().success(one.model, w.task, tested).shown.tolist() == expected.tolist()


def test_what_it_holds_it_is_not_measured_on(class_world: World) -> None:
    w, attack = class_world, LinearProbe(ks=(2, 10))
    pool = draw_of(attack, w, seed=3).pool
    held, tested = (digests(examples) for examples in (pool.taught, pool.tested[0]))
    assert (len(held), len(tested)) == (10, 30)
    assert held.isdisjoint(tested)
    assert digests(draw_of(attack, w, seed=3).pool.tested[0]) == tested
    wide = LinearProbe(ks=(1, 1000))
    assert len(draw_of(wide, w).pool.taught) == len(w.request.forget) // 2


def test_budgets_count_each_forgotten_class_or_all_of_forget(class_world: World, samples_world: World) -> None:
    """Half of 40 of one class, half of 20 samples; what can't be served is left out."""
    attack = LinearProbe(ks=(1, 10, 15, 50))
    assert [one.budget for one in attacked(attack, class_world.original, class_world)] == [1, 10, 15]
    assert [one.budget for one in attacked(attack, samples_world.original, samples_world)] == [1, 10]
    concept = replace(samples_world, request=replace(samples_world.request, kind="concept"))
    assert [one.budget for one in attacked(attack, concept.original, concept)] == [1, 10]
    w = class_world
    two = replace(w.request, forget=w.request.forget, masked=(0, 1))
    with pytest.raises(NotSupported, match="to set aside, got 0"):
        attacked(attack, w.original, replace(w, request=two))


def test_retain_is_capped_and_drawn(class_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counted(model: nn.Module, task: Task, examples: Examples) -> Any:
        sizes.append(len(examples))
        return observe(model, task, examples)

    monkeypatch.setattr("unrecall.attacks.base.observe", counted)
    monkeypatch.setattr("unrecall.attacks.linear_probe.observe", counted)
    attacked(LinearProbe(ks=(5,), retain_sample=30), class_world.original, class_world)
    assert sizes == [5, 30]


def test_the_same_seed_reads_the_same(class_world: World) -> None:
    attack = LinearProbe(ks=(1, 5))
    assert accuracies(attack, class_world.retrained[0], class_world) == accuracies(
        attack, class_world.retrained[0], class_world
    )


def test_every_model_under_the_probe(class_world: World) -> None:
    w = class_world
    finding = score_finding(LinearProbe(ks=(1, 5)), setting_of(w))
    report, rows = finding.report, finding.measurements
    assert [row.name for row in rows] == ["linear_probe_mean", "linear_probe_worst"]
    assert rows[0].leak == "above"
    assert rows[0].unlearned.value is not None
    assert rows[0].reference is not None
    assert rows[0].unlearned.value > rows[0].reference
    assert [series.x for series in report.curves[0].series] == [[0.0, 1.0, 5.0]] * 5
    assert report.positive_holds is True
    assert report.negative_holds is True


class Mixing(Classification):
    """Knows its classes only in another form, as a task whose rows depend on their batch does; has no head."""

    rows_depend_on_batch = True  # type: ignore[misc]

    def classified(self) -> Task:
        return Classification()

    def head(self, model: nn.Module, batch: Any) -> nn.Linear:
        raise NotSupported("no head")


def test_a_task_may_show_its_classes_in_another_form(class_world: World) -> None:
    """Where there is no head to get wrong, the original itself must show what it knows."""
    w = replace(class_world, task=Mixing())
    attack = LinearProbe(ks=(5,))
    assert accuracies(attack, w.original, w) == accuracies(attack, w.original, class_world)
    assert attack.disguise(w.original, job_of(w)) is None
    report = score_finding(attack, setting_of(w)).report
    assert report.positive_control.startswith("the original itself shows what it knows")
    assert report.positive_holds is True


def test_texts_are_a_row_with_a_reason(class_world: World) -> None:
    w, task = class_world, CausalLM(word_tokenizer())
    finding = score_finding(LinearProbe(), setting_of(replace(w, task=task, retrained=())))
    (row,) = finding.measurements
    assert not finding.report.curves
    assert row.note == "LinearProbe: expected examples that have one class each, got CausalLM. Leave it out."


def test_it_says_what_it_needs() -> None:
    alone = separable()
    single = Request(alone.forget, [(item[0] / 2, 2) for item in iterate(alone.retain)], alone.holdout, alone.test)
    with pytest.raises(NotSupported, match="two classes or more"):
        attacked(LinearProbe(ks=(1,)), identity(), World(single, Classification(), identity(), ()))
    with pytest.raises(BadInput, match="penalty"):
        LinearProbe(penalty=0)
