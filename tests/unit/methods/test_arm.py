"""By hand and by law: ARM's replays, what they are made by, and a base that never sees retain."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.methods.test_distillation import same, whole
from tests.worlds import CPU, World, without_retain
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.arm import ARM, Memory, SealedRetain, replay_loss, total_variation, with_sealed_retain
from unrecall.methods.base import GradientMethod, Null
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.npo import NPO
from unrecall.methods.scrub import SCRUB
from unrecall.models.observe import accuracy
from unrecall.spec.lines import parse, show
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

NOTHING = ARM(disagreement=0.0, diversity=0.0, avoid_old=0.0, avoid_new=0.0, sharpness=0.0, variation=0.0, length=0.0)
OLD, NEW = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log(), torch.tensor([[0.5, 0.5], [0.4, 0.6]]).log()
INPUTS = torch.tensor([[3.0, 4.0], [0.0, 0.0]])

# What replays are made by.

M = (0.65, 0.35)
APART = sum(m * math.log(m / p) + m * math.log(m / q) for m, p, q in zip(M, (0.8, 0.2), (0.5, 0.5), strict=True)) / 2

PARTS: dict[str, float] = {
    "disagreement": 1 - APART / 2,  # the second example's answers agree
    "diversity": 0.6 * math.log(0.6) + 0.4 * math.log(0.4),
    "avoid_old": (math.log(0.2) + math.log(0.6)) / 2,
    "avoid_new": (math.log(0.5) + math.log(0.6)) / 2,
    "sharpness": -(math.log(0.8) + math.log(0.6)) / 2,
    "variation": 2 * (1 + 0) / 2,
    "length": (5 + 0) / 2 / 2,
}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_by_hand(part: str) -> None:
    """p_0 is (.8, .2), (.4, .6), p (.5, .5), (.4, .6); class 1 is in the batch; inputs (3, 4), (0, 0)."""
    loss = replay_loss(replace(NOTHING, **{part: 2.0}), INPUTS, (OLD, NEW), torch.tensor([1]))
    assert loss.item() == pytest.approx(2 * PARTS[part], abs=1e-6)


def test_all_parts_together_and_several_classes() -> None:
    loss = replay_loss(ARM(), INPUTS, (OLD, NEW), torch.tensor([0, 1]))
    both = {"avoid_old": OLD.mean().item(), "avoid_new": NEW.mean().item()}
    expected = sum(getattr(ARM(), name) * value for name, value in {**PARTS, **both}.items())
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_total_variation_by_hand() -> None:
    """Rows (0, 1), (3, 0): down 3 and -1, squares 9 and 1; across 1 and -3, squares 1 and 9: 2 (5 + 5)."""
    assert total_variation(torch.tensor([[[[0.0, 1.0], [3.0, 0.0]]]])).item() == 20
    assert total_variation(torch.ones(3, 1)).item() == 0


def test_a_class_that_nobody_says_gives_no_nan() -> None:
    old = torch.tensor([[500.0, 0.0], [500.0, 0.0]], requires_grad=True)
    loss = replay_loss(ARM(), INPUTS, (old, NEW), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(loss, old)
    assert bool(torch.isfinite(loss) & torch.isfinite(gradient).all())


# Replays.


def plane() -> nn.Linear:
    """Logits of three classes in the plane: (x_1, x_2, 0)."""
    model = nn.Linear(2, 3, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    return model


def plane_job(**more: Any) -> Job:
    """Bounds 4 apart, so that 1 of a normalised input is 1."""
    sets = [[(torch.tensor([0.1 * i, 1.0 + k]), 1) for i in range(3)] for k in range(4)]
    sets[0] = [(torch.tensor([0.5, 1.0]), 0), (torch.tensor([1.0, -0.5]), 0)]
    return Job(Request(*sets, **more), Classification(bounds=(-2.0, 2.0)), seeded(0))


def test_a_step_by_hand() -> None:
    """Of length alone: d(mean ||x|| / d)/dx = x / (||x|| n d), so that (0.5, 1) of two goes 0.1 / 4 of its length."""
    job = plane_job()
    method = replace(NOTHING, length=1.0, steps=1, rate=0.1)
    memory = Memory(method, frozen_copy(plane()), job, 2)
    recalled = memory.recall(plane(), whole(job.request.forget, job.task))
    before = torch.tensor([[0.5, 1.0], [1.0, -0.5]])
    expected = before * (1 - 0.025 / before.norm(dim=1, keepdim=True))
    found = recalled.batch["inputs"]
    order = [0, 1] if found[0, 0] < found[1, 0] else [1, 0]
    assert torch.allclose(found[order], expected)
    assert recalled.batch["targets"][order].tolist() == [1, 0], "what the original says of them"
    assert torch.allclose(recalled.answers[:, 2], torch.zeros(2))


def test_replays_leave_the_classes_of_forget_and_go_where_models_part() -> None:
    """Both forget examples are of class 0."""
    job = plane_job()
    memory = Memory(replace(NOTHING, avoid_old=1.0, steps=20), frozen_copy(plane()), job, 2)
    recalled = memory.recall(plane(), whole(job.request.forget, job.task))
    assert not recalled.batch["targets"].eq(0).any()
    student = plane()
    with torch.no_grad():
        student.weight[1] = torch.tensor([0.0, -1.0])
    memory = Memory(replace(NOTHING, disagreement=1.0, steps=20), frozen_copy(plane()), job, 2)
    recalled, batch = memory.recall(student, whole(job.request.forget, job.task)), whole(job.request.forget, job.task)
    apart = [(plane()(x) - student(x)).abs().sum() for x in (recalled.batch["inputs"], batch["inputs"])]
    assert apart[0] > apart[1]


def test_forgotten_classes_are_no_answer() -> None:
    job = plane_job(kind="class", masked=(0,))
    recalled = Memory(ARM(steps=0), frozen_copy(plane()), job, 2).recall(plane(), whole(job.request.forget, job.task))
    assert bool(recalled.answers[:, 0].eq(float("-inf")).all())
    assert not recalled.batch["targets"].eq(0).any()


@pytest.mark.parametrize("most", [3, 7, 20, 60])
def test_as_many_replays_as_a_batch_of_retain_would_hold(samples_world: World, most: int) -> None:
    """Of 20 forget examples each once where there are enough."""
    w = samples_world
    job = Job(w.request, w.task, seeded(0))
    forget = whole(w.request.forget, w.task)
    memory = Memory(ARM(steps=0), frozen_copy(w.original), job, most)
    batch = memory.recall(w.original, forget).batch
    assert len(batch["inputs"]) == len(batch["targets"]) == most
    assert "index" not in batch, "places in forget are no places in retain"
    assert all((forget["inputs"] == x).flatten(1).all(1).any() for x in batch["inputs"])
    assert len(batch["inputs"].flatten(1).unique(dim=0)) == most or most > 20


def test_replays_stay_within_the_bounds(samples_world: World) -> None:
    """However long a step."""
    w = samples_world
    memory = Memory(ARM(rate=1e6), frozen_copy(w.original), Job(w.request, w.task, seeded(0)), 8)
    inputs = memory.recall(w.original, whole(w.request.forget, w.task)).batch["inputs"]
    assert set(inputs.flatten().tolist()) <= {0.0, 1.0}


def test_noise_is_uniform_within_the_bounds(samples_world: World) -> None:
    w = samples_world
    task = Classification(bounds=(-1.0, 3.0))
    memory = Memory(ARM(steps=0, start="noise"), frozen_copy(w.original), Job(w.request, task, seeded(0)), 500)
    inputs = memory.recall(w.original, whole(w.request.forget, task)).batch["inputs"]
    assert (inputs.min() >= -1) & (inputs.max() <= 3)
    assert inputs.mean().item() == pytest.approx(1, abs=0.1)
    assert inputs.std().item() == pytest.approx(4 / math.sqrt(12), abs=0.05)


def test_recalling_changes_no_model(samples_world: World) -> None:
    w = samples_world
    student, original = frozen_copy(w.original).requires_grad_(True).train(), frozen_copy(w.original)
    Memory(ARM(), original, Job(w.request, w.task, seeded(0)), 8).recall(student, whole(w.request.forget, w.task))
    assert same(student, w.original)
    assert all(module.training for module in student.modules())
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


# Around a base.


def phase_of(method: GradientMethod, world: World, seed: int = 0) -> Phase:
    student = frozen_copy(world.original).requires_grad_(True)
    (phase,) = method.phases(student, frozen_copy(world.original), Job(world.request, world.task, seeded(seed)))
    return phase


def test_loss_by_hand(samples_world: World) -> None:
    """The base's with replays for retain, and KL of the original's answers."""
    w, base = samples_world, NegGradPlus(beta=0.3)
    student = frozen_copy(w.original)
    with torch.no_grad():
        student[6].weight += 0.3  # type: ignore[index]
    forget = whole(w.request.forget, w.task)
    job = Job(w.request, w.task, seeded(3))
    recalled = Memory(ARM(), frozen_copy(w.original), job, 128).recall(student, forget)
    said = student(recalled.batch["inputs"])
    on_replays = F.cross_entropy(said, w.original(recalled.batch["inputs"]).argmax(1))
    soft = F.kl_div(said.log_softmax(1), recalled.answers.log_softmax(1), log_target=True, reduction="batchmean")
    expected = on_replays - 0.3 * F.cross_entropy(student(forget["inputs"]), forget["targets"]) + 2 * soft
    phase = phase_of(ARM(base, distill=2.0), w, seed=3)
    assert list(phase.streams) == ["forget"]
    assert phase.loss(student, {"forget": forget}).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("base", [NPO(), NegGradPlus(), GradDiff(), Finetune(), parse("random_label", "methods")])
def test_no_retain_example_is_read(samples_world: World, base: GradientMethod) -> None:
    """Whoever reads one fails; as many steps are taken as with retain, but the null's none that move weights."""
    w, steps = samples_world, []
    short: Any = replace(base, fit=replace(base.fit, epochs=2, batch_size=16))  # type: ignore[attr-defined, call-arg]
    for method, request in ((short, w.request), (ARM(short, steps=2), without_retain(w))):
        session = Session(device="cpu")
        result = method.unlearn(w.original, Job(request, w.task, seeded(0), session))
        steps.append(session.efforts[-1].steps)
        assert not same(result, w.original)
    assert steps[0] == steps[1]
    null = Null(ARM(short, steps=2)).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    assert same(null, w.original), "statistics too"


@pytest.mark.parametrize("base", [SCRUB(), GradDiff(hold="kl"), parse("bad_teacher", "methods")])
def test_a_base_that_reads_retain_beforehand_is_refused(samples_world: World, base: GradientMethod) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="ARM: expected a base that reads retain batch by batch"):
        ARM(base).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))


@pytest.mark.parametrize("base", [GradAscent(), NPO(retain_weight=0.0)])
def test_a_base_that_reads_no_retain_is_refused(samples_world: World, base: GradientMethod) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match=r"ARM: expected a base that reads retain, got .*neggrad_plus"):
        ARM(base).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_refuses_texts_and_pairs_by_name(text_world: World, pairs_world: World) -> None:
    for w, expected in ((text_world, "continuous inputs, got CausalLM"), (pairs_world, "one class each and nothing")):
        with pytest.raises(NotSupported, match=f"ARM: expected .*{expected}.*Use the base with retain data"):
            ARM().unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_sealed_retain_is_counted_and_the_request_stays(samples_world: World) -> None:
    w = samples_world
    sealed = with_sealed_retain(w.request)
    assert isinstance(sealed.retain, SealedRetain)
    assert len(sealed.retain) == len(w.request.retain)
    assert len(sealed.test) == len(sealed.holdout) == 0
    assert len(w.request.retain[0]) == 2, "the request that was given is as it was"


def test_lines_go_there_and_back() -> None:
    method = parse("arm(neggrad_plus:beta=0.1):start=noise,steps=0", "methods")
    assert method == ARM(NegGradPlus(beta=0.1), start="noise", steps=0)
    assert show(method) == "arm(neggrad_plus:beta=0.1):start=noise,steps=0"
    assert show(method.scaled(2.0)) == "arm(neggrad_plus:beta=0.2):start=noise,steps=0"
    with pytest.raises(BadInput, match="ARM: expected start to be"):
        parse("arm:start=nowhere", "methods")


def test_replays_hold_retain_better_than_nothing(class_world: World) -> None:
    """The same ascent on a class, until it is gone, with nothing beside it and with replays."""
    w, known = class_world, []
    fit = Fit(lr=3e-3, weight_decay=0.0, epochs=30, batch_size=20, batchnorm="frozen")
    for method in (NPO(retain_weight=0.0, fit=fit), ARM(NPO(fit=fit), distill=10.0)):
        result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
        assert float(accuracy(result, w.task, w.request.forget).mean()) < 0.1
        known.append(float(accuracy(result, w.task, w.request.retain).mean()))
    assert known[1] > known[0] + 0.2
