"""Activation patching: depth by hand, whose states are read at which layer, and what hides or never met forget."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.attacks.running import setting_of
from tests.worlds import World
from unrecall.attacks.patching import Patching, depth
from unrecall.data.examples import Absent
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Models
from unrecall.harness.inspection import copy_that_hides
from unrecall.models.observe import observe


def test_depth_by_hand() -> None:
    """(0.5 + 1) / (2 + 1); a loss beyond the base counts as the base, a gain as nothing; no layer above 0.05: none."""
    base = np.array([[2.0, 2.0, 0.05], [1.0, 0.04, -3.0]])
    lost = np.array([[0.5, -1.0, 9.0], [4.0, 9.0, 9.0]])
    depths = depth(lost, base, 0.05)
    assert depths[:2].tolist() == pytest.approx([0.5, 0.0])
    assert math.isnan(depths[2])


def test_the_original_reads_all_off_its_own_states(text_world: World) -> None:
    w = text_world
    inspection = Patching().inspect(w.original, setting_of(w))
    for arm in ("forget", "holdout"):
        own = observe(w.original, w.task, w.request[arm]).confidence.mean()  # type: ignore[index]
        assert inspection.lines[arm] == pytest.approx([own, own])
    assert inspection.x == (1, 2)
    assert inspection.value.value == pytest.approx(0, abs=1e-6)


def test_states_go_where_they_come_from(text_world: World) -> None:
    """A copy whose second layer alone differs is read rightly after its first."""
    w, copied = text_world, copy.deepcopy(text_world.original)
    with torch.no_grad():
        for p in copied.model.layers[1].parameters():  # type: ignore[union-attr,index]
            p.mul_(-1)
    inspection = Patching().inspect(copied, setting_of(w))
    own = float(observe(w.original, w.task, w.request.forget).confidence.mean())
    other = float(observe(copied, w.task, w.request.forget).confidence.mean())
    assert inspection.lines["forget"] == pytest.approx([own, other], abs=1e-5)  # norm and head are the same
    assert 0 < (inspection.value.value or 0) <= 0.5


def test_what_knowing_nothing_costs(text_world: World) -> None:
    """Half-way between the holdout's mean loss and an example's own is a depth of one half."""
    w, attack = text_world, Patching()
    plain, unseen = (observe(w.original, w.task, w.request[arm]).loss for arm in ("forget", "holdout"))  # type: ignore[index]
    base = np.broadcast_to(unseen.mean() - plain, (2, len(plain)))
    assert attack._value(base / 2, base).value == pytest.approx(0.5)
    assert "needs a retrained model other" in attack._value(base, None).note
    assert "no layer" in attack._value(base, -base).note


@pytest.mark.parametrize("beside", ["holdout", "retrained"])
def test_what_only_hides_is_less_deep_than_what_never_met_forget(text_world: World, beside: Any) -> None:
    w, attack = text_world, Patching(beside=beside)
    setting = setting_of(w)
    subjects = {**setting.models.by_role(), "hidden": copy_that_hides(setting)}
    values = {role: inspection.value.value for role, inspection in attack.inspect_all(subjects, setting).items()}
    assert values["original"] == pytest.approx(0, abs=1e-6)
    references: Any = [value for role, value in values.items() if role.startswith("retrained")]
    assert len(references) == 2
    assert values["hidden"] < min(references)
    assert min(references) > 0.5
    one = replace(setting, models=Models(w.original, w.original, w.retrained[:1]))
    alone = attack.inspect(w.retrained[0], one).value
    assert (alone.value is None) == (beside == "retrained")


def test_what_it_cannot_compare_is_refused(text_world: World) -> None:
    w = text_world
    bare = replace(setting_of(w), request=replace(w.request, holdout=Absent("none")))
    with pytest.raises(MissingReference, match=r"a holdout to compare with, got none\. Set beside='retrained'"):
        Patching().inspect(w.original, bare)
    assert Patching(beside="retrained").inspect(w.original, bare).lines.keys() == {"forget"}
    alone = replace(setting_of(w), models=Models(w.original, w.original))
    with pytest.raises(MissingReference, match=r"a retrained model to compare with, got none\. Set beside='holdout'"):
        Patching(beside="retrained").inspect(w.original, alone)
    for changes, message in (((3, 32), "expected 2 layers, as the original has, got 3"), ((2, 64), "states of shape")):
        with pytest.raises(NotSupported, match=message):
            Patching().inspect(other(len(w.task.tokenizer), *changes), setting_of(w))  # type: ignore[attr-defined]


def other(words: int, layers: int, width: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 8, "num_attention_heads": 2}
    with torch.random.fork_rng():
        return LlamaForCausalLM(LlamaConfig(vocab_size=words, **sizes))
