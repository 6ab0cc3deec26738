"""By hand and by law: OUR, its two ways to destroy features, its replay, and the layers that it looks at."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import same
from tests.worlds import CPU, World, blobs, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Null
from unrecall.methods.our import OUR, overlap, rows_and_features, taps
from unrecall.models.observe import accuracy, batches, observe
from unrecall.scenarios.networks import resnet18
from unrecall.tasks import CausalLM, Classification
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy

TASK = Classification()
HIDDEN = ("4",)
"""The hidden layer of the worlds' network."""


def phases_of(method: OUR, w: World, student: nn.Module | None = None) -> list[Phase]:
    student = copy.deepcopy(w.original) if student is None else student
    return list(method.phases(student, frozen_copy(w.original), Job(w.request, w.task, seeded(0))))


def batch_of(w: World, count: int = 6) -> Batches:
    return {name: next(batches(w.request[name], w.task, count)) for name in ("forget", "retain")}  # type: ignore[index]


# The terms.


def test_the_gram_term_by_hand() -> None:
    """Unit vectors with cosines 0, 0.6 and 0.8: two of each pair, over 3 * 2."""
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [6.0, 8.0]])
    assert overlap(features).item() == pytest.approx(2 * (0 + 0.36 + 0.64) / 6)
    assert overlap(torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert overlap(torch.ones(5, 3)).item() == pytest.approx(1)
    assert overlap(torch.ones(1, 3)).item() == pytest.approx(0, abs=1e-6), "one example has nothing to differ from"


def test_the_loss_of_the_class_form_by_hand(class_world: World) -> None:
    """Cross-entropy to another class than 0, whichever was drawn, and twice the Gram term of one layer."""
    w, batch = class_world, batch_of(class_world)
    model = copy.deepcopy(w.original)
    loss = phases_of(OUR(layers=HIDDEN), w, model)[0].loss
    hidden = model[:5](batch["forget"]["inputs"])  # type: ignore[index]
    unit = hidden / hidden.norm(dim=1, keepdim=True)
    gram = sum(((unit[i] @ unit[j]) - float(i == j)) ** 2 for i in range(6) for j in range(6)).item() / 30
    log_p = F.log_softmax(model(batch["forget"]["inputs"]), 1)
    found = [loss(model, batch).item() - 2 * gram for _ in range(20)]
    worst, best = -log_p[:, 1:].min(1).values.mean().item(), -log_p[:, 1:].max(1).values.mean().item()
    assert all(best - 1e-4 <= one <= worst + 1e-4 for one in found)
    assert len({round(one, 4) for one in found}) > 1, "labels are drawn anew"
    plain = phases_of(OUR(layers=HIDDEN, spread=0.0), w, model)[0].loss
    assert best - 1e-4 <= plain(model, batch).item() <= worst + 1e-4


def test_the_loss_of_the_sample_form_by_hand(samples_world: World) -> None:
    """Without labels it is the sum over layers of the mean squared cosine to the original's features."""
    w, batch = samples_world, batch_of(samples_world)
    model = copy.deepcopy(w.retrained[0]).eval()
    loss = phases_of(OUR(layers=("0", "4"), label_weight=0.0, gamma=3.0), w, model)[0].loss
    expected = 0.0
    for depth in (1, 5):
        now, past = (m[:depth](batch["forget"]["inputs"]).flatten(1) for m in (model, w.original))  # type: ignore[index]
        expected += (((now * past).sum(1) / now.norm(dim=1) / past.norm(dim=1)) ** 2).mean().item()
    assert loss(model, batch).item() == pytest.approx(3 * expected, rel=1e-4)
    model = copy.deepcopy(w.original)
    unmoved = phases_of(OUR(layers=("0", "4"), label_weight=0.0), w, model)[0].loss
    assert unmoved(model, batch).item() == pytest.approx(2, rel=1e-5), "every cosine is 1 at the start"


def test_random_labels_may_be_the_true_ones_in_the_sample_form_alone(samples_world: World) -> None:
    """A model that is sure of class 0: a loss of 0 is a label of 0."""
    w = samples_world
    batch = {"forget": {**batch_of(w, 1)["forget"], "targets": torch.zeros(1, dtype=torch.long)}}

    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(16, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tensor([[50.0, 0.0, 0.0, 0.0]]) + 0 * self.inner(inputs.flatten(1))

    lowest = {}
    for form in ("sample", "class"):
        model = Sure()
        method = OUR(form=form, layers=("inner",), gamma=0.0, label_weight=1.0, spread=0.0)  # type: ignore[arg-type]
        phase = method.phases(model, frozen_copy(model), Job(w.request, w.task, seeded(0)))[0]
        lowest[form] = min(phase.loss(model, batch).item() for _ in range(40))
    assert lowest["sample"] == pytest.approx(0, abs=1e-4)
    assert lowest["class"] == pytest.approx(50)


def test_the_penalty_by_hand(class_world: World) -> None:
    w, batch = class_world, batch_of(class_world)
    model = copy.deepcopy(w.original).eval()
    for p in model[0].parameters():  # type: ignore[index]
        p.requires_grad_(False)
    with_, without = (phases_of(OUR(l1=l1), w)[1].loss(model, batch).item() for l1 in (0.5, 0.0))
    own = F.cross_entropy(model(batch["retain"]["inputs"]), batch["retain"]["targets"]).item()
    assert without == pytest.approx(own)
    absolute = sum(p.abs().sum().item() for name, p in model.named_parameters() if not name.startswith("0."))
    assert with_ - without == pytest.approx(0.5 * absolute, rel=1e-4)


# The phases.


def recipe_of(phase: Phase) -> tuple[object, ...]:
    fit = phase.fit
    return tuple(phase.streams), fit.optimizer, fit.lr, fit.weight_decay, fit.batch_size, fit.epochs


def test_the_recipes_are_the_tables(samples_world: World, class_world: World) -> None:
    table = {
        "sample": [
            (("forget",), "adamw", 0.0012, 1e-4, 64, 6),
            (("retain",), "sgd", 0.04, 5e-4, 256, 3),
            (("retain",), "sgd", 0.02, 5e-4, 256, 1),
            (("retain",), "sgd", pytest.approx(0.008), 5e-4, 256, 2),
        ],
        "class": [
            (("forget",), "adam", 0.0012, 0.0, 128, 3),
            (("retain",), "sgd", 0.005, 5e-4, 64, 3),
            (("retain",), "sgd", 0.0025, 5e-4, 64, 2),
            (("retain",), "sgd", 0.001, 5e-4, 64, 1),
        ],
    }
    for w, form in ((samples_world, "sample"), (class_world, "class")):
        assert [recipe_of(phase) for phase in phases_of(OUR(), w)] == table[form]
        assert [recipe_of(phase) for phase in phases_of(OUR(form="class"), w)] == table["class"]
        assert [recipe_of(phase) for phase in phases_of(OUR(form="sample"), w)] == table["sample"]
        own, plain = (
            [phase.loss(w.original, batch_of(w)).item() for phase in phases_of(OUR(l1=l1), w)[1:]] for l1 in (1e-2, 0.0)
        )
        penalised = [mine > other + 1e-3 for mine, other in zip(own, plain, strict=True)]
        assert penalised == ([True, False, False] if form == "sample" else [True, True, True])


def test_each_forms_rates_scale_together() -> None:
    doubled = OUR().scaled(2.0)
    assert (doubled.destroy.lr, doubled.destroy_class.lr) == (0.0024, 0.0024)
    assert (doubled.replay, doubled.replay_class) == (OUR().replay, OUR().replay_class)


# The layers.


def test_the_usual_layers() -> None:
    """ResNet-18's are the paper's: the last blocks of conv3_x, conv4_x and conv5_x; a text model's are its last."""
    assert taps(TASK, resnet18()) == ("1.layers.1.1", "1.layers.2.1", "1.layers.3.1")
    texts = CausalLM(word_tokenizer(), template=None)
    assert taps(texts, small_llama(len(texts.tokenizer))) == ("model.layers.0", "model.layers.1")
    with pytest.raises(NotSupported, match="OUR: expected a layer before the head"):
        taps(TASK, nn.Sequential(nn.Flatten(), nn.Linear(16, 4)))


def test_a_layer_that_is_not_there_is_named_with_those_that_are(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(BadInput, match=r"got 'layer9'\. Known: 0, 1, 2, 3, 4, 5, 6\."):
        OUR(layers=("4", "layer9")).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_a_layer_without_a_row_an_example_is_refused(samples_world: World) -> None:
    w = samples_world

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.idle, self.head = nn.Flatten(0, 1), nn.Linear(2, 2), nn.Linear(16, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.odd(inputs.expand(-1, 3, -1, -1))[::3].flatten(1))  # type: ignore[no-any-return]

    for layer, got in (("odd", r"\(60, 4, 4\)"), ("idle", "nothing")):
        with pytest.raises(NotSupported, match=rf"OUR: expected '{layer}' to give out \[20 examples, ...\], got {got}"):
            OUR(layers=(layer,)).unlearn(Folded(), Job(w.request, w.task, seeded(0), CPU))


def test_texts_are_pooled_over_what_is_no_padding() -> None:
    """A text alone and beside a longer one has the same features."""
    task = CausalLM(word_tokenizer(), template=None)
    model = small_llama(len(task.tokenizer)).eval()
    short = {"prompt": "what is the job of ann", "answer": "baker"}
    long = {"prompt": "what is the job of bob", "answer": "baker cook diver farmer"}
    layers = {"model.layers.0": model.model.layers[0]}  # type: ignore[union-attr,index]
    with torch.no_grad():
        alone = rows_and_features(model, layers, task, task.collate([short]))[1][0]
        beside = rows_and_features(model, layers, task, task.collate([short, long]))[1][0]
    assert alone.shape == (1, 32)
    assert torch.allclose(alone[0], beside[0], atol=1e-5)


# What it does.


def cosine(w: World, model: nn.Module) -> float:
    """Mean squared cosine between the features of forget under the model and under the original."""
    batch = next(batches(w.request.forget, w.task))["inputs"]
    with torch.no_grad():
        now, past = (m[:5](batch) for m in (model.eval(), w.original))  # type: ignore[index]
    return F.cosine_similarity(now, past, 1).square().mean().item()


def test_the_cosine_falls(samples_world: World) -> None:
    w, student = samples_world, copy.deepcopy(samples_world.original)
    destroy, *_ = phases_of(OUR(destroy=replace(OUR().destroy, batch_size=8, lr=5e-3)), w, student)
    assert cosine(w, student) == pytest.approx(1, abs=1e-5)
    fit(student, w.task, destroy, seeded(0), CPU)
    assert cosine(w, student) < 0.4


def test_features_of_a_class_scatter(class_world: World) -> None:
    """By the Gram term, and not by other labels alone."""
    w, inputs = class_world, next(batches(class_world.request.forget, class_world.task))["inputs"]

    def overlapping(model: nn.Module) -> float:
        with torch.no_grad():
            return overlap(model.eval()[:5](inputs)).item()  # type: ignore[index]

    found = {}
    for spread in (0.0, 2.0):
        student = copy.deepcopy(w.original)
        recipe = replace(OUR().destroy_class, batch_size=8, epochs=12)
        destroy, *_ = phases_of(OUR(spread=spread, destroy_class=recipe), w, student)
        fit(student, w.task, destroy, seeded(0), CPU)
        found[spread] = overlapping(student)
    assert found[2.0] < 0.6 * min(overlapping(w.original), found[0.0])


def test_a_class_is_forgotten_and_the_rest_replayed(class_world: World) -> None:
    w = class_world
    quick = Fit(lr=0.02, batch_size=16)
    method = OUR(destroy_class=replace(OUR().destroy_class, lr=5e-3, batch_size=8), replay_class=quick)
    result = method.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    assert observe(result, w.task, w.request.forget).confidence.mean() < 0.2
    assert accuracy(result, w.task, w.request.retain).mean() > 0.9
    assert not any(module._forward_hooks for module in result.modules())


def test_at_rate_zero_no_weight_moves(samples_world: World) -> None:
    w = samples_world
    null = Null(OUR()).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before = dict(w.original.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in null.named_parameters())


def test_the_seed_decides(samples_world: World) -> None:
    w = samples_world
    first, again, other = (OUR().unlearn(w.original, Job(w.request, w.task, seeded(s), CPU)) for s in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_concepts_are_unlearned_as_samples(samples_world: World) -> None:
    r = samples_world.request
    concept = Request(r.forget, blobs(8, 4, 8), r.holdout, r.test, kind="concept")
    model = copy.deepcopy(samples_world.original)
    first = OUR().phases(model, frozen_copy(model), Job(concept, TASK, seeded(0)))[0]
    assert first.fit == OUR().destroy
