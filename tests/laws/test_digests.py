"""The weights of a model are hashed once in an audit, whatever is measured of it."""

import copy
import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, blobs, network
from unrecall.attacks import residual_knowledge
from unrecall.data.batches import Batch
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.evidence import model_keys, setting
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import audit
from unrecall.harness.evaluation import evaluate
from unrecall.harness.suites import suite
from unrecall.tasks import Classification
from unrecall.tasks.base import Task

DATA = blobs(32, 4, seed=5)
REQUEST = Request(DATA[:8], DATA[8:16], DATA[16:24], DATA[24:])
SUITES = (("loss",), ("loss", "svc", "linear_probe"), ("loss", "svc", "linear_probe", "cka", "grad_norm", "lira"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[nn.Module]:
    """How often each model was hashed."""
    counts: Counter[nn.Module] = Counter()

    def digest(model: nn.Module) -> str:
        counts[model] += 1
        return weights.digest_of(model)

    for module in (setting, model_keys):
        monkeypatch.setattr(module, "digest_of", digest)
    return counts


@pytest.mark.parametrize("attacks", SUITES)
@pytest.mark.parametrize("retrained", [1, 3])
def test_an_audit_hashes_each_model_once(counted: Counter[nn.Module], attacks: tuple[str, ...], retrained: int) -> None:
    models = [network(seed=seed) for seed in range(2 + retrained)]
    record = audit(
        original=models[0],
        unlearned=models[1],
        retrained=models[2:],
        null=models[0],
        request=REQUEST,
        task=Classification(),
        attacks=suite(*attacks),
        session=CPU,
    )
    assert counted == dict.fromkeys(models, 1)
    assert record.provenance.weights["unlearned"] == weights.digest_of(models[1])
    assert record.provenance.weights["null"] == record.provenance.weights["original"]


def test_a_setting_of_changed_models_hashes_anew(counted: Counter[nn.Module]) -> None:
    """What is known belongs to the models of one audit, so an edit in any way between two audits is seen."""
    model, other = network(seed=0), network(seed=1)

    def digest() -> str:
        return Setting(Models(model, other), REQUEST, Classification(), session=CPU).with_seed(1).digests["original"]

    digests = [digest()]
    model[4].weight.data.mul_(2)  # no version counter of the parameter shows it
    digests.append(digest())
    with torch.no_grad():
        model[4].bias.add_(1)
    digests.append(digest())
    model[6].weight = nn.Parameter(torch.ones(4, 32))
    digests.append(digest())
    model[1].running_mean.add_(1)
    digests.append(digest())
    model.load_state_dict(network(seed=3).state_dict())
    digests.append(digest())
    assert len(set(digests)) == 6
    assert counted == {model: 6, other: 6}


def test_one_model_alone_keeps_its_digest(counted: Counter[nn.Module]) -> None:
    models = Models(network(seed=0), network(seed=1), (network(seed=2),))
    alone = models.alone("retrained 0")
    assert (alone.original, alone.unlearned, alone.retrained) == (models.retrained[0], models.retrained[0], ())
    assert alone.digests == dict.fromkeys(("original", "unlearned"), weights.digest_of(models.retrained[0]))
    assert counted == dict.fromkeys(models.by_role().values(), 1)


@pytest.mark.parametrize("part", [1, 3, 2**22])
def test_a_digest_is_that_of_names_and_values(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand; in whatever parts, formats of two bytes, and orders in memory a model holds its weights."""
    monkeypatch.setattr(weights, "PART", part)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3))
    state = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        state.update(name.encode() + value.numpy().tobytes())
    assert weights.digest_of(model) == weights.digest_of(model.to(memory_format=torch.channels_last))
    assert weights.digest_of(model) == state.hexdigest()
    half = model.half()
    assert weights.digest_of(half) == weights.digest_of(copy.deepcopy(half).float()) != state.hexdigest()


def test_the_same_weights_are_the_same_bytes_in_order() -> None:
    model = network(seed=0)
    wrapped, half = nn.DataParallel(copy.deepcopy(model)), copy.deepcopy(model).half()
    assert weights.same_weights(model, model)
    assert weights.same_weights(model, wrapped)
    assert weights.same_weights(half, copy.deepcopy(half).float())
    assert not weights.same_weights(model, half)
    assert not weights.same_weights(model, nn.Sequential(*model[:-1]))
    assert not weights.same_weights(model, network(classes=5, seed=0))
    wrapped.module[1].num_batches_tracked.add_(1)
    assert not weights.same_weights(model, wrapped)
    missing = copy.deepcopy(model)
    missing[4].bias.data.fill_(math.nan)
    assert weights.same_weights(missing, copy.deepcopy(missing))


def test_equal_models_are_attacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unlearned model is the original's copy, and the null the original itself: two models are left."""
    original, asked = network(seed=0), set()
    recognised = residual_knowledge.recognised

    def counted(model: nn.Module, task: Task, batch: Batch) -> np.ndarray:
        asked.add(model)
        return recognised(model, task, batch)

    monkeypatch.setattr(residual_knowledge, "recognised", counted)
    models = Models(original, copy.deepcopy(original), (network(seed=1),), original)
    of = Setting(models, REQUEST, Classification(), session=CPU)
    attack = residual_knowledge.ResidualKnowledge(points=2, draws=2)
    scores = evaluate(attack, of).scores
    assert asked == {original, models.retrained[0]}
    assert np.array_equal(scores["unlearned"].shown[0], scores["original"].shown[0])
