"""The null: the passes of a method at learning rate 0, without a backward pass where no weight can move by one."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.errors import BadInput
from unrecall.methods.base import Null, has_null
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.lora import LoRA
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.spec.lines import parse
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, plain_step
from unrecall.training.randomness import seeded


def test_it_is_the_method_at_learning_rate_0(samples_world: World) -> None:
    w = samples_world
    for parts in (1, 3):
        method = NegGradPlus(fit=Fit(lr=0.0, batch_size=32, accumulate=parts))
        still = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)).state_dict()
        null = Null(NegGradPlus(fit=Fit(lr=0.5, batch_size=32, accumulate=parts)))
        passed = null.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)).state_dict()
        assert all(torch.equal(still[name], passed[name]) for name in still)
        assert not torch.equal(passed["1.running_mean"], w.original.state_dict()["1.running_mean"])


def test_nothing_is_differentiated(samples_world: World) -> None:
    w = samples_world
    job = Job(w.request, w.task, seeded(0), CPU)
    (phase,) = Null(Finetune(fit=Fit(batch_size=32))).phases(w.original, w.original, job)
    (own,) = Finetune(fit=Fit(batch_size=32)).phases(w.original, w.original, job)
    assert own.step is plain_step and phase.step is not plain_step
    model = Null(Finetune(fit=Fit(batch_size=32))).unlearn(w.original, job)
    assert all(p.grad is None for p in model.parameters())


@dataclass(frozen=True)
class Halving(Finetune):
    """A user's method, which changes the frozen original."""

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        with torch.no_grad():
            for weight in original.parameters():
                weight.mul_(0.5)
        return super().phases(student, original, job)


def test_a_method_of_the_users_own_that_writes_the_original_leaves_the_model_alone(samples_world: World) -> None:
    w = samples_world
    before = {name: value.clone() for name, value in w.original.state_dict().items()}
    Halving(fit=Fit(batch_size=32)).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert all(torch.equal(value, before[name]) for name, value in w.original.state_dict().items())


def test_whose_passes_at_learning_rate_0_leave_the_weights_alone() -> None:
    """A wrapper has a null where it and all that it wraps only train; noise and fresh weights are no passes."""
    lines = {
        "scrub": True,
        "salun(scrub)": True,
        "lora(grad_diff)": True,
        "boundary_expand": True,
        "ec(scrub)": True,
        "undo(scrub)": False,
        "sam(distort)": False,
        "retrain": False,
    }
    assert {line: has_null(parse(line, "methods")) for line in lines} == lines


def test_a_result_holds_no_gradients(samples_world: World) -> None:
    """They would take as much memory again, and a user's next step would add the last one of unlearning."""
    w = samples_world
    for method in (Finetune(fit=Fit(batch_size=32)), LoRA(base=Finetune(fit=Fit(batch_size=32)))):
        result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        assert all(p.grad is None for p in result.parameters())


def test_eu_k_starts_nothing_anew_that_is_frozen(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original)
    *_, last = model.parameters()
    last.requires_grad_(False)
    with pytest.raises(BadInput, match="expected one of the last 1 blocks to be trainable, got frozen ones"):
        EUk(blocks=1).unlearn(model, Job(w.request, w.task, seeded(0), CPU))
