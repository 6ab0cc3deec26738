"""By hand and by law: what attribution and the logit lens see, and how all models are laid beside each other."""

import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.methods.test_distillation import same, whole
from tests.worlds import CPU, World, network
from unrecall.attacks.attribution import Attribution, variation
from unrecall.attacks.inspection import Inspection, InspectionAttack
from unrecall.attacks.logit_lens import LogitLens
from unrecall.data.batches import Batch
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.inspection import copy_that_hides, inspection_finding
from unrecall.models.influence import NeuronInfluence, neuron_influence, probability
from unrecall.models.observe import accuracy, observe
from unrecall.nn.hooks import shortcut
from unrecall.record.schema import Estimate
from unrecall.tasks import Classification
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded

# The influence of neurons.


class Summed(nn.Module):
    """P of class 0 is the sum of three neurons h = W x, or of each position's three; the head has no part in it."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 3, bias=False)
        self.head = nn.Linear(1, 1)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.tensor(weights)[:, None])

    def forward(self, inputs: Tensor) -> Tensor:
        p = self.hidden(inputs[..., None] if inputs.ndim == 2 and inputs.shape[1] > 1 else inputs).flatten(1).sum(1)
        return torch.stack([p, 1 - p], 1).log()


class Headed(Classification):
    """Its models name their head; inputs of more than one number have that many positions, the last `padding` empty."""

    padding = 0

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        return model.head  # type: ignore[return-value]

    def positions(self, batch: Batch) -> Tensor | None:
        held = torch.ones_like(batch["inputs"], dtype=torch.bool)
        held[:, held.shape[1] - self.padding :] = False
        return held if self.padding else None


def look(attack: InspectionAttack, model: nn.Module, original: nn.Module, request: Request, task: Task) -> Inspection:
    return attack.inspect(model, Setting(Models(original, model), request, task, 0, CPU))


def compared(
    weights: list[float], before: list[float], request: Request, attack: Attribution | None = None
) -> Inspection:
    """What the formula gives, whether or not anything was forgotten."""
    models = Models(Summed(before), Summed(weights))
    return (attack or Attribution()).compared(models.unlearned, Setting(models, request, Headed(), 0, CPU))[0]


def setting_of(world: World, *retrained: nn.Module, unlearned: nn.Module | None = None, null: bool = False) -> Setting:
    models = Models(world.original, unlearned or world.original, retrained, world.original if null else None)
    return Setting(models, world.request, world.task, 0, CPU)


def asked(*inputs: list[float]) -> Batch:
    return {"inputs": torch.tensor(inputs), "targets": torch.zeros(len(inputs), dtype=torch.long)}


def test_influence_of_neurons_is_complete() -> None:
    """dP/dh = 1, so A_i = h_i, and their sum is P; each example has its own."""
    found = neuron_influence(Summed([0.1, 0.4, -0.2]), Headed(), asked([1.0], [2.0]))
    assert torch.allclose(found.highest, torch.tensor([[0.1, 0.4, -0.2], [0.2, 0.8, -0.4]]))
    assert torch.equal(found.highest, found.lowest)
    assert torch.allclose(found.highest.sum(1), found.probability)
    logs = neuron_influence(Summed([0.1, 0.4, -0.2]), Headed(), asked([1.0], [2.0]), "log")
    assert torch.allclose(logs.highest, found.highest / found.probability[:, None])


def test_positions_without_input_do_not_count() -> None:
    """Three positions with inputs 1, 3 and -2, of which the last holds none."""
    task, model = Headed(), Summed([0.1, 0.05, -0.02])
    given = asked([1.0, 3.0, -2.0])
    everywhere = neuron_influence(model, task, given)
    assert torch.allclose(everywhere.lowest, torch.tensor([[-0.2, -0.1, -0.06]]))
    task.__class__ = type("Padded", (Headed,), {"padding": 1})
    found = neuron_influence(model, task, given)
    assert torch.allclose(found.highest, torch.tensor([[0.3, 0.15, -0.02]]))
    assert torch.allclose(found.lowest, torch.tensor([[0.1, 0.05, -0.06]]))


def test_influence_in_a_language_model(text_world: World) -> None:
    """Value projection of the first layer, by a hook and a gradient of one example alone; padding changes nothing."""
    w: Any = text_world
    model = w.original
    items = [{"prompt": "what", "answer": "baker"}, w.request.forget[0]]
    batch = w.task.collate(items)
    found = neuron_influence(model, w.task, batch)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    assert len(names) == 2 * 7, "Q, K, V, O, gate, up and down"
    sizes = [model.get_submodule(name).out_features for name in names]
    assert found.highest.shape == (2, sum(sizes))
    chosen = next(i for i, name in enumerate(names) if name.endswith("layers.0.self_attn.v_proj"))
    begin = sum(sizes[:chosen])
    for i, item in enumerate(items):
        kept: list[Tensor] = []
        handle = model.get_submodule(names[chosen]).register_forward_hook(lambda m, a, o, kept=kept: kept.append(o))
        alone = w.task.collate([item])
        ids, targets = alone["tokens"][0], alone["targets"][0]
        told = model(input_ids=alone["tokens"]).logits[0].softmax(1)
        handle.remove()
        p = torch.stack([told[k - 1, ids[k]] for k in range(len(ids)) if targets[k] >= 0]).prod()
        product = kept[0].detach() * torch.autograd.grad(p, kept[0])[0]
        assert p.item() == pytest.approx(float(found.probability[i]), rel=1e-4)
        size = 1e-3 * float(product.abs().max())
        part = slice(begin, begin + sizes[chosen])
        assert torch.allclose(found.highest[i, part], product[0].amax(0), rtol=1e-3, atol=size)
        assert torch.allclose(found.lowest[i, part], product[0].amin(0), rtol=1e-3, atol=size)


def test_influence_leaves_no_trace(text_world: World) -> None:
    w = text_world
    model = copy.deepcopy(w.original).train()
    model.zero_grad()
    next(model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    hooks = [list(m._forward_hooks) for m in model.modules()]  # Transformers may have left some of its own
    neuron_influence(model, w.task, whole(w.request.forget, w.task))
    assert same(model, w.original)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(m.training for m in model.modules())
    assert [list(m._forward_hooks) for m in model.modules()] == hooks


def test_influence_where_layers_work_in_place(samples_world: World) -> None:
    """What a ReLU does in place to a neuron does not change what the neuron was."""
    w = samples_world
    model = copy.deepcopy(w.original)
    model[5] = nn.ReLU(inplace=True)  # type: ignore[operator]
    batch = whole(w.request.forget, w.task)
    expected, found = (neuron_influence(m, w.task, batch) for m in (w.original, model))
    assert torch.equal(expected.highest, found.highest)


def test_influence_needs_linear_layers(samples_world: World) -> None:
    w = samples_world
    model = nn.Sequential(nn.Conv2d(1, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(NotSupported, match="linear layers before the head"):
        neuron_influence(model, w.task, whole(w.request.forget, w.task))


# Variations.


@pytest.mark.parametrize(
    ("before", "after", "positive", "negative"),
    [
        (0.3, 0.3, 0.0, 0.0),  # nothing changed
        (0.3, 0.0, 0.3, 0.0),  # erased: all the support there was
        (0.0, -0.2, 0.0, 0.2),  # hidden: resistance that was not there
        (0.3, -0.2, 0.3, 0.2),  # a flip erases no more than there was
        (-0.2, -0.5, 0.0, 0.3),  # more resistance
        (-0.2, 0.1, -0.1, -0.2),  # resistance gone, support new: cut at 0 once the mean is taken
    ],
)
def test_variation_by_hand(before: float, after: float, positive: float, negative: float) -> None:
    given = [NeuronInfluence(torch.tensor([[v]]), torch.tensor([[v]]), torch.ones(1)) for v in (before, after)]
    found = variation(*given)
    assert float(found.positive) == pytest.approx(positive, abs=1e-7)
    assert float(found.negative) == pytest.approx(negative, abs=1e-7)


def test_variation_takes_the_highest_and_the_lowest_position() -> None:
    """Before (0.5, -0.1), after (0.2, -0.4): 0.3 of support went, 0.3 of resistance came."""
    first = NeuronInfluence(torch.tensor([[0.5]]), torch.tensor([[-0.1]]), torch.ones(1))
    last = NeuronInfluence(torch.tensor([[0.2]]), torch.tensor([[-0.4]]), torch.ones(1))
    found = variation(first, last)
    assert (float(found.positive), float(found.negative)) == (pytest.approx(0.3), pytest.approx(0.3))


def plain(n: int = 4) -> Request:
    """Inputs of 1, 1.01 ..., all of class 0."""
    data = [(torch.tensor([1.0 + i / 100]), 0) for i in range(n + 3)]
    return Request(data[:n], data[n : n + 1], data[n + 1 : n + 2], data[n + 2 :])


@pytest.mark.parametrize(
    ("weights", "erased", "hidden"),
    [
        ([0.2, 0.0, 0.3], [0.2, 0.2, 0.2], [0.0, 0.0, 0.0]),  # the second neuron, 0.2 before, is gone
        ([0.1, 0.2, 0.3], [0.1, 0.1, 0.1], [0.0, 0.0, 0.0]),
        ([0.2, -0.1, 0.25], [0.2, 0.25, 0.25], [0.1, 0.1, 0.1]),
        ([0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),  # more support is neither
    ],
)
def test_lines_and_share_by_hand(weights: list[float], erased: list[float], hidden: list[float]) -> None:
    """Neurons of 0.2, 0.2 and 0.3; sums of the 1, 2 and 3 largest variations, times the mean input."""
    request, mean = plain(), 1.015
    found = compared(weights, [0.2, 0.2, 0.3], request)
    assert found.x == (1, 2, 3)
    assert found.lines["positive"] == pytest.approx([mean * v for v in erased], abs=1e-6)
    assert found.lines["negative"] == pytest.approx([mean * v for v in hidden], abs=1e-6)
    total = erased[-1] + hidden[-1]
    assert found.value.n == 4
    if total:
        assert found.value.value == pytest.approx(hidden[-1] / total, abs=1e-6)
    else:
        assert found.value.value is None
        assert "nothing changed" in found.value.note


def test_share_is_of_the_largest_alone() -> None:
    """D+ (0.2, 0.1, 0), D- (0, 0, 0.1): a third of the largest of each, a quarter of all."""
    given = Summed([0.1, 0.2, -0.1]), Summed([0.3, 0.3, 0.0]), plain(), Headed()
    assert look(Attribution(top=1), *given).value.value == pytest.approx(1 / 3, abs=1e-6)
    assert look(Attribution(), *given).value.value == pytest.approx(1 / 4, abs=1e-6)


def test_interval_of_the_share() -> None:
    """Examples that differ by their input alone have one share: that they agree is no measure of how sure it is."""
    after, before, request = Summed([0.1, 0.2, -0.1]), Summed([0.2, 0.2, 0.1]), plain()
    found = look(Attribution(), after, before, request, Headed()).value
    assert found.value == pytest.approx(1 / 3, abs=1e-6)
    assert (found.low, found.high) == (None, None)
    single = look(Attribution(), after, before, replace(request, forget=[request.forget[0]]), Headed()).value
    assert (single.value, single.low, single.n) == (pytest.approx(1 / 3, abs=1e-6), None, 1)


def test_the_original_shows_nothing_beside_itself(text_world: World) -> None:
    w = text_world
    attack = Attribution()
    found = look(attack, w.original, w.original, w.request, w.task)
    assert set(found.lines["positive"]) == set(found.lines["negative"]) == {0.0}
    assert found.value.value is None
    assert attack.conclusion(found.value, 0.3) == "Neither erased nor hidden can be said: nothing changed inside."
    assert len(found.x) == len(found.lines["positive"])
    assert found.x[0] == 1
    assert found.x[-1] == 2 * (4 * 32 + 2 * 64 + 32)


def test_what_was_not_forgotten_is_neither_erased_nor_hidden(text_world: World) -> None:
    """Weights that moved a little, and answers that are all as they were."""
    w, attack = text_world, Attribution()
    moved = copy.deepcopy(w.original)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.mul_(1 + 0.03 * torch.randn(weight.shape, generator=seeded(4)))
    assert (
        accuracy(moved, w.task, w.request.forget).mean() == accuracy(w.original, w.task, w.request.forget).mean() == 1
    )
    setting = setting_of(w, unlearned=moved)
    bare, _, _ = attack.compared(moved, setting)
    assert bare.value.value is not None, "the formula has a number for it"
    finding = inspection_finding(attack, setting)
    row = finding.measurements[0].unlearned
    assert row.value is None
    assert "nothing was forgotten that could be erased or hidden: 1.000 of the rows of forget were right" in row.note
    assert finding.report.note.startswith("Neither erased nor hidden can be said: nothing was forgotten")
    assert finding.report.positive_control.endswith("(no test: it takes 3 retrained models, there are 0)")


def test_answers_too_improbable_for_a_product_say_so() -> None:
    original = network()
    data = [(torch.rand(1, 4, 4, generator=seeded(i)), i % 2) for i in range(12)]
    request = Request(data[:6], data[6:8], data[8:10], data[10:])
    with torch.no_grad():
        original[6].bias[:2] -= 200  # type: ignore[operator, index]
    for how, said in (("product", True), ("log", False)):
        attack = Attribution(probability=how)  # type: ignore[arg-type]
        found = look(attack, network(seed=1), original, request, Classification()).value
        assert ("too small" in found.note) == said


def test_models_of_other_shapes_are_refused() -> None:
    other = Summed([0.1, 0.1, 0.1])
    other.hidden = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        other.hidden.weight.fill_(0.1)
    with pytest.raises(NotSupported, match="3 in number, got 2"):
        look(Attribution(), other, Summed([0.2, 0.2, 0.3]), plain(), Headed())


@pytest.mark.parametrize(
    ("value", "low", "high", "reference", "words"),
    [
        (0.9, 0.8, 1.0, 0.2, "Hidden more than erased: 90 % of the change"),
        (0.9, 0.8, 1.0, None, "Hidden more than erased"),
        (0.9, 0.8, 1.0, 0.85, "No more hidden than in retrained models"),
        (0.1, 0.0, 0.2, 0.2, "Erased more than hidden: 10 %"),
        (0.6, 0.4, 0.8, 0.2, "In part erased, in part hidden"),
    ],
)
def test_conclusion_is_careful(value: float, low: float, high: float, reference: float | None, words: str) -> None:
    said = Attribution().conclusion(Estimate(value=value, low=low, high=high, n=9), reference)
    assert said.startswith(words)
    assert said.endswith(".")
    assert ("; in retrained models it is" in said) == (reference is not None)


# The logit lens.


def test_lens_by_hand(text_world: World) -> None:
    """Norm and head on what Transformers itself says left the first layer; the last is the model."""
    w: Any = text_world
    batch = w.task.collate([w.request.forget[0], w.request.forget[3]])
    layers = list(w.original.model.layers)
    with torch.no_grad():
        seen = w.original(input_ids=batch["tokens"], output_hidden_states=True)
        early = w.original.lm_head(w.original.model.norm(seen.hidden_states[1]))
        with shortcut(layers[0], layers[1]):
            rows: Rows = w.task.rows(w.original, batch)
    kept = batch["targets"][:, 1:] >= 0
    assert torch.allclose(rows.logits, early[:, :-1][kept], atol=1e-4)

    found = look(LogitLens(), w.original, w.original, w.request, w.task)
    own = observe(w.original, w.task, w.request.forget)
    assert found.x == (1, 2)
    assert found.lines["accuracy"][1] == pytest.approx(own.correct.mean(), abs=1e-6)
    means = [np.exp(each).mean() for each in own.of_rows(own.log_prob)]
    assert found.lines["probability"][1] == pytest.approx(np.mean(means), abs=1e-5)
    assert found.value.value == pytest.approx(found.lines["probability"][0], abs=1e-6)
    assert found.value.n == len(w.request.forget)


def test_lens_on_layers_of_one_width() -> None:
    """The best layer before the last is told, whichever it is; the head is no layer, though it is as wide."""
    model = deep(16)
    data = [(torch.rand(1, 4, 4, generator=seeded(i)), i % 16) for i in range(24)]
    request = Request(data[:16], data[16:20], data[20:22], data[22:])
    found = look(LogitLens(), model, model, request, Classification())
    batch = whole(request.forget, Classification())
    expected, flat = [], batch["inputs"].flatten(1)
    for end in range(2, 6):
        rows = Rows(model[5](model[1:end](flat)), batch["targets"], torch.arange(16), 16)
        expected.append(probability(rows).mean().item())
    assert found.lines["probability"] == pytest.approx(expected, rel=1e-4)
    assert found.value.value == pytest.approx(max(expected[:-1]), rel=1e-4)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def deep(classes: int) -> nn.Sequential:
    """Four layers of width 16, and a head."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), *(nn.Linear(16, 16) for _ in range(4)), nn.Linear(16, classes))


def test_lens_refuses_what_has_no_common_width(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="two layers of one kind"):
        look(LogitLens(), w.original, w.original, w.request, w.task)
    narrowing = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Linear(12, 8), nn.Linear(8, 4))
    with pytest.raises(NotSupported, match="one shape, got 2"):
        look(LogitLens(), narrowing, narrowing, w.request, w.task)


def test_lens_says_what_it_saw() -> None:
    seen = Estimate(value=0.4, n=3)
    assert LogitLens().conclusion(seen, 0.1).endswith("a probability of 0.40, retrained models 0.10.")
    assert "no retrained model" in LogitLens().conclusion(seen, None)


# All models beside each other.


def test_a_copy_that_only_hides(text_world: World, samples_world: World) -> None:
    """Half as confident, by weights that have grown by one factor; the others are where they were."""
    for w in (text_world, samples_world):
        before = copy.deepcopy(w.original)
        hidden = copy_that_hides(setting_of(w))
        first, last = (observe(m, w.task, w.request.forget).confidence.mean() for m in (w.original, hidden))
        assert last <= first / 2
        old = dict(w.original.named_parameters())
        factors = torch.cat([(p / old[n])[old[n] != 0].flatten().detach() for n, p in hidden.named_parameters()])
        grown = float(factors.median() if factors.median() > 1.001 else factors.max())
        assert 1 < grown < 2.3
        assert bool(((factors - 1).abs().minimum((factors - grown).abs()) < 1e-3).all())
        assert 0.1 < float((factors > 1.001).float().mean()) < 0.9
        assert same(w.original, before)


def noisy(model: nn.Module) -> nn.Module:
    """A copy whose weights have moved by 3 % of their deviation."""
    copied, generator = copy.deepcopy(model), seeded(0)
    with torch.no_grad():
        for p in copied.parameters():
            p.add_(0.03 * p.std() * torch.randn(p.shape, generator=generator))
    return copied


@pytest.mark.parametrize("attack", [Attribution(), LogitLens()])
def test_inspection_of_every_model(text_world: World, attack: InspectionAttack) -> None:
    w = text_world
    setting = setting_of(w, *w.retrained, unlearned=copy_that_hides(setting_of(w)), null=True)
    finding = inspection_finding(attack, setting)
    report, (row,) = finding.report, finding.measurements
    assert row.name == report.name in ("attribution", "logit_lens")
    assert row.title == f"{report.title}: {attack.shows}"
    assert (row.group, row.leak, row.judged) == ("inside", "above", False)
    assert row.unlearned.value is not None
    assert row.reference is not None
    assert row.unlearned.value > row.reference
    assert row.null == row.original
    assert len(row.references) == 2
    roles = ["original", "unlearned", "null", "retrained 0", "retrained 1"]
    assert all([series.role for series in curve.series] == roles for curve in report.curves)
    assert all(len(series.x) == len(series.y) for curve in report.curves for series in curve.series)
    assert [curve.name for curve in report.curves] == (
        ["positive", "negative"] if isinstance(attack, Attribution) else ["accuracy", "probability"]
    )
    assert report.note == attack.conclusion(row.unlearned, row.reference)
    assert report.positive_holds is report.negative_holds is None
    assert "only hides" in report.positive_control
    for control in (report.positive_control, report.negative_control):
        assert control.endswith("(no test: it takes 3 retrained models, there are 2)")
    again = inspection_finding(attack, setting)
    assert (report, [row]) == (again.report, again.measurements)


def test_a_control_can_fail(text_world: World) -> None:
    """In the log, retrained models look hidden too, and the report owns up to it."""
    w = text_world
    third = noisy(w.retrained[0])
    finding = inspection_finding(
        Attribution(probability="log"), setting_of(w, *w.retrained, third, unlearned=w.retrained[0])
    )
    report, (row,) = finding.report, finding.measurements
    assert row.name == "attribution_log"
    assert report.positive_holds is False
    assert report.note.startswith("No more hidden than in retrained models")


def test_inspection_without_retrained_models_holds_no_control(text_world: World) -> None:
    w = text_world
    finding = inspection_finding(LogitLens(), setting_of(w))
    report, (row,) = finding.report, finding.measurements
    assert row.reference is None
    assert report.positive_holds is None
    assert report.negative_holds is None


def test_inspection_of_what_has_no_such_parts_is_a_row_with_a_reason(samples_world: World) -> None:
    w = samples_world
    finding = inspection_finding(LogitLens(), setting_of(w, *w.retrained))
    report, (row,) = finding.report, finding.measurements
    assert not report.curves
    assert row.unlearned.value is None
    assert row.note == report.note == "LogitLens: expected two layers of one kind or more, got 1."


class Long(InspectionAttack):
    """As many neurons as it is told."""

    title, shows, axis, unit = "Long", "nothing", "neurons", "one"
    threat = LogitLens.threat
    last: ClassVar[float] = 1000.0

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        return Inspection((1.0, self.last), {"line": (0.0, 1.0)}, Estimate(value=0.5, n=1))


def test_a_long_axis_is_logarithmic(samples_world: World) -> None:
    setting = setting_of(samples_world)
    assert inspection_finding(Long(), setting).report.curves[0].log == "x"
    short = type("Short", (Long,), {"last": 999.0})()
    assert inspection_finding(short, setting).report.curves[0].log == ""
