"""Residual knowledge: hand arithmetic with models that answer by rule, and its controls."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from tests.unit.attacks.running import setting_of
from tests.worlds import CPU, World
from unrecall.attacks import ResidualKnowledge
from unrecall.attacks.residual_knowledge import (
    Recognition,
    disagreement_bounds,
    near_disagreement,
    ratio_of_sums,
    ratios,
    recognised,
    set_level,
    share_above_one,
    sums,
    zero_denominators,
)
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.errors import MissingReference
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.harness.evaluation import draw_for
from unrecall.tasks import Classification

TASK = Classification()


class Rule(nn.Module):
    """Answers by rule, and remembers what it was shown and what it said."""

    def __init__(self, rule: Callable[[Tensor], Tensor], gradients: bool = False) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.rule, self.gradients = rule, gradients
        self.inputs: list[Tensor] = []
        self.said: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.gradients or not torch.is_grad_enabled()
        labels = self.rule(inputs)
        self.inputs.append(inputs.detach().clone())
        self.said.append(labels)
        return nn.functional.one_hot(labels, 4).float() + self.anchor


def always(label: int) -> Rule:
    return Rule(lambda x: torch.full((len(x),), label))


def bright(threshold: float = 0.5, label: int = 1) -> Rule:
    """Says `label` where the first pixel is above the threshold, 0 otherwise."""
    return Rule(lambda x: (x[:, 0] > threshold).long() * label)


def pixels(*values: float, label: int = 1) -> Request:
    """A request whose forget examples are (first pixel, noise-free second pixel) of class `label`."""
    retain, holdout, test = ([(torch.tensor([0.01 * i, 0.1 * k]), 0) for i in range(4)] for k in (1, 2, 3))
    return Request([(torch.tensor([v, 0.0]), label) for v in values], retain, holdout, test)


def recognitions(attack: ResidualKnowledge, setting: Setting) -> dict[str, Recognition]:
    """The counts of each model, by role, beside those of the retrained models on the same forget examples."""
    setting = replace(setting, request=replace(setting.request, holdout=Absent("none")))
    drawn, crafted = draw_for(attack, setting), attack.perturbation != "gaussian"
    subjects = [subject for subject in setting.subjects if subject.role == "unlearned" or not crafted]
    scores = {subject.role: attack.scores(subject, drawn.pool, setting) for subject in subjects}
    return {role: attack.recognition(role, scores, drawn.places["forget"]) for role in scores}


def found(
    subject: nn.Module, references: Sequence[nn.Module], request: Request, attack: ResidualKnowledge
) -> Recognition:
    models = Models(always(3), subject, tuple(references))
    return recognitions(attack, Setting(models, request, TASK, 0, CPU))["unlearned"]


def test_radii_are_the_papers() -> None:
    assert ResidualKnowledge().radii == pytest.approx(np.linspace(0, 8 / 255, 11).tolist())
    assert ResidualKnowledge().draws == 100


def test_draws_by_hand() -> None:
    """A share is at most 1/2 off in one draw: 10,000 of all examples together bring its mean to .005."""
    attack = ResidualKnowledge(precision=0.005)
    assert [attack.of_examples(n).draws for n in (1, 100, 101, 250, 999, 1000, 5000)] == [100, 100, 100, 40, 11, 10, 10]
    assert replace(attack, draws=7).of_examples(5000).draws == 7
    assert ResidualKnowledge().of_examples(5000).draws == 100


def test_without_a_retrained_model_no_pass_is_made() -> None:
    subject = always(1)
    setting = Setting(Models(always(3), subject, ()), pixels(0.2, 0.8), TASK, 0, CPU)
    drawn = draw_for(ResidualKnowledge(), setting)
    with pytest.raises(MissingReference, match="expected a retrained model to compare with"):
        ResidualKnowledge().scores(Subject("unlearned", subject), drawn.pool, setting)
    assert subject.inputs == []


def test_with_a_precision_the_counts_are_those_of_as_many_draws() -> None:
    values = np.linspace(0.3, 0.7, 20).tolist()
    fewer, same = (
        found(bright(), [bright(0.45)], pixels(*values), ResidualKnowledge(radius_max=0.1, points=2, **how))
        for how in ({"precision": 0.03}, {"draws": 14})
    )
    assert fewer.draws == same.draws == 14  # 1 / (4 * 20 * .0009) = 13.9
    assert np.array_equal(fewer.subject, same.subject)
    assert np.array_equal(fewer.references, same.references)


@pytest.mark.parametrize("perturbation", ["gaussian", "fgsm", "pgd"])
def test_a_model_against_itself_is_one_at_every_radius(samples_world: World, perturbation: str) -> None:
    attack = ResidualKnowledge(radius_max=0.3, points=4, draws=20, perturbation=perturbation)  # type: ignore[arg-type]
    original = samples_world.original
    one = found(original, [copy.deepcopy(original)], samples_world.request, attack)
    known = ratios(one)
    assert set(known[~np.isnan(known)]) == {1.0}
    assert set_level(one) == pytest.approx(np.ones(4))


def test_a_model_that_never_says_so_is_zero() -> None:
    one = found(always(0), [always(1)], pixels(0.2, 0.8), ResidualKnowledge(points=3, draws=7))
    assert np.array_equal(set_level(one), [0, 0, 0])
    assert np.array_equal(one.references, np.full((1, 3, 2), 7))


def test_at_radius_zero_the_ratio_is_right_over_right() -> None:
    request = pixels(0.2, 0.8, 0.3)
    one = found(bright(), [bright(0.25)], request, ResidualKnowledge(points=2, draws=9))
    assert one.radii[0] == 0
    assert np.array_equal(one.subject[0], [0, 9, 0])
    assert np.array_equal(one.references[0, 0], [0, 9, 9])
    assert np.array_equal(ratios(one)[0, 0], [np.nan, 1, 0], equal_nan=True)
    assert zero_denominators(one)[0] == 1


def test_gaussian_counts_are_the_normal_probabilities() -> None:
    values, radius, draws = (0.45, 0.5, 0.52, 0.6), 0.1, 20_000
    attack = ResidualKnowledge(radius_max=radius, points=2, draws=draws)
    one = found(bright(), [always(1)], pixels(*values), attack)
    expected = norm.cdf((np.array(values) - 0.5) / radius)
    assert ratios(one)[0, 1] == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(draws))


def test_every_model_sees_the_same_perturbed_inputs_once() -> None:
    m, a, b = bright(), always(1), always(0)
    attack = ResidualKnowledge(radius_max=0.2, points=3, draws=5, batch_size=10)
    setting = Setting(Models(always(2), m, (a, b)), pixels(0.2, 0.4, 0.6), TASK, 0, CPU)
    every = recognitions(attack, setting)
    assert [len(x) for x in m.inputs] == [2, 10, 10, 1, 5, 5]
    for other in (a, b):
        assert all(torch.equal(x, y) for x, y in zip(m.inputs, other.inputs, strict=True))
    shown = torch.cat(m.inputs)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert every["unlearned"].references.shape == (2, 3, 3)
    assert np.array_equal(every["retrained 0"].references, every["unlearned"].references[1:])
    assert np.array_equal(every["retrained 1"].subject, every["unlearned"].references[1])


@pytest.mark.parametrize("perturbation", ["fgsm", "pgd"])
def test_only_the_subjects_gradients_are_asked_for(samples_world: World, perturbation: str) -> None:
    silent = always(0)
    attack = ResidualKnowledge(points=2, draws=3, perturbation=perturbation)  # type: ignore[arg-type]
    one = found(samples_world.original, [silent], samples_world.request, attack)
    assert one.references.sum() == 2 * 3 * len(samples_world.request.forget)
    moved = silent.inputs[1] - torch.stack([x for x, _ in samples_world.request.forget]).repeat_interleave(3, 0)  # type: ignore[attr-defined]
    assert 0 < float(moved.abs().max()) <= 8 / 255 + 1e-6


@pytest.mark.parametrize("perturbation", ["gaussian", "fgsm", "pgd"])
def test_the_batch_size_changes_nothing(samples_world: World, perturbation: str) -> None:
    results = [
        found(
            samples_world.original,
            samples_world.retrained,
            samples_world.request,
            ResidualKnowledge(radius_max=0.2, points=3, draws=10, perturbation=perturbation, batch_size=size),  # type: ignore[arg-type]
        )
        for size in (1, 70, 4096)
    ]
    for other in results[1:]:
        assert np.array_equal(results[0].subject, other.subject)
        assert np.array_equal(results[0].references, other.references)


def test_disagreement_lies_within_its_bounds() -> None:
    m, a = bright(0.45), bright(0.6)
    attack = ResidualKnowledge(radius_max=0.3, points=4, draws=400, batch_size=1600)
    one = found(m, [a], pixels(0.4, 0.5, 0.55, 0.7), attack)
    disagreement = np.array([float(x.ne(y).double().mean()) for x, y in zip(m.said, a.said, strict=True)])
    low, high = disagreement_bounds(one)
    assert (low <= disagreement + 1e-12).all()
    assert (disagreement <= high + 1e-12).all()
    p_m, p_a = one.subject / 400, one.references[0] / 400
    assert low == pytest.approx(np.abs(p_m - p_a).mean(1))


def test_disagreement_bounds_by_hand() -> None:
    """p_m is 1 and .5, p_a .6 and .5: between (.4 + 0) / 2 and (.4 + 1) / 2. With p_a r = p_m that is p_a |r - 1|."""
    one = Recognition((0.1,), 10, np.array([[10, 5]]), np.array([[[6, 5]]]))
    low, high = disagreement_bounds(one)
    assert (low.tolist(), high.tolist()) == (pytest.approx([0.2]), pytest.approx([0.7]))
    r = ratios(one)[0, 0]
    assert (np.array([0.6, 0.5]) * np.abs(r - 1)).mean() == pytest.approx(0.2)


def test_near_disagreement_by_hand() -> None:
    """All of 10 draws apart: at 95 %, k is .05^(1/10) = .741 or more. None apart: nothing is said."""
    apart = Recognition((0.1,), 10, np.array([[10]]), np.array([[[0]]]))
    least = 0.05**0.1
    assert near_disagreement(apart, 0.0) == pytest.approx([least])
    assert near_disagreement(apart, 2.0) == pytest.approx([norm.cdf(norm.ppf(least) + 2)])
    alike = Recognition((0.1,), 10, np.array([[4]]), np.array([[[4]]]))
    assert near_disagreement(alike, 3.0).tolist() == [0.0]
    both = Recognition((0.1,), 10, np.array([[10, 4]]), np.array([[[0, 4]]]))
    assert near_disagreement(both, 2.0) == pytest.approx(near_disagreement(apart, 2.0) / 2)


def test_near_disagreement_is_exact_on_a_half_space() -> None:
    """Two models that part where the noise of one entry is above tau part on 16 %; half lies within tau of there."""
    draws = 200_000
    one = Recognition((0.1,), draws, np.array([[round(draws * norm.cdf(-1))]]), np.array([[[0]]]))
    assert near_disagreement(one, 1.0) == pytest.approx([0.5], abs=0.01)


def test_summaries_by_hand() -> None:
    subject = np.array([[10, 5, 0, 2]])
    references = np.array([[[5, 10, 0, 0]], [[10, 10, 10, 1]]])
    one = Recognition((0.1,), 10, subject, references)
    expected = [[[2, 0.5, np.nan, np.nan]], [[1, 0.5, 0, 2]]]
    assert np.array_equal(ratios(one), expected, equal_nan=True)
    assert set_level(one) == pytest.approx([(1.25 + 0.875) / 2])
    assert ratio_of_sums(one) == pytest.approx([17 / ((15 + 31) / 2)])
    assert zero_denominators(one).tolist() == [2]
    assert share_above_one(one).tolist() == [3 / 8]


def test_one_poor_reference_does_not_rule_the_ratio_of_sums() -> None:
    """50 of 100 against 10 and 100: 50 / 55. The mean of the ratios, 5 and 0.5, would be 2.75."""
    one = Recognition((0.0, 0.1), 50, np.array([[30, 20], [50, 0]]), np.array([[[5, 5]] * 2, [[50, 50]] * 2]))
    assert ratio_of_sums(one) == pytest.approx([50 / 55, 50 / 55])
    assert [found.value for found in sums(one)] == ratio_of_sums(one).tolist()
    assert all(found.low is None and "no interval" in found.note for found in sums(one)), "two examples tell no spread"


def test_nothing_defined_is_nan_and_no_warning() -> None:
    one = Recognition((0.1,), 10, np.array([[3]]), np.array([[[0]]]))
    assert np.isnan(set_level(one)).all()
    assert np.isnan(ratio_of_sums(one)).all()
    alone = Recognition((0.1,), 10, np.array([[3]]), np.zeros((0, 1, 1)))
    assert np.isnan(set_level(alone)).all()
    assert np.isnan(ratio_of_sums(alone)).all()
    assert sums(alone)[0].note == "needs a retrained model other than itself"


def test_an_example_is_recognised_if_all_its_rows_are() -> None:
    class Pairs(Classification):
        def rows(self, model: nn.Module, batch: dict[str, Tensor]) -> Rows:
            logits = nn.functional.one_hot(torch.tensor([0, 1, 1, 1]), 2).float()
            return Rows(logits, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)

    assert recognised(always(0), Pairs(), {"inputs": torch.zeros(2, 1)}).tolist() == [True, False]


def test_modes_are_put_back(samples_world: World) -> None:
    model = copy.deepcopy(samples_world.original).train()
    found(model, [samples_world.retrained[0]], samples_world.request, ResidualKnowledge(points=2, draws=2))
    assert all(module.training for module in model.modules())


def test_controls_of_residual_knowledge(samples_world: World) -> None:
    w = samples_world
    every = recognitions(ResidualKnowledge(radius_max=0.2, points=5, draws=50), setting_of(w))
    level = {role: float(np.nanmean(set_level(one))) for role, one in every.items()}
    retrained = [level[role] for role in setting_of(w).models.references()]
    assert level["original"] > max(retrained) + 0.1
    assert np.mean(retrained) == pytest.approx(1, abs=0.15)
