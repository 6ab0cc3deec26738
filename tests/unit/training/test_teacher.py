"""A frozen model beside its student: the same weights, and no second copy of them where none is needed."""

import copy

import torch
from torch import nn

from unrecall.training.teacher import frozen_beside


def test_it_takes_no_weights_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias = model[1].bias  # tied
    student = copy.deepcopy(model)
    frozen = frozen_beside(model, student)
    assert all(p.data_ptr() == q.data_ptr() for p, q in zip(frozen.parameters(), model.parameters(), strict=True))
    assert frozen[0].bias is frozen[1].bias  # type: ignore[index]
    assert not any(p.requires_grad for p in frozen.parameters()) and not frozen.training
    assert all(p.requires_grad for p in model.parameters()) and model.training
    frozen.train()(torch.randn(4, 2))  # statistics are its own
    assert torch.equal(model[1].running_mean, torch.zeros(2))
    with torch.no_grad():
        student[0].weight.add_(1)
    assert torch.equal(frozen[0].weight, model[0].weight)  # type: ignore[index]


def test_in_another_precision_it_is_a_copy_of_the_student() -> None:
    model = nn.Linear(2, 2).bfloat16()
    student = copy.deepcopy(model).float()
    frozen = frozen_beside(model, student)
    assert frozen.weight.dtype == torch.float32
    assert frozen.weight.data_ptr() != student.weight.data_ptr()
