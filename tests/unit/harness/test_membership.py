"""What membership scores come to: areas by hand, and whether less than one half is a sign or chance."""

import math

import numpy as np
import pytest
from torch import nn

from tests.worlds import blobs
from unrecall.attacks import REMIND, Loss, MembershipAttack
from unrecall.data.request import Request
from unrecall.evidence.pool import ArmIndices
from unrecall.evidence.scores import Point, Scores
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.evaluation import Evaluation
from unrecall.harness.finding import Finding
from unrecall.harness.membership import finding
from unrecall.record.doubts import Facts, doubts
from unrecall.tasks import Classification


def of(attack: MembershipAttack, forget: list[float], holdout: list[float]) -> Finding:
    """What an attack with these scores of every model comes to."""
    data = blobs(8, 2, 0)
    model = nn.Linear(2, 2)
    setting = Setting(Models(model, model), Request(data[:2], data[2:4], data[4:6], data[6:]), Classification())
    arms = (np.array(forget), np.array(holdout))
    places = {
        "forget": ArmIndices(0, np.arange(len(forget)), np.arange(len(forget))),
        "holdout": ArmIndices(1, np.arange(len(holdout)), np.arange(len(holdout))),
    }
    scores = Scores.of([Point(0.0, "", arms, (math.nan, math.nan))])
    return finding(Evaluation(attack, setting, places, {"original": scores, "unlearned": scores}, {}))


def test_the_area_by_hand() -> None:
    area, rate, *_ = of(Loss(), [3.0, 1.0], [2.0, 0.0]).measurements
    assert (area.name, rate.name) == ("loss_auc", "loss_tpr")
    assert area.unlearned.value == 0.75, "three of four pairs are in order"


@pytest.mark.parametrize(("attack", "chance", "stands_out"), [(Loss(), 0.5, True), (REMIND(), None, False)])
def test_less_than_one_half_is_a_sign_unless_the_arms_were_learned(
    attack: MembershipAttack, chance: float | None, stands_out: bool
) -> None:
    area, rate, *_ = of(attack, [0.0, 0.1, 0.2, 0.3, 0.4] * 8, [1.0, 1.1, 1.2, 1.3, 1.4] * 8).measurements
    assert (area.chance, rate.chance) == (chance, None)
    facts = Facts(sizes={"forget": 60, "holdout": 60}, measurements={area.name: area}, reports=[], references=5)
    assert [doubt.id for doubt in doubts(facts)] == ["stands-out"] * stands_out
