"""By hand and by law: ROKA's draw, its siblings, its frozen labels, and what healing is for."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import only, same, whole
from tests.unit.training.test_loop import Killed
from tests.worlds import CPU, World, without_retain
from unrecall.data.batches import Batch
from unrecall.data.examples import Joined
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.errors import BadInput
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.roka import ROKA, draw_example, initial_view, of_classes
from unrecall.models.contribution import contributions, nearest
from unrecall.models.observe import accuracy
from unrecall.scenarios.digits import Digits
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, StepState, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

STEP = Fit(lr=0.02, momentum=0.0, weight_decay=0.0, epochs=1, steps=1, batch_size=160, batchnorm="frozen")
FORMS: tuple[Literal["targeted", "non-targeted"], ...] = ("targeted", "non-targeted")


def both(world: World) -> dict[str, Batch]:
    """All of forget and all of retain, as one step would see them."""
    return {name: whole(world.request[name], world.task) for name in ("forget", "retain")}


def with_loss(method: ROKA, world: World, student: nn.Module, parts: dict[str, Batch], seed: int = 5) -> Tensor:
    """The loss of one step under a seed of its own."""
    (phase,) = method.phases(student, frozen_copy(world.original), Job(world.request, world.task, seeded(0)))
    with own_randomness(seed):
        return phase.loss(student, parts)


def moved(model: nn.Module, amount: float = 0.3) -> nn.Module:
    """A copy whose weights are elsewhere, in eval mode."""
    found = copy.deepcopy(model).eval()
    with torch.no_grad():
        for i, p in enumerate(found.parameters()):
            p.add_(amount * p.std(unbiased=False) * torch.randn(p.shape, generator=seeded(70 + i)))
    return found


# The draw.


def test_a_confident_example_is_always_drawn() -> None:
    losses = torch.tensor([60.0, 0.0, 60.0, 60.0])
    with own_randomness(0):
        assert {int(draw_example(losses)) for _ in range(200)} == {1}


@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_the_draw_is_in_proportion_to_what_is_still_known(offset: float) -> None:
    """Also where each probability is 0 in float32: e^-500."""
    q = torch.tensor([0.5, 0.125, 0.25])
    with own_randomness(1):
        counts = torch.stack([draw_example(offset - q.log()) for _ in range(6000)]).flatten().bincount(minlength=3)
    share = q / q.sum()
    assert torch.allclose(counts / 6000, share, atol=4 * float((0.25 / 6000) ** 0.5))


def test_the_draw_follows_the_seed_and_survives_nan() -> None:
    """Losses that are not finite are for the engine to find."""
    losses = torch.rand(50, generator=seeded(0))
    seen = []
    for seed in (1, 1, 2, 3, 4):
        with own_randomness(seed):
            seen.append(int(draw_example(losses)))
    assert seen[0] == seen[1]
    assert len(set(seen)) > 1
    assert draw_example(torch.full((4,), float("nan"))).shape == (1,)


class Sure(nn.Module):
    """z = W x; the identity knows example k as class k."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs)  # type: ignore[no-any-return]


def test_what_the_model_knows_goes_first() -> None:
    """Of three examples of class 0 one is known and two are not: whatever the seed, the step is ascent on that one."""
    inputs = torch.tensor([[0.0, 40.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 40.0]])
    spare = [(torch.tensor([1.0, 2.0, float(i)]), 1) for i in range(12)]
    forget = [(x, 0) for x in inputs]
    request = Request(forget, spare[:8], spare[8:10], spare[10:], kind="class", masked=(0,))
    q = F.softmax(inputs[1], 0)
    gradient = torch.outer(q - torch.tensor([1.0, 0.0, 0.0]), inputs[1])
    assert gradient.abs().max() > 0.1
    task = Classification(bounds=(0, 40))
    for seed in range(10):
        result: Any = ROKA(alpha=0, fit=STEP).unlearn(Sure(), Job(request, task, seeded(seed), CPU))
        assert torch.allclose(result.head.weight, torch.eye(3) + STEP.lr * gradient, atol=1e-6)


# alpha = 0.


@pytest.mark.parametrize("form", FORMS)
def test_without_healing_a_step_is_ascent_on_one_example(class_world: World, form: Any) -> None:
    w = class_world
    result = ROKA(form=form, alpha=0, fit=STEP).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    batch = whole(w.request.forget, w.task)
    expected = []
    for i in range(len(w.request.forget)):
        model = copy.deepcopy(w.original).eval()
        F.cross_entropy(model(batch["inputs"][i : i + 1]), batch["targets"][i : i + 1]).backward()
        expected.append({name: p + STEP.lr * p.grad for name, p in model.named_parameters() if p.grad is not None})
    fits = [all(torch.allclose(p, one[name], atol=1e-6) for name, p in result.named_parameters()) for one in expected]
    assert sum(fits) == 1
    if form == "non-targeted":
        centroid = initial_view(w.original, w.task, w.request.forget, ()).centroid
        vectors = contributions(w.original, w.task, batch).vectors
        assert fits.index(True) == int(F.cosine_similarity(vectors, centroid[None]).argmax())


@pytest.mark.parametrize("form", FORMS)
def test_without_healing_retain_is_not_read(samples_world: World, form: Any) -> None:
    w = samples_world
    method = ROKA(form=form, alpha=0, neighbours=500, fit=replace(STEP, epochs=3, steps=3))
    assert not same(method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU)), w.original)


# One step by hand.


@pytest.mark.parametrize("neighbours", [6, 100])
@pytest.mark.parametrize("heal", ["pred", "label"])
def test_the_targeted_loss_by_hand(class_world: World, heal: Any, neighbours: int) -> None:
    """With a student that takes half of retain for the forgotten class, so that fewer than 100 neighbours are left."""
    w: Any = class_world
    student: Any = moved(w.original)
    parts = both(w)
    with torch.no_grad():
        z = student(parts["retain"]["inputs"])
        student[6].bias[0] += (z[:, 1:].amax(1) - z[:, 0]).median()
    loss = with_loss(ROKA(alpha=3, neighbours=neighbours, heal=heal, fit=STEP), w, student, parts)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in student.parameters()]

    features = {name: student[:6](one["inputs"]) for name, one in parts.items()}
    z = {name: student[6](h) for name, h in features.items()}
    y = {name: one["targets"] for name, one in parts.items()}
    with own_randomness(5):
        x = int(draw_example(F.cross_entropy(z["forget"], y["forget"], reduction="none")))
    R = {name: h * student[6].weight[y[name]] for name, h in features.items()}
    cosine = F.cosine_similarity(R["retain"], R["forget"][x][None]).detach()
    taken = z["retain"].argmax(1) == 0
    assert 50 < int(taken.sum()) < 70, "of 120"
    siblings = cosine.masked_fill(taken, -2).topk(min(neighbours, int((~taken).sum()))).indices
    wished = z["retain"].argmax(1) if heal == "pred" else y["retain"]
    healing = F.cross_entropy(z["retain"][siblings], wished[siblings])
    by_hand = -F.cross_entropy(z["forget"][x : x + 1], y["forget"][x : x + 1]) + 3 * healing
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)
    for found, expected in zip(gradients, torch.autograd.grad(by_hand, list(student.parameters())), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def mislabelled(world: World) -> World:
    """Forget examples under wrong labels, which the model does not believe."""
    wrong = [(x, (y + 1) % 4) for x, y in world.request.forget]  # type: ignore[attr-defined]
    r = world.request
    return replace(world, request=Request(wrong, r.retain, r.holdout, r.test))


def test_the_non_targeted_loss_by_hand(samples_world: World) -> None:
    """Pseudo-labels and centroid are the original's, however far the student has gone; contributions are its own."""
    w: Any = mislabelled(samples_world)
    student = moved(w.original, 0.8)
    parts = both(w)
    loss = with_loss(ROKA(alpha=2, neighbours=5, fit=STEP), w, student, parts)

    features = {name: student[:6](one["inputs"]) for name, one in parts.items()}
    z = {name: student[6](h) for name, h in features.items()}
    with torch.no_grad():
        before = w.original[:6](parts["forget"]["inputs"])
        pseudo = w.original[6](before).argmax(1)
        centroid = (before * w.original[6].weight[pseudo]).mean(0)
    assert not torch.equal(pseudo, parts["forget"]["targets"])
    assert not torch.equal(pseudo, z["forget"].argmax(1)), "the student says something else by now"
    mine = features["forget"] * student[6].weight[pseudo]
    x = int(F.cosine_similarity(mine, centroid[None]).argmax())
    others = features["retain"] * student[6].weight[parts["retain"]["targets"]]
    siblings = F.cosine_similarity(others, mine[x][None]).topk(5).indices
    healing = F.cross_entropy(z["retain"][siblings], z["retain"][siblings].argmax(1))
    by_hand = -F.cross_entropy(z["forget"][x : x + 1], pseudo[x : x + 1]) + 2 * healing
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_the_non_targeted_form_passes_over_nothing_where_a_class_goes(class_world: World) -> None:
    """By hand, with a student that takes half of retain for the forgotten class: siblings may be of that half."""
    w: Any = class_world
    student: Any = moved(w.original)
    parts = both(w)
    with torch.no_grad():
        z = student(parts["retain"]["inputs"])
        student[6].bias[0] += (z[:, 1:].amax(1) - z[:, 0]).median()
    loss = with_loss(ROKA(form="non-targeted", alpha=3, neighbours=100, fit=STEP), w, student, parts)

    features = {name: student[:6](one["inputs"]) for name, one in parts.items()}
    z = {name: student[6](h) for name, h in features.items()}
    with torch.no_grad():
        before = w.original[:6](parts["forget"]["inputs"])
        pseudo = w.original[6](before).argmax(1)
        centroid = (before * w.original[6].weight[pseudo]).mean(0)
    mine = features["forget"] * student[6].weight[pseudo]
    x = int(F.cosine_similarity(mine, centroid[None]).argmax())
    others = features["retain"] * student[6].weight[parts["retain"]["targets"]]
    siblings = F.cosine_similarity(others, mine[x][None]).topk(100).indices
    said = z["retain"].argmax(1)
    assert 30 < int(said[siblings].eq(0).sum()) < 70, "of 100"
    healing = F.cross_entropy(z["retain"][siblings], said[siblings])
    by_hand = -F.cross_entropy(z["forget"][x : x + 1], pseudo[x : x + 1]) + 3 * healing
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_frozen_labels_and_centroid_are_found_again_by_index(samples_world: World) -> None:
    w = mislabelled(samples_world)
    initial = initial_view(w.original, w.task, w.request.forget, ())
    batch = whole(w.request.forget, w.task)
    order = torch.tensor([7, 2, 19, 0])
    shuffled = {name: value[order] for name, value in batch.items()}
    with torch.no_grad():
        said = w.original.eval()(batch["inputs"]).argmax(1)
    assert torch.equal(initial.labels(shuffled), said[order])  # type: ignore[arg-type]
    again = initial_view(w.original, w.task, w.request.forget, ())
    assert torch.equal(initial.centroid, again.centroid)
    vectors = contributions(w.original, w.task, batch, labels=said).vectors
    assert torch.allclose(initial.centroid, vectors.mean(0), atol=1e-5)


def test_candidates_are_as_many_as_a_batch_of_all_data_would_hold(samples_world: World) -> None:
    """20 of 160 and batches of 16: two candidates, those that come first in the batch."""
    w = samples_world
    parts = both(w)
    method = ROKA(alpha=0, fit=replace(STEP, batch_size=16))
    turned = {name: value.flip(0) for name, value in parts["forget"].items()}
    for batch in (parts["forget"], turned):
        found = with_loss(method, w, copy.deepcopy(w.original).eval(), {"forget": batch}).item()
        two = {name: value[:2] for name, value in batch.items()}
        assert found == with_loss(method, w, copy.deepcopy(w.original).eval(), {"forget": two}).item()


# Siblings.


def test_of_classes_by_hand() -> None:
    """By label, by prediction, and by any of an example's rows."""
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 3, 1, 2])]
    rows = Rows(logits, torch.tensor([0, 3, 2, 2, 1, 2]), torch.tensor([0, 1, 2, 2, 3, 4]), 5)
    assert of_classes(rows, torch.tensor([3])).tolist() == [False, True, True, False, False]
    assert of_classes(rows, torch.tensor([0, 1])).tolist() == [True, True, False, True, False]
    assert not of_classes(rows, torch.tensor([], dtype=torch.long)).any()


def test_siblings_are_never_of_the_forgotten_class(class_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a whole run: none is taken for it, and none is a forget example, for all come from the retain batch."""
    w = class_world
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(query: Tensor, vectors: Tensor, k: int, excluded: Tensor | None = None) -> Tensor:
        found = nearest(query, vectors, k, excluded)
        assert excluded is not None
        seen.append((found, excluded))
        return found

    monkeypatch.setattr("unrecall.methods.roka.nearest", watched)
    ROKA(fit=replace(ROKA().fit, epochs=20, steps=20)).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert len(seen) == 20
    assert all(not excluded[found].any() and len(found) == 8 for found, excluded in seen)
    assert any(excluded.any() for _, excluded in seen)


def test_where_every_neighbour_is_taken_for_the_class_nothing_is_healed(class_world: World) -> None:
    w: Any = class_world
    student = copy.deepcopy(w.original).eval()
    with torch.no_grad():
        student[6].bias[0] = 1e4
    parts = both(w)
    healed = with_loss(ROKA(alpha=10, fit=STEP), w, student, parts)
    assert healed.item() == with_loss(ROKA(alpha=0, fit=STEP), w, student, parts).item()


# The guarantee.


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0, 100.0])
def test_small_steps_raise_the_one_and_lower_the_other_within_their_bounds(class_world: World, alpha: float) -> None:
    """L_s falls where alpha |g_s|^2 > g_f.g_s, L_f rises where |g_f|^2 > alpha g_f.g_s; x_f and siblings held fixed."""
    w: Any = class_world
    parts = {name: {**one, "inputs": one["inputs"].double()} for name, one in both(w).items()}
    for seed in range(6):
        student = moved(w.original, 0.2 * seed).double()
        with own_randomness(seed):
            x = draw_example(contributions(student, w.task, parts["forget"]).rows.losses())
        query = contributions(student, w.task, parts["forget"]).vectors[x[0]]
        retain = contributions(student, w.task, parts["retain"])
        siblings = nearest(query, retain.vectors, 8, of_classes(retain.rows, torch.tensor([0])))
        forgotten = parts["forget"]["inputs"][x], parts["forget"]["targets"][x]
        healed = parts["retain"]["inputs"][siblings], retain.rows.logits[siblings].argmax(1)

        def gradient(one: tuple[Tensor, Tensor], model: nn.Module = student) -> tuple[float, Tensor]:
            value = F.cross_entropy(model(one[0]), one[1])
            found = torch.autograd.grad(value, list(model.parameters()))
            return value.item(), torch.cat([g.flatten() for g in found])

        (f, g_f), (s, g_s) = gradient(forgotten), gradient(healed)
        with_loss(ROKA(alpha=alpha, fit=STEP), w, student, parts, seed).backward()  # type: ignore[no-untyped-call]
        full = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        assert torch.allclose(full, alpha * g_s - g_f)
        with torch.no_grad():
            for p in student.parameters():
                p.sub_(1e-7 * p.grad)
        f_change, s_change = gradient(forgotten)[0] - f, gradient(healed)[0] - s
        product = float(g_f @ g_s)
        assert (f_change > 0) == (float(g_f @ g_f) > alpha * product)
        assert (s_change < 0) == (alpha * float(g_s @ g_s) > product)
        assert s_change < 0 or alpha < 10, "healing wins where alpha is large"
        assert f_change > 0 or product > 0, "and forgetting suffers from it only where the two pull the same way"


# What it is for.


def test_gradient_ascent_collapses_where_healing_holds(class_world: World) -> None:
    """Both forget the class; ascent takes all but one class along."""
    w = class_world
    fit = replace(ROKA().fit, lr=0.01)
    ways = {"ascent": GradAscent(fit=fit), "pred": ROKA(fit=fit), "label": ROKA(heal="label", fit=fit)}
    kept = {}
    for name, method in ways.items():
        result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        assert accuracy(result, w.task, w.request.forget).mean() == 0
        kept[name] = accuracy(result, w.task, w.request.retain).mean()
    before = accuracy(w.original, w.task, w.request.retain).mean()
    assert kept["ascent"] < 0.5
    assert kept["pred"] > before - 0.03
    assert kept["label"] > before


def test_an_undertrained_network_needs_healing_by_labels() -> None:
    """After two epochs on digits: without healing, or healed by its own guesses, the other classes go with class 0."""
    made = Digits(forget="class:0").make()
    request, task = made.request, made.task
    assert made.build is not None
    assert made.recipe is not None
    with own_randomness(0):
        model = made.build(0, CPU)
    whole_data = {"all": Joined([request.forget, request.retain])}
    fit(model, task, Phase(loss_on("all", task), whole_data, replace(made.recipe, epochs=2)), seeded(0), CPU)
    recipe = replace(ROKA().fit, lr=0.01, epochs=100, steps=100)
    kept = {}
    ways = {"none": ROKA(alpha=0, fit=recipe), "pred": ROKA(fit=recipe), "label": ROKA(heal="label", fit=recipe)}
    for name, method in ways.items():
        result = method.unlearn(model, Job(request, task, seeded(0), CPU))
        assert accuracy(result, task, request.forget).mean() < 0.05
        kept[name] = float(accuracy(result, task, request.retain).mean())
    assert kept["none"] < 0.3
    assert kept["pred"] < 0.3
    assert kept["label"] > 0.5


def test_the_form_follows_the_request(class_world: World, samples_world: World) -> None:
    quick = replace(STEP, epochs=3, steps=3)
    for world, form in ((class_world, "targeted"), (samples_world, "non-targeted")):
        usual, named, other = (
            ROKA(form=each, fit=quick).unlearn(world.original, Job(world.request, world.task, seeded(0), CPU))  # type: ignore
            for each in ("auto", form, *(f for f in FORMS if f != form))
        )
        assert same(usual, named)
        assert not same(usual, other)


@pytest.mark.parametrize(("kind", "lr"), [("text", 1e-3), ("pairs", 5e-5)])
@pytest.mark.parametrize("form", FORMS)
def test_forgets_text_and_pairs(request: pytest.FixtureRequest, kind: str, lr: float, form: Any) -> None:
    w: World = request.getfixturevalue(f"{kind}_world")
    recipe = Fit(optimizer="adamw", lr=lr, weight_decay=0.0, epochs=30, steps=30, batch_size=16, clip=1.0)
    result = ROKA(form=form, alpha=1, fit=recipe).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    forget, retain = (
        accuracy(result, w.task, w.request[s]).mean() - accuracy(w.original, w.task, w.request[s]).mean()
        for s in ("forget", "retain")
    )
    assert forget < -0.1
    assert retain > forget


def test_text_by_hand(text_world: World) -> None:
    """The non-targeted loss of one step, from tokens: pseudo-labels are what the original would have written."""
    w: Any = text_world
    items = [w.task.answered(item, "nurse has essen") for item in w.request.forget]
    r = w.request
    world = replace(text_world, request=Request(items, r.retain, r.holdout, r.test))
    student, parts = moved(w.original, 0.1), both(world)
    loss = with_loss(ROKA(alpha=0, fit=STEP), world, student, {"forget": parts["forget"]})

    def rows(model: Any, item: Any) -> tuple[Tensor, Tensor]:
        ids, start = w.task.encode(item)
        found = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, start - 1 : len(ids) - 1]
        return found, model.get_output_embeddings()(found)

    with torch.no_grad():
        pseudo, before, now, costs = [], [], [], []
        for item in items:
            (h, z), (g, own) = rows(w.original, item), rows(student, item)
            pseudo.append(z.argmax(1))
            before.append((h * w.original.get_output_embeddings().weight[pseudo[-1]]).mean(0))
            now.append((g * student.get_output_embeddings().weight[pseudo[-1]]).mean(0))
            costs.append(F.cross_entropy(own, pseudo[-1]))
    x = int(F.cosine_similarity(torch.stack(now), torch.stack(before).mean(0)[None]).argmax())
    assert loss.item() == pytest.approx(-costs[x].item(), rel=1e-4)


def test_pairs_keep_their_mates(pairs_world: World) -> None:
    """A pair's loss is against all of its batch, though contributions and siblings are of single pairs."""
    w = pairs_world
    student, parts = moved(w.original, 0.05), both(w)
    for form in FORMS:
        loss = with_loss(ROKA(form=form, alpha=2, neighbours=4, fit=STEP), w, student, parts)
        found, others = (contributions(student, w.task, parts[name]) for name in ("forget", "retain"))
        centroid = contributions(w.original, w.task, parts["forget"]).vectors.mean(0)
        with own_randomness(5):
            x = draw_example(found.rows.losses()) if form == "targeted" else nearest(centroid, found.vectors, 1)
        siblings = nearest(found.vectors[x[0]], others.vectors, 4)
        z, n = others.rows.logits, len(siblings)
        mine = torch.stack((2 * siblings, 2 * siblings + 1), 1).flatten()
        healing = F.cross_entropy(z[mine], z[mine].argmax(1))
        assert (len(mine), n) == (8, 4)
        assert loss.item() == pytest.approx((2 * healing - found.rows.losses()[x]).item(), rel=1e-3)


# What it needs, and what it remembers.


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (ROKA(neighbours=200, fit=replace(STEP, batch_size=256)), r"retain examples \(140\), got 200"),
        (ROKA(neighbours=17, fit=replace(STEP, batch_size=16)), r"fit.batch_size \(16\)"),
        (ROKA(layers=("4", "neck")), r"got 'neck'. Known: 0, 1, 2, 3, 4, 5, 6\."),
        (ROKA(layers=("4", "neck"), alpha=0), "got 'neck'"),
        (ROKA(fit=replace(ROKA().fit, batchnorm="train")), "fit.batchnorm"),
    ],
)
def test_says_what_is_missing(samples_world: World, method: ROKA, said: str) -> None:
    w = samples_world
    with pytest.raises(BadInput, match=said):
        method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_layers_decide_who_are_siblings(class_world: World) -> None:
    w = class_world
    quick = replace(STEP, epochs=3, steps=3)
    layers: tuple[tuple[str, ...], ...] = ((), ("5",), ("0",), ("0", "5"))
    usual, same_units, early, several = (
        ROKA(layers=each, fit=quick).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU)) for each in layers
    )
    assert same(usual, same_units), "what leaves the last ReLU is what enters the head"
    assert not same(usual, early)
    assert not same(early, several)


@pytest.mark.parametrize("form", FORMS)
def test_killed_and_resumed_gives_the_same_weights(class_world: World, tmp_path: Path, form: Any) -> None:
    w = class_world
    method = ROKA(form=form, fit=replace(STEP, epochs=8, steps=8, batch_size=16))
    session = Session(folder=tmp_path, device="cpu", every=0)

    def run(killed_at: int | None, session: Session) -> nn.Module:
        student, phase = only(method, w)
        steps, ends = iter(range(100)), {killed_at}  # a number itself would be part of the key

        def step(current: StepState) -> Tensor:
            if next(steps) in ends:
                raise Killed
            return phase.step(current)

        fit(student, w.task, replace(phase, step=step), seeded(0), session)
        return student

    with pytest.raises(Killed):
        run(5, session)
    assert list(tmp_path.glob("*.ckpt"))
    assert same(run(None, session), run(None, CPU))
