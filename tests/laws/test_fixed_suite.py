"""No attack of the fixed suite learns which arm an example is of, nor what the original says; peeking is caught."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import CPU, World
from unrecall.attacks.base import Attacked, RecoveryAttack
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.fixed_suite import FixedAttack, fixed_suite, steps_taken
from unrecall.harness.mixed_arms import mix_arms
from unrecall.harness.never_trained import beside_never_trained, scores_of, without_arms
from unrecall.record.never_trained import FIXED_SUITES, TAUGHT_STEPS
from unrecall.record.pool_scores import Stated
from unrecall.record.schema import ThreatModel
from unrecall.training.loop import Fit, fit_by_step

TASK = ur.tasks.Classification()


def examples(first: int, count: int) -> list[tuple[torch.Tensor, int]]:
    made = torch.Generator().manual_seed(first)
    return [(torch.randn(6, generator=made), i % 3) for i in range(count)]


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def setting(*, swapped: bool = False) -> Setting:
    forget, holdout = examples(1, 12), examples(2, 12)
    if swapped:
        forget, holdout = holdout, forget
    request = ur.Request(forget, examples(3, 60), holdout, examples(4, 20))
    return Setting(Models(net(0), net(1)), request, TASK, seed=5)


def shown(fixed: FixedAttack, of: Setting) -> dict[str, float]:
    """The unlearned model's score of each example, by the example's digest."""
    mixed = mix_arms(of.request, 9)
    digests = [*of.request.digests["forget"], *of.request.digests["holdout"]]
    values = scores_of("unlearned", (fixed,), mixed, of).shown[fixed.name]
    return dict(zip([digests[i] for i in mixed.examples.indices], values.tolist(), strict=True))


@pytest.mark.parametrize("fixed", fixed_suite(TASK), ids=lambda fixed: fixed.name)
def test_scores_are_the_same_when_the_arms_change_places(fixed: FixedAttack) -> None:
    assert shown(fixed, setting()) == shown(fixed, setting(swapped=True))


def test_scores_of_the_unlearned_model_know_nothing_of_the_original() -> None:
    own = setting()
    other = replace(own, models=replace(own.models, original=net(7)))
    for fixed in fixed_suite(TASK):
        assert shown(fixed, own) == shown(fixed, other)


class Peeking(RecoveryAttack):
    """Trains on forget, which it may not read."""

    title = "Peeking"
    axis = "steps"
    threat = ThreatModel(access="", data="", budget="")

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """A model that is sure of the first example of forget's class."""
        inputs, label = setting.request.forget[0]
        last = model[3]
        with torch.no_grad():
            last.bias[label] += float(inputs.sum())
        yield Attacked(1, model, pool.tested)


def test_an_attack_that_peeks_finds_nothing_to_read() -> None:
    with pytest.raises(IndexError):
        shown(FixedAttack("peeking", "Peeking", Peeking()), setting())


def test_what_is_hidden_is_hidden_from_every_attack() -> None:
    own = setting()
    blind = without_arms(own, "unlearned")
    assert [len(blind.request[split]) for split in ("forget", "retain", "holdout", "test")] == [0, 60, 0, 0]
    assert blind.models.original is own.models.unlearned


def test_an_attack_that_peeks_all_the_same_is_caught_by_the_first_law(monkeypatch: pytest.MonkeyPatch) -> None:
    import unrecall.harness.never_trained as harness

    monkeypatch.setattr(harness, "without_arms", lambda setting, model: setting)
    fixed = FixedAttack("peeking", "Peeking", Peeking())
    assert shown(fixed, setting()) != shown(fixed, setting(swapped=True))


def test_the_same_inputs_give_the_same_verdict() -> None:
    first, second = (beside_never_trained(setting()) for _ in range(2))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][name], second[1][name]) for name in first[1])


def test_crossed_halves_are_scored_by_the_model_that_was_taught_the_other() -> None:
    request = ur.Request(examples(1, 50), examples(3, 60), examples(2, 60), examples(4, 20))
    mixed = mix_arms(request, 3)
    assert mixed.crossed
    assert [int((mixed.half[mixed.forget] == h).sum()) for h in (0, 1)] == [25, 25]
    assert [int((mixed.half[~mixed.forget] == h).sum()) for h in (0, 1)] == [30, 30]
    of = Setting(Models(net(0), net(1)), request, TASK)
    symmetric = fixed_suite(TASK)[-1]
    scores = scores_of("unlearned", (symmetric,), mixed, of)
    assert np.isfinite(scores.shown["symmetric"]).all()
    first, second = scores.steps["symmetric"]
    assert {first, second} <= set(TAUGHT_STEPS), "each half has a stop of its own"
    assert steps_taken(fixed_suite(TASK), request) == (20 + 2 * 1, 20 + 2 * 20)


def test_the_steps_that_are_told_are_those_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    own, taken = setting(), list[int]()

    def counted(*arguments: Any, **named: Any) -> Iterator[int]:
        for step in fit_by_step(*arguments, **named):
            taken.append(step)
            yield step

    monkeypatch.setattr("unrecall.training.copies.fit_by_step", counted)
    beside_never_trained(own)
    fewest, most = steps_taken(fixed_suite(TASK), own.request)
    assert (fewest, most) == (21, 40)
    assert 2 * fewest <= len(taken) <= 2 * most, "of both models"


def test_an_attack_that_diverges_on_its_way_leaves_the_model_as_it_was() -> None:
    own = setting()
    mixed = mix_arms(own.request, 9)
    plain, wild = (fixed_suite(TASK, rate=rate) for rate in (None, 1e20))
    scores = scores_of("unlearned", (plain[0], wild[-1]), mixed, own)
    assert scores.steps["symmetric"] == [0]
    assert np.array_equal(scores.shown["symmetric"], scores.shown["as_it_is"])


def test_the_steps_that_fine_tuning_took_are_in_the_record() -> None:
    tested, arrays = beside_never_trained(setting())
    steps = {attack.name: attack.steps for attack in tested.attacks if attack.steps}
    assert steps.keys() == {"benign_20", "symmetric"}
    assert steps["benign_20"] == [20]
    (stopped,) = steps["symmetric"]
    assert stopped in TAUGHT_STEPS
    assert Stated.from_array(arrays["stated"], unchanged=False).steps == steps


@pytest.mark.parametrize("size", [1e30, 1e36])
def test_a_model_whose_gradients_are_too_large_to_be_clipped_is_not_attacked_in_vain(size: float) -> None:
    """It answers as before it was rescaled; each step would be 0 times its gradient, and the attack find nothing."""
    own, model = setting(), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight.mul_(size)
        model[0].bias.mul_(size)
        model[2].weight.div_(size)
    rescaled = replace(own, models=replace(own.models, unlearned=model))
    tested, _ = beside_never_trained(rescaled)
    steps = {attack.name: attack.steps for attack in tested.attacks if attack.steps}
    assert steps == {"benign_20": [0], "symmetric": [0]}


def test_whole_persons_stay_in_one_half() -> None:
    owners = {"forget": [f"f{i // 2}" for i in range(100)], "holdout": [f"h{i // 2}" for i in range(120)]}
    request = ur.Request(examples(1, 100), examples(3, 60), examples(2, 120), examples(4, 20), groups=owners)
    mixed = mix_arms(request, 3)
    assert mixed.crossed
    assert len(np.unique(mixed.group)) == 110
    for group in np.unique(mixed.group):
        assert len(np.unique(mixed.half[mixed.group == group])) == 1


def test_the_rate_decides_and_is_printed() -> None:
    benign = fixed_suite(TASK, rate=0.5)[-2]
    assert isinstance(benign.attack, ur.attacks.Relearn)
    assert benign.attack.learning_rates == (0.5,)
    assert benign.attack.fit == Fit(batch_size=64, momentum=0.9, weight_decay=0.0, batchnorm="frozen", clip=5.0)


def test_a_large_language_model_is_fine_tuned_by_a_low_rank_change(
    text_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import unrecall.harness.fixed_suite as suite

    w = text_world
    ranks = {}
    for limit in (suite.LARGE, 0):
        monkeypatch.setattr(suite, "LARGE", limit)
        tested, _ = beside_never_trained(Setting(Models(w.original, w.original), w.request, w.task, session=CPU))
        ranks[limit] = {attack.name: attack.parameters.get("rank") for attack in tested.attacks}
    small, large = ranks.values()
    assert small == {"as_it_is": None, "quantise": None, "benign_15": 0, "benign_120": 0, "symmetric": 0}
    assert large == small | {"benign_15": 16, "benign_120": 16, "symmetric": 16}


def test_the_names_that_a_check_knows_are_those_of_the_suites() -> None:
    from tests.worlds import word_tokenizer

    tasks = (TASK, ur.tasks.CausalLM(word_tokenizer()), ur.tasks.Contrastive(word_tokenizer()))
    assert tuple(tuple(fixed.name for fixed in fixed_suite(task)) for task in tasks) == FIXED_SUITES


def test_an_example_that_the_holdout_has_twice_is_one() -> None:
    twice = [*examples(2, 12), *examples(2, 1)]
    mixed = mix_arms(ur.Request(examples(1, 12), examples(3, 60), twice, examples(4, 20)), 9)
    assert len(mixed.examples) == 24


def test_planted_pairs_are_strata_and_stay_in_one_half() -> None:
    pairs = [(i + 7) % 50 for i in range(50)]
    request = ur.Request(
        examples(1, 50), examples(3, 60), examples(2, 50), examples(4, 20), control="planted", pairs=pairs
    )
    mixed = mix_arms(request, 3)
    places = mixed.examples.indices
    partner = {i: 50 + j for i, j in enumerate(pairs)}
    for stratum in np.unique(mixed.stratum):
        first, second = sorted(places[i] for i in np.flatnonzero(mixed.stratum == stratum))
        assert partner[first] == second
        assert len(np.unique(mixed.half[mixed.stratum == stratum])) == 1
    assert mixed.crossed
