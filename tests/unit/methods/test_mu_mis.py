"""By hand and by law: MU-Mis, its sensitivities and its stop, and the rule that a phase may end by."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import same
from tests.unit.training.test_loop import Killed
from tests.worlds import CPU, World, blobs
from unrecall.data.batches import Batch
from unrecall.data.request import Request
from unrecall.errors import NotSupported
from unrecall.methods.base import Null
from unrecall.methods.mu_mis import LOWEST, MUMis, past_minimum, respond, sensitivity
from unrecall.models.observe import accuracy, batches, observe
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase, StepState, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

TASK = Classification()
QUICK = Fit(lr=1e-3, weight_decay=0.0, batch_size=8, epochs=6, batchnorm="frozen")


def linear(classes: int) -> nn.Sequential:
    """Logits W x + b: the gradient of logit k is row k of W, whatever x."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 16, generator=seeded(0)))
    return model


def request_of(labels: list[int]) -> Request:
    """Forget has these labels; the rest is there because a request needs it."""
    forget = [(x, y) for (x, _), y in zip(blobs(len(labels), 4, 3), labels, strict=True)]
    return Request(forget, blobs(4, 2, 4), blobs(4, 2, 5), blobs(4, 2, 6))


def phase_of(method: MUMis, model: nn.Module, request: Request, seed: int = 0) -> Phase:
    (phase,) = method.phases(model, frozen_copy(model), Job(request, TASK, seeded(seed)))
    return phase


def batch_of(request: Request) -> Batch:
    return next(batches(request.forget, TASK))


def rows_of(model: nn.Sequential) -> Tensor:
    return model[1].weight.detach()  # type: ignore[return-value]


# The loss.


def test_loss_and_gradient_by_hand_on_a_linear_model() -> None:
    """Two classes, so that c' is known: three examples of class 0 and one of class 1."""
    model, request = linear(2), request_of([0, 0, 1, 0])
    first, second = rows_of(model)[0], rows_of(model)[1]
    loss = phase_of(MUMis(alpha=2.0, alpha_other=0.5), model, request).loss(model, {"forget": batch_of(request)})
    a, b = float(first.square().sum()), float(second.square().sum())
    assert loss.item() == pytest.approx(((2 * a - 0.5 * b) * 3 + (2 * b - 0.5 * a)) / 4, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    found = model[1].weight.grad
    assert isinstance(found, Tensor)
    assert torch.allclose(found[0], 2 * first * (3 * 2 - 0.5) / 4, rtol=1e-5)
    assert torch.allclose(found[1], 2 * second * (2 - 3 * 0.5) / 4, rtol=1e-5)
    assert model[1].bias.grad is None, "no gradient with respect to inputs knows it"


def test_the_other_class_is_another_and_drawn_anew() -> None:
    """Rows of W with squared lengths 1, 10 and 100: the loss tells which class was drawn."""
    model, request = linear(3), request_of([1])
    with torch.no_grad():
        model[1].weight.copy_(F.normalize(rows_of(model), dim=1) * torch.tensor([[1.0], [10.0], [100.0]]).sqrt())
    phase = phase_of(MUMis(), model, request)
    drawn = [round(phase.loss(model, {"forget": batch_of(request)}).item()) for _ in range(40)]
    assert set(drawn) == {10 - 1, 10 - 100}


def test_sensitivity_is_each_examples_own(class_world: World) -> None:
    """One backward pass of the sum, against one for each example alone; BatchNorm's statistics are left alone."""
    w = class_world
    model = copy.deepcopy(w.original).train()
    before = copy.deepcopy(model)
    batch = next(batches(w.request.retain, w.task, 6))
    together = sensitivity(respond(model, w.task, batch), batch["targets"])
    assert model.training
    assert same(model, before)
    for i in range(6):
        x = batch["inputs"][i : i + 1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(w.original(x)[0, batch["targets"][i]], x)
        assert together[i].item() == pytest.approx(float(gradient.square().sum()), rel=1e-4)


def test_gradient_of_the_loss_against_finite_differences() -> None:
    """Double back-propagation through a model whose input gradients depend on the input."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    request = request_of([0, 1, 1])
    batch = {name: v.double() if v.is_floating_point() else v for name, v in batch_of(request).items()}
    phase = phase_of(MUMis(), copy.deepcopy(model).float(), request)
    # The squares are summed in float32, so that the differences are coarse.
    weight = model[1].weight
    (gradient,) = torch.autograd.grad(phase.loss(model, {"forget": batch}), [weight])
    for i, j in ((0, 0), (2, 7), (4, 15)):
        values = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                moved[1].weight[i, j] += sign * 1e-2
            values.append(phase.loss(moved, {"forget": batch}).item())
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(gradient[i, j]), rel=2e-2, abs=1e-4)


class Attending(nn.Module):
    """One layer of attention over four positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 24), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        q, k, v = self.inner(inputs.flatten(1).view(-1, 1, 4, 4)).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))  # type: ignore[no-any-return]


def test_attention_can_be_differentiated_twice() -> None:
    model, request = Attending(), request_of([0, 1, 2, 0])
    phase = phase_of(MUMis(), model, request)
    phase.loss(model, {"forget": batch_of(request)}).backward()  # type: ignore[no-untyped-call]
    assert model.inner.weight.grad is not None
    assert bool(model.inner.weight.grad.abs().sum() > 0)


# The stop.


def stop_of(ratios: list[float], delta: float) -> int | None:
    """At which of these looks the rule fires; None where it never does."""
    lowest = 1.0
    for i, ratio in enumerate(ratios):
        if past_minimum(ratio, lowest, delta):
            return i
        lowest = min(lowest, ratio)
    return None


def test_the_stop_waits_for_the_minimum() -> None:
    falls_and_rises = [0.95, 0.9, 0.8, 0.7, 0.75, 0.85, 0.95, 1.3]
    assert stop_of(falls_and_rises, 0.9) == 6, "0.95 is above 0.9 at the first look too, but it is on its way down"
    assert stop_of(falls_and_rises, 0.5) == 4, "above delta all along: as soon as it rises"
    assert stop_of(falls_and_rises, 1.2) == 7
    assert stop_of(falls_and_rises, 1.5) is None
    assert stop_of([0.99, 0.9, 0.8, 0.6], 0.1) is None, "a ratio that only falls has no minimum behind it"
    assert stop_of([1.0, 1.0, 1.0], 0.5) is None, "nor has one that stays"
    assert stop_of([1.1, 1.4, 1.6], 1.5) == 2, "where it only rises, the minimum is the start"


def test_a_run_ends_at_the_first_look_above_delta(class_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w, looks = class_world, list[tuple[float, float]]()

    def noted(ratio: float, lowest: float, delta: float) -> bool:
        looks.append((ratio, lowest))
        return past_minimum(ratio, lowest, delta)

    monkeypatch.setattr("unrecall.methods.mu_mis.past_minimum", noted)
    steps = []
    for delta, rate in ((1.2, 1e-4), (2.0, 1e-4), (2.0, 1e-6)):
        looks.clear()
        session = Session(device="cpu")
        MUMis(delta=delta, fit=replace(QUICK, lr=rate)).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
        steps.append(session.efforts[-1].steps)
        assert stop_of([ratio for ratio, _ in looks], delta) == (len(looks) - 1 if rate > 1e-6 else None)
        assert [lowest for _, lowest in looks] == [min([1.0, *(r for r, _ in looks[:i])]) for i in range(len(looks))]
    assert steps[0] < steps[1] < steps[2] == 6 * len(w.request.forget) / 8


def test_the_lowest_ratio_survives_a_kill(class_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule is told after the kill is what it would have been told without."""
    w = class_world

    def run(killed_at: int | None, folder: Path | None) -> nn.Module:
        taken = [0]

        def ruled(ratio: float, lowest: float, delta: float) -> bool:
            taken[0] += 1
            seen.append(lowest)
            if taken[0] == killed_at:
                raise Killed
            return False

        monkeypatch.setattr("unrecall.methods.mu_mis.past_minimum", ruled)
        session = Session(folder=folder, device="cpu", every=0)
        return MUMis(fit=replace(QUICK, lr=1e-5)).unlearn(w.original, Job(w.request, w.task, seeded(0), session))

    seen: list[float] = []
    whole = run(None, None)
    expected, seen[:] = list(seen), []
    with pytest.raises(Killed):
        run(4, tmp_path)
    assert seen == expected[:4]
    seen.clear()
    assert same(run(None, tmp_path), whole)
    assert seen == expected[3:], "what was lowest before the kill still counts"
    assert len(expected) == 6
    assert min(expected) < 1, "there was a dip to remember"


def test_a_phase_may_end_by_a_rule_of_its_own() -> None:
    """Asked after each epoch and every `check_every` steps, with the current just taken; its answer ends the phase."""
    asked: list[float] = []

    def ends(current: StepState) -> bool:
        state = current.optimizer.state[next(current.model.parameters())]
        state[LOWEST] = state.get(LOWEST, 0.0) + 1
        asked.append(state[LOWEST])
        return state[LOWEST] == 3

    def loss(model: nn.Module, drawn: Batches) -> Tensor:
        return TASK.rows(model, drawn["all"]).losses().mean()

    phase = Phase(loss, {"all": blobs(40, 2, 0)}, Fit(batch_size=10, epochs=3, check_every=3), ends=ends)
    assert fit(linear(2), TASK, phase, seeded(0), CPU).steps == 6, "looks after steps 3, 4 (an epoch) and 6"
    assert asked == [1, 2, 3]
    assert fit(linear(2), TASK, replace(phase, ends=None), seeded(0), CPU).steps == 12


# What it does.


def own_sensitivity(model: nn.Module, w: World) -> float:
    batch = next(batches(w.request.forget, w.task))
    return sensitivity(respond(model, w.task, batch), batch["targets"]).mean().item()


def test_the_own_class_loses_its_hold_on_the_inputs(class_world: World) -> None:
    """With no retain data, and what retain knows is still there."""
    w = class_world
    method = MUMis(fit=replace(MUMis.fit, batch_size=32))
    assert set(phase_of(method, copy.deepcopy(w.original), w.request).streams) == {"forget"}
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert own_sensitivity(result, w) < 0.5 * own_sensitivity(w.original, w)
    before, after = (observe(m, w.task, w.request.forget).confidence.mean() for m in (w.original, result))
    assert after < 0.3 < before
    assert accuracy(result, w.task, w.request.retain).mean() > 0.85
    for old, new in zip(w.original.buffers(), result.buffers(), strict=True):
        assert torch.equal(old, new)


def test_at_rate_zero_nothing_happens_and_nothing_stops(class_world: World) -> None:
    w, session = class_world, Session(device="cpu")
    null = Null(MUMis(delta=0.9, fit=QUICK)).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    assert same(null, w.original)
    assert session.efforts[-1].steps == 30


class Mixing(Classification):
    """One that says its rows depend on the batch."""

    rows_depend_on_batch = True


def test_what_it_does_not_apply_to(class_world: World, text_world: World) -> None:
    w, texts = class_world, text_world
    with pytest.raises(NotSupported, match="CausalLM: expected a task with continuous inputs"):
        MUMis().unlearn(texts.original, Job(texts.request, texts.task, seeded(0), CPU))
    with pytest.raises(NotSupported, match="MUMis: expected rows that depend on their own example alone"):
        MUMis().unlearn(w.original, Job(w.request, Mixing(), seeded(0), CPU))
