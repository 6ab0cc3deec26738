"""By hand: which weights Kookmin starts anew, with what, and how the repair moves them."""

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from tests.worlds.interactions import Interactions, by_user, dense, factors
from unrecall.data.examples import iterate
from unrecall.methods.kookmin import Kookmin, boosted, smallest
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy


def test_the_smallest_by_hand() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 1.0], [5.0, 4.0]])
    assert smallest(values, 0.5).tolist() == [[False, True], [True, True], [False, False]]
    assert smallest(values, 0.34).tolist() == [[False, True], [False, True], [False, False]]
    assert smallest(values, 0.2).tolist() == [[False, True], [False, False], [False, False]], "of equals the earlier"
    assert smallest(values, 0.01).sum() == 1, "one at least"
    assert smallest(values, 0.0).sum() == 0
    assert smallest(values, 1.0).all()


def test_weights_start_anew_where_the_gradients_agree() -> None:
    """Against dense gradients: nothing but the marked ones moves, and those to what a layer starts with."""
    task, model, request = Interactions(4), factors(3, 4), by_user()
    kept, gone = (dense(model, task, list(iterate(examples)))[0] for examples in (request.retain, request.forget))
    sizes = [p.numel() for p in model.parameters()]
    student = factors(3, 4)
    Kookmin(share=0.25).phases(student, frozen_copy(model), Job(request, task, seeded(0), CPU))
    differences = torch.split((kept - gone).abs(), sizes)
    for difference, before, after in zip(differences, model.parameters(), student.parameters(), strict=True):
        mask = smallest(difference.view_as(before), 0.25)
        assert torch.equal(after[~mask], before[~mask])
        moved = after[mask] != before[mask]
        assert bool(moved.sum() >= len(moved) - 4), "the padding vector starts at 0, where it was"


def test_fresh_values_are_those_of_the_layer(samples_world: World) -> None:
    """With share 1 a BatchNorm starts at gain 1 and bias 0 again; its statistics stay."""
    w = samples_world
    student = frozen_copy(w.original).requires_grad_(True)
    Kookmin(share=1.0).phases(student, w.original, Job(w.request, w.task, seeded(0), CPU))
    norm, before = student[1], w.original[1]  # type: ignore[index]
    assert torch.equal(norm.weight, torch.ones(8))
    assert torch.equal(norm.bias, torch.zeros(8))
    assert torch.equal(norm.running_mean, before.running_mean)
    assert not torch.equal(student[6].weight, w.original[6].weight)  # type: ignore[index]


def test_boosted_gradients_by_hand() -> None:
    """SGD at rate 0.1 on w.x: the marked weight moves ten times as far."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    fresh = {"weight": torch.tensor([[True, False]])}
    recipe = Fit(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=4)

    def loss(model: nn.Module, _: object) -> torch.Tensor:
        return model.weight.sum()  # type: ignore[union-attr, operator, no-any-return]

    phase = Phase(loss, {"all": [(torch.zeros(1, 4, 4), 0)] * 4}, recipe, step=lambda s: boosted(s, fresh, 10.0))
    fit(model, Classification(), phase, seeded(0), CPU)
    assert torch.allclose(model.weight, torch.tensor([[-1.0, -0.1]]))


def test_the_repair_draws_32_for_each_forget_example(samples_world: World) -> None:
    w, session = samples_world, Session(device="cpu")
    Kookmin().unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    (repair,) = session.efforts
    assert 32 * 20 <= repair.passes < 32 * 20 + 128


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_larger_share_changes_more(samples_world: World, share: float) -> None:
    w = samples_world
    student = frozen_copy(w.original).requires_grad_(True)
    Kookmin(share=share).phases(student, w.original, Job(w.request, w.task, seeded(0), CPU))
    changed = sum(int((a != b).sum()) for a, b in zip(student.parameters(), w.original.parameters(), strict=True))
    total = sum(p.numel() for p in student.parameters())
    assert changed / total == pytest.approx(share, abs=0.02)
