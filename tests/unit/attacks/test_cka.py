"""By hand and by law: what linear CKA is, which features it sees, and whom a model is held against."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.attacks.running import setting_of
from tests.worlds import (
    COLOURS,
    World,
    caption_tokenizer,
    facts,
    network,
    pairs,
    small_clip,
    small_llama,
    word_tokenizer,
)
from unrecall.attacks.cka import CKA, alignment, estimate, gram
from unrecall.attacks.inspection import Inspection
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.inspection import inspection_finding
from unrecall.record.stats import left_out
from unrecall.tasks import CausalLM, Classification, Contrastive
from unrecall.tasks.base import Task
from unrecall.training.randomness import seeded

# The number.


def noise(n: int, d: int, seed: int) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(seed).standard_normal((n, d))
    return found


def cka(first: np.ndarray, second: np.ndarray) -> float:
    return alignment(gram(first), gram(second)).value


def four(x: np.ndarray, y: np.ndarray) -> float:
    """What HSIC without bias estimates, by brute force: over all ordered sets of four different examples, a mean."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    sets = list(itertools.permutations(range(len(x)), 4))
    return float(np.mean([k[a, b] * (l[a, b] + l[c, d] - 2 * l[a, c]) for a, b, c, d in sets]))


def test_by_brute_force() -> None:
    x, y = noise(7, 2, 0), noise(7, 3, 1) + noise(7, 3, 0)
    expected = four(x, y) / np.sqrt(four(x, x) * four(y, y))
    assert cka(x, y) == pytest.approx(expected)
    assert cka(y, x) == pytest.approx(expected)


def test_on_many_examples_it_is_the_paper_s() -> None:
    x = noise(3000, 4, 0)
    y = np.hstack([x[:, :2] + noise(3000, 2, 1), noise(3000, 3, 2)])
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert cka(x, y) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("true", [0.2, 0.9])
@pytest.mark.parametrize("decay", [0, 1])
@pytest.mark.parametrize(("n", "runs"), [(10, 400), (30, 400), (100, 200)])
def test_its_mean_and_its_interval_are_right_on_few_examples(true: float, decay: int, n: int, runs: int) -> None:
    """20 features, as large as each other or the i-th 1/i as large, that share so much of their variance.

    The paper's formula gives 0.77, 0.53 and 0.31 for 0.2 where they are equally large, and its interval never holds it.
    """
    generator, sizes = np.random.default_rng(n), np.arange(1, 21.0) ** -decay
    values, covered = [], 0
    for _ in range(runs):
        x, own = generator.standard_normal((2, n, 20))
        y = np.sqrt(true) * x + np.sqrt(1 - true) * own
        found = alignment(gram(x * sizes), gram(y * sizes))
        interval = estimate(found.value, found.without)
        assert interval.low is not None and interval.high is not None
        values.append(found.value)
        covered += interval.low <= true <= interval.high
    assert np.mean(values) == pytest.approx(true, abs=0.05)
    assert covered / runs > 0.93


def test_what_it_does_not_see_and_what_it_does() -> None:
    """Rotation, one scale and a shift change nothing; a scale of one feature does; independent noise is unlike."""
    x = noise(400, 6, 0)
    turned, _ = np.linalg.qr(noise(6, 6, 1))
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, x @ turned) == pytest.approx(1)
    assert cka(x, 7 * x + 100) == pytest.approx(1)
    assert cka(x, x * np.array([10, 1, 1, 1, 1, 1])) < 0.6
    assert cka(x, noise(400, 6, 2)) < 0.05
    few = [cka(noise(8, 60, seed), noise(8, 60, seed + 100)) for seed in range(100)]
    assert abs(np.mean(few)) < 0.1, "fewer examples than features make no two views look alike"


def test_features_that_do_not_vary_are_like_nothing() -> None:
    x, flat = noise(9, 3, 0), np.full((9, 4), 1e4, dtype=np.float32)
    assert cka(x, flat) == cka(flat, flat) == 0
    assert not alignment(gram(flat), gram(x)).without.any()


def test_without_one_example_is_what_the_others_give() -> None:
    x, y = noise(12, 3, 0), noise(12, 4, 1)
    found = alignment(gram(x), gram(y)).without
    expected = [cka(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(12)]
    assert found == pytest.approx(expected)


def test_the_interval_of_a_mean_is_students() -> None:
    """Left out of a mean of 1, 2, 3, 6: the jackknife's error is the standard error, 2.16 / 2."""
    values = np.array([1.0, 2, 3, 6])
    found = left_out(3.0, (values.sum() - values) / 3)
    half = 3.182446 * values.std(ddof=1) / 2
    assert (found.low, found.high, found.n) == (pytest.approx(3 - half), pytest.approx(3 + half), 4)


# The features.


def beside(attack: CKA, model: nn.Module, original: nn.Module, request: Request, task: Task) -> Inspection:
    """The model held against the original."""
    return attack.inspect(model, Setting(Models(original, model), request, task))


def test_maps_are_averaged_over_space(samples_world: World) -> None:
    """BatchNorm's output before ReLU, and the hidden layer's; the head is no layer."""
    w = samples_world
    other = w.retrained[0]
    found = beside(CKA(), other, w.original, w.request, w.task)
    inputs = torch.stack([item[0] for item in w.request.forget])  # type: ignore[attr-defined]
    with torch.no_grad():
        maps = [m.eval()[:2](inputs).mean((2, 3)).numpy() for m in (other, w.original)]  # type: ignore[operator]
        hidden = [m.eval()[:5](inputs).numpy() for m in (other, w.original)]  # type: ignore[operator]
    assert found.x == (1, 2)
    assert found.lines["forget"] == pytest.approx([cka(*maps), cka(*hidden)], abs=1e-5)
    assert found.value.value == pytest.approx(np.mean(found.lines["forget"]))
    assert found.value.n == 20
    assert found.value.note == "beside the original; 2 layers: 1, 4"
    assert found.value.low is not None
    assert 0 < found.value.low < found.value.value < (found.value.high or 0) <= 1  # type: ignore[operator]
    assert not any(m._forward_hooks for m in other.modules())


def test_sequences_are_averaged_over_what_holds_input() -> None:
    """Texts of different lengths: what the first layer gives out, text by text and so without padding."""
    task: Any = CausalLM(word_tokenizer(), template=None)
    models = [small_llama(len(task.tokenizer), seed) for seed in (0, 1)]
    items = [{"prompt": "what", "answer": "baker"}, *facts()[:4], {"prompt": "what is", "answer": "cook"}]
    request = Request(items, facts()[10:20], facts()[20:22], facts()[22:24])
    found = beside(CKA(layers=("model.layers.0",)), models[0], models[1], request, task)
    views = []
    for model in models:
        with torch.no_grad():
            seen = [model(input_ids=task.collate([i])["tokens"], output_hidden_states=True) for i in items]
        views.append(np.stack([one.hidden_states[1][0].mean(0).numpy() for one in seen]))
    assert found.lines["forget"] == pytest.approx([cka(*views)], abs=1e-4)
    assert beside(CKA(), models[0], models[1], request, task).x == (1, 2, 3, 4), "embeddings, two layers, final norm"


def test_two_towers_give_more_layers_and_no_example_counts_twice() -> None:
    """40 pairs in batches of 32, of which the second repeats 24; a layer for pictures sees the same without batches."""
    task = Contrastive(caption_tokenizer(), classes=tuple(COLOURS), prompt="{}")
    models = [small_clip(len(task.tokenizer), seed) for seed in (0, 1)]
    request = Request(pairs(0, 40), pairs(40, 80), pairs(80, 84), pairs(84, 88))
    found = beside(CKA(), models[0], models[1], request, task)
    assert found.value.n == 40
    assert len(found.lines["forget"]) == 7
    alone = CKA(layers=("vision_model.encoder.layers.0",))
    lines = [beside(alone, models[0], models[1], request, one).lines["forget"] for one in (task, task.classified())]
    assert lines[0] == pytest.approx(lines[1], abs=1e-5)
    assert lines[0][0] in found.lines["forget"]


class InPlace(nn.Module):
    """What follows the first layer overwrites its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.idle = nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.first(inputs.flatten(1)).mul_(0).add_(1))  # type: ignore[no-any-return]


def test_a_layer_is_seen_before_its_output_is_overwritten(samples_world: World) -> None:
    w = samples_world
    model = InPlace()
    found = beside(CKA(layers=("first",)), model, copy.deepcopy(model), w.request, w.task)
    assert found.lines["forget"] == (pytest.approx(1),), "all ones would be like nothing"


def test_a_model_is_like_itself_and_a_retrained_one_less(class_world: World) -> None:
    w = class_world
    own = beside(CKA(), w.original, w.original, w.request, w.task)
    assert own.lines["forget"] == own.lines["retain"] == pytest.approx((1, 1))
    assert (own.value.value, own.value.low, own.value.high) == pytest.approx((1, 1, 1))
    other = beside(CKA(), w.retrained[0], w.original, w.request, w.task)
    assert max(other.lines["forget"]) < 0.95


def test_examples_are_spread_evenly(class_world: World) -> None:
    """Five of forget's 40: 0, 10, 20, 29 and 39."""
    w = class_world
    few = replace(w.request, forget=[w.request.forget[i] for i in (0, 10, 20, 29, 39)])
    found = beside(CKA(most=5), w.retrained[0], w.original, w.request, w.task)
    assert found.value.n == 5
    alone = beside(CKA(), w.retrained[0], w.original, few, w.task)
    assert found.lines["forget"] == pytest.approx(alone.lines["forget"])


class Counted(Classification):
    """Counts passes by model."""

    passes: dict[nn.Module, int]

    def rows(self, model: nn.Module, batch: Any) -> Any:
        self.passes[model] = self.passes.get(model, 0) + 1
        return super().rows(model, batch)


@pytest.mark.parametrize("others", ["original", "retrained"])
def test_one_pass_a_model_and_split(samples_world: World, others: Any) -> None:
    w, task = samples_world, Counted()
    object.__setattr__(task, "passes", {})
    subjects = {"original": w.original, "null": w.original} | {f"retrained {i}": m for i, m in enumerate(w.retrained)}
    found = CKA(beside=others).inspect_all(subjects, setting_of(replace(w, task=task)))
    assert found["original"] is found["null"]
    assert set(task.passes) == {w.original, *w.retrained}
    assert set(task.passes.values()) == {2}, "forget and retain, each in one batch"


# Whom it is held against.


def test_against_retrained_models_is_the_mean_over_the_others(samples_world: World) -> None:
    w = samples_world
    one, two = w.retrained[:2]
    subjects = {"unlearned": w.original, "retrained 0": one}
    found = CKA(beside="retrained").inspect_all(subjects, setting_of(replace(w, retrained=(one, two))))
    parts = [beside(CKA(), w.original, other, w.request, w.task).lines["forget"] for other in (one, two)]
    assert found["unlearned"].lines["forget"] == pytest.approx(np.mean(parts, axis=0))
    expected = beside(CKA(), one, two, w.request, w.task)
    assert found["retrained 0"].lines["forget"] == pytest.approx(expected.lines["forget"])
    assert found["retrained 0"].value.low == pytest.approx(expected.value.low)


def test_one_retrained_model_has_nobody_to_be_held_against(samples_world: World) -> None:
    w = samples_world
    finding = inspection_finding(CKA(beside="retrained"), setting_of(replace(w, retrained=w.retrained[:1])))
    report, (row,) = finding.report, finding.measurements
    assert (row.name, row.leak, row.reference) == ("cka_retrained", None, None)
    assert row.unlearned.value is not None
    assert row.references[0].note == "needs a retrained model other than itself"
    assert [one.role for one in report.curves[0].series] == ["original", "unlearned"]
    assert report.positive_holds is None
    finding = inspection_finding(CKA(beside="retrained"), setting_of(replace(w, retrained=())))
    (reason,) = finding.measurements
    assert not finding.report.curves
    assert reason.note.startswith("CKA: expected a retrained model to compare with, got none.")


def test_every_model_beside_the_original(class_world: World) -> None:
    """A copy that only hides is seen; retrained models are less like the original."""
    w = class_world
    setting = Setting(Models(w.original, w.retrained[0], w.retrained, w.original), w.request, w.task)
    finding = inspection_finding(CKA(), setting)
    report, (row,) = finding.report, finding.measurements
    assert (row.name, row.group, row.leak, row.judged) == ("cka", "inside", "above", False)
    assert row.title == "CKA by layer: likeness on forget, mean over layers"
    assert row.original.value == row.null.value == pytest.approx(1)
    assert row.reference is not None
    assert row.reference < 0.95
    assert [curve.name for curve in report.curves] == ["forget", "retain"]
    assert report.positive_holds is True
    assert report.negative_holds is True
    assert report.note == CKA().conclusion(row.unlearned, row.reference)
    assert "like that of the original by 0.8" in report.note
    again = inspection_finding(CKA(), setting)
    assert (report, [row]) == (again.report, again.measurements)


# What it refuses.


def test_unknown_layers_are_named_with_those_that_exist(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(BadInput, match=r"names of the model's modules, got 'body.3'. Known: 0, 1, 2, 3, 4, 5, 6\."):
        beside(CKA(layers=("0", "body.3")), w.original, w.original, w.request, w.task)


def test_it_says_what_it_needs(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(NotSupported, match="at least 5 forget examples, got 3"):
        beside(CKA(most=3), w.original, w.original, w.request, w.task)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(NotSupported, match="layers before the head, got none"):
        beside(CKA(), head, head, w.request, w.task)
    with pytest.raises(NotSupported, match="as many layers as the other model has, 1, got 2"):
        beside(CKA(), w.original, nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 4)), w.request, w.task)
    with pytest.raises(NotSupported, match="nothing leaves 'idle'"):
        beside(CKA(layers=("idle",)), InPlace(), InPlace(), w.request, w.task)
    with pytest.raises(BadInput, match="beside"):
        CKA(beside="both")  # type: ignore[arg-type]


def test_layers_of_other_shapes_are_refused() -> None:
    data = [(torch.rand(1, 4, 4, generator=seeded(i)), i % 2) for i in range(20)]
    request = Request(data[:8], data[8:16], data[16:18], data[18:])

    class Folded(nn.Module):
        """Its layer has two rows an example."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(8, 2), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.layer(inputs.reshape(-1, 8)).reshape(-1, 4))  # type: ignore[no-any-return]

    with pytest.raises(NotSupported, match=r"\[8 examples, \.\.\.\], got \(16, 2\)"):
        beside(CKA(), Folded(), network(), request, Classification())


def test_what_is_the_same_for_all_examples_is_left_out(text_world: World) -> None:
    """GPT-2's embeddings of positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    w = text_world
    words = len(w.task.tokenizer)  # type: ignore[attr-defined]
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": words, "n_positions": 64}
    first, other = (GPT2LMHeadModel(GPT2Config(**sizes)).eval() for _ in range(2))
    note = beside(CKA(), first, other, w.request, w.task).value.note
    assert "wpe" not in note and "wte" in note
    with pytest.raises(NotSupported, match=r"a row for each example, got 'transformer\.wpe'"):
        beside(CKA(layers=("transformer.wpe",)), first, other, w.request, w.task)
