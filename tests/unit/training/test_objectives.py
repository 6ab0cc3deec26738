"""What originals are trained to minimise: each loss by hand, what a weight of 0 leaves, and the keys of the cache."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.worlds import CPU, blobs, facts, network, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, NotSupported
from unrecall.experiment.run_identity import identity
from unrecall.experiment.seeds import Seeds
from unrecall.scenarios.base import Scenario
from unrecall.tasks import CausalLM, Classification
from unrecall.training.loop import Fit, Loss
from unrecall.training.objectives import NIB, ULE, Objective, Plain, Start, objective_of
from unrecall.training.objectives.nib import against, divergence, standardised, told_apart
from unrecall.training.objectives.ule import direction

TASK = Classification()
BATCH = {"inputs": torch.tensor([[0.5, 1.0], [1.0, 0.0]]), "targets": torch.tensor([0, 1])}
NOTHING = NIB(beta=0.0, alpha=0.0, nuisance=0.0, independence=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path))
    return tmp_path


def linear(*rows: tuple[float, ...]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def case(objective: Objective, **changes: Any) -> Scenario:
    data, unseen = blobs(48, 4, 1), blobs(40, 4, 2)
    request = Request(data[:8], data[8:], unseen[:20], unseen[20:])
    usual: dict[str, Any] = {
        "build": lambda _, __: network(),
        "recipe": Fit(lr=0.05, epochs=2, batch_size=16),
    }
    return Scenario("mine", "", TASK, request, objective=objective, **{**usual, **changes})


# ULE


def test_the_direction_of_a_linear_model_is_the_row_of_its_largest_logit_at_length_1() -> None:
    inputs = BATCH["inputs"].clone().requires_grad_(True)
    # logits (-2.5, 2) and (3, 0): the largest are those of class 1 and of class 0
    torch.testing.assert_close(
        direction(linear((3.0, -4.0), (0.0, 2.0))(inputs), inputs), torch.tensor([[0.0, 1.0], [0.6, -0.8]])
    )


def with_student(teacher: nn.Module, student: nn.Linear, weight: float) -> tuple[nn.Module, Loss]:
    networks, loss = ULE(weight=weight).course(Start(teacher, TASK, BATCH))
    layer = networks.get_submodule("student.1")
    assert isinstance(layer, nn.Linear)
    layer.weight.data, layer.bias.data = student.weight.data.clone(), torch.zeros(len(student.weight))
    return networks, loss


def test_ules_loss_by_hand() -> None:
    networks, loss = with_student(linear((3.0, -4.0), (0.0, 2.0)), linear((0.0, 0.0), (5.0, 12.0)), weight=2.0)
    # directions: the teacher (0, 1) and (0.6, -0.8), the student (5, 12) / 13 both times
    overlap = ((12 / 13) ** 2 + ((0.6 * 5 - 0.8 * 12) / 13) ** 2) / 2
    own = (math.log1p(math.exp(4.5)) + math.log1p(math.exp(3.0))) / 2
    students = (math.log1p(math.exp(14.5)) + math.log1p(math.exp(-5.0))) / 2
    assert float(loss(networks, {"train": BATCH}).detach()) == pytest.approx(own + students + 2 * overlap, rel=1e-5)


def test_the_student_learns_by_cross_entropy_alone_and_the_teacher_by_the_direction_too() -> None:
    def gradients(weight: float) -> tuple[list[Tensor], list[Tensor]]:
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        networks, loss = with_student(teacher, linear((1.0, 0.5), (-1.0, 2.0)), weight)
        torch.autograd.backward(loss(networks, {"train": BATCH}))
        both = (teacher, networks.get_submodule("student"))
        first, second = ([p.grad for p in model.parameters() if p.grad is not None] for model in both)
        return first, second

    (teacher, student), (other, same) = gradients(0.5), gradients(5.0)
    assert student and all(torch.equal(a, b) for a, b in zip(student, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(teacher, other, strict=True))
    plain = linear((1.0, 0.5), (-1.0, 2.0))
    torch.autograd.backward(F.cross_entropy(plain(BATCH["inputs"]), BATCH["targets"]))
    torch.testing.assert_close(plain.weight.grad, student[0])


def test_a_hook_of_the_task_is_for_the_model_alone() -> None:
    task = Classification(forward=lambda model, inputs: model(inputs)["logits"])

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear((3.0, -4.0), (0.0, 2.0))

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(inputs)}

    networks, loss = ULE().course(Start(Named(), task, BATCH))
    assert math.isfinite(float(loss(networks, {"train": BATCH}).detach()))


# NIB


def test_the_bottleneck_by_hand() -> None:
    mean, log_variance = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)], [0.0, 0.0]])
    first = (1 + 1 - 1 - 0) / 2 + (0 + 4 - 1 - math.log(4)) / 2
    assert float(divergence(mean, log_variance)) == pytest.approx((first + 4 / 2) / 2)
    assert float(divergence(torch.zeros(3, 2), torch.zeros(3, 2))) == 0


def test_codes_have_mean_0_and_deviation_1() -> None:
    values, scale = standardised(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(values, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), atol=1e-4, rtol=0)
    assert float(scale[0]) == pytest.approx(1.0, abs=1e-4)


def test_the_classifier_learns_the_class_and_the_nuisance_evades_it() -> None:
    classifier, nuisance = linear((2.0,), (0.0,)), torch.tensor([[1.0]], requires_grad=True)
    loss = told_apart(classifier, nuisance, torch.tensor([0]))
    learns = math.log1p(math.exp(-2.0))
    evades = (learns + math.log1p(math.exp(2.0))) / 2
    assert float(loss.detach()) == pytest.approx(learns + evades)
    loss.backward()
    assert nuisance.grad is not None and classifier.weight.grad is not None
    assert float(nuisance.grad) > 0, "down the loss lies 0, where both classes are as likely"
    assert float(classifier.weight.grad[0]) < 0, "the classifier goes for the class, by its own term alone"
    assert float(classifier.weight.grad[0]) == pytest.approx(-1 / (1 + math.exp(2.0)))


def test_the_discriminator_by_hand() -> None:
    codes = torch.tensor([[1.0]], requires_grad=True)
    blank = linear((0.0,))
    assert float(against(blank, codes).detach()) == pytest.approx(3 * math.log(2))
    certain = nn.Linear(1, 1)
    certain.weight.data, certain.bias.data = torch.tensor([[3.0]]), torch.tensor([0.0])
    torch.manual_seed(0)
    drawn = float(torch.randn(1, 1))
    torch.manual_seed(0)
    loss = against(certain, codes)
    by_hand = math.log1p(math.exp(3.0)) + math.log1p(math.exp(-3 * drawn)) + math.log1p(math.exp(-3.0))
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert codes.grad is not None and certain.bias.grad is not None
    assert float(codes.grad) == pytest.approx(-3 / (1 + math.exp(3.0)), rel=1e-5)
    sigmoid = 1 / (1 + math.exp(-3.0))
    assert float(certain.bias.grad) == pytest.approx(sigmoid - 1 / (1 + math.exp(3 * drawn)), rel=1e-5)


def test_the_reconstruction_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    networks, loss = replace(NOTHING, alpha=2.0).course(Start(model, TASK, BATCH))
    for parameter in networks.decoder.parameters():  # type: ignore[union-attr]
        nn.init.zeros_(parameter)
    plain = F.cross_entropy(model(BATCH["inputs"]), BATCH["targets"])
    squares = (0.25 + 1 + 1 + 0) / 4
    assert float(loss(networks, {"train": BATCH}).detach()) == pytest.approx(float(plain.detach()) + 2 * squares)


def test_noise_is_drawn_where_there_is_a_bottleneck_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    for objective, noisy in ((NOTHING, False), (replace(NOTHING, beta=1e-9), True)):
        networks, loss = objective.course(Start(model, TASK, BATCH))
        first, second = (float(loss(networks, {"train": BATCH}).detach()) for _ in range(2))
        assert (first != second) == noisy


# Both


@pytest.mark.parametrize("objective", [NOTHING, ULE(weight=0.0)], ids=["nib", "ule"])
def test_at_weight_0_the_weights_are_those_of_cross_entropy(objective: Objective) -> None:
    plain, same = case(Plain()), case(objective)
    assert digest_of(same.train_original(0, CPU).model) == digest_of(plain.train_original(0, CPU).model)
    assert digest_of(same.train_retrained(0, CPU).model) == digest_of(plain.train_retrained(0, CPU).model)


@pytest.mark.parametrize("objective", [NIB(hidden=8, size=4), ULE()], ids=["nib", "ule"])
def test_the_same_seed_gives_the_same_weights_and_the_model_stays_what_it_was(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = case(objective).train_original(0, CPU).model
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "another"))
    state = torch.get_rng_state()
    second = case(objective).train_original(0, CPU).model
    assert torch.equal(torch.get_rng_state(), state)
    assert digest_of(first) == digest_of(second)
    assert first.state_dict().keys() == network().state_dict().keys()
    assert not first.training and all(p.requires_grad for p in first.parameters())


def test_each_objective_is_kept_under_a_key_of_its_own(cache: Path) -> None:
    objectives: list[Objective] = [Plain(), NIB(hidden=8), NIB(hidden=8, beta=0.1), ULE(), ULE(weight=3.0)]
    trains: list[Callable[[Scenario], nn.Module]] = [
        lambda made: made.train_original(0, CPU).model,
        lambda made: made.train_retrained(0, CPU).model,
    ]
    for train in trains:
        digests = [digest_of(train(case(objective))) for objective in objectives]
        assert len(set(digests)) == len(objectives), "retrained models are trained by the objective, as originals are"
    assert len(list(cache.glob("*.safetensors"))) == 2 * len(objectives)
    train_again = [digest_of(train(case(NIB(hidden=8)))) for train in trains]
    assert len(list(cache.glob("*.safetensors"))) == 2 * len(objectives)
    assert len(set(train_again)) == 2


def test_a_record_is_of_one_objective() -> None:
    keys = [
        identity(case(objective), None, [], Seeds.of(0), CPU)["scenario"]
        for objective in (Plain(), ULE(), ULE(weight=2))
    ]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("objective", [NIB(), ULE()], ids=["nib", "ule"])
def test_a_task_without_continuous_inputs_is_refused(objective: Objective) -> None:
    tokenizer = word_tokenizer()
    task = CausalLM(tokenizer, template=None)
    start = Start(small_llama(len(tokenizer)), task, task.collate(facts()[:2]))
    with pytest.raises(NotSupported, match=r"expected a task with continuous inputs, got CausalLM\. Train by"):
        objective.course(start)


@pytest.mark.parametrize(
    ("line", "objective"),
    [
        ("plain", Plain()),
        ("NIB", NIB()),
        ("nib:beta=0.001+alpha=1", NIB(beta=0.001, alpha=1)),
        ("ule:weight=0", ULE(0)),
    ],
)
def test_a_line_names_an_objective(line: str, objective: Objective) -> None:
    assert objective_of(line) == objective


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nob", "objective: expected plain, nib, ule, got 'nob'. Did you mean 'nib'"),
        ("nib(ule)", r"objective: expected plain, nib, ule, got 'nib\(ule\)'"),
        ("ule:wieght=1", "ULE: unknown parameter 'wieght'. Did you mean 'weight'"),
        ("ule:weight=-1", "ULE: expected weight to be greater than or equal to 0, got '-1'"),
        ("ule:weight", "expected key=value, got 'weight'"),
    ],
)
def test_a_line_that_names_none_is_refused(line: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        objective_of(line)


def test_a_scenario_refuses_what_is_no_objective() -> None:
    with pytest.raises(BadInput, match="Scenario: expected objective to be an Objective"):
        case("ule")  # type: ignore[arg-type]
