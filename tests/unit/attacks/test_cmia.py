"""Class membership by neighbours: shares and gaps by hand, what is left of the probabilities, and both controls."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.attacks.running import setting_of
from tests.worlds import World
from unrecall.attacks.cmia import CMIA, View, gap, neighbours
from unrecall.data.examples import Absent
from unrecall.errors import MissingReference, NotSupported
from unrecall.evidence.setting import Models
from unrecall.harness.inspection import inspection_finding


def test_neighbours_by_hand() -> None:
    """Mean probabilities over two models: 0.35, 0.45, 0.2."""
    first, second = np.log([[0.6, 0.3, 0.1]]), np.log([[0.1, 0.6, 0.3]])
    assert neighbours([first, second]).tolist() == [1, 0, 2]


def test_shares_by_hand() -> None:
    """One example a class: the SVM's decision is 1 at its neighbour's and -1 at the other's, in between by distance."""
    test = View(np.array([[0.0, -2, 0], [-2, 0, 0], [9, 9, 9]]), np.array([2, 3, 1]), np.array([2, 3, 0]))
    forget = View(
        np.array([[-1.0, -1, 0], [-0.5, -1.5, 0], [0, -9, 0], [-9, 0, 0]]), np.array([1, 1, 1, 4]), test.classes
    )
    shares = CMIA(others=1)._shares({"forget": forget, "test": test}, {1: np.array([0, 1, 2])})
    assert shares["forget"].shape == (1, 4)
    assert shares["forget"][0, :3].tolist() == pytest.approx([0.5, 0.75, 1])
    assert np.isnan(shares["forget"][0, 3]), "of another forgotten class"
    with pytest.raises(NotSupported, match="test examples of every class"):
        CMIA()._shares({"forget": forget, "test": test}, {1: np.array([0, 1, 2])})


def test_the_gap_by_hand() -> None:
    """(|0.75 - 0.5| + |0.2 - 0.6|) / 2; each SVM over the examples that it is asked about, others' mean beside it."""
    own = np.array([[1.0, 0.5, np.nan], [np.nan, 0.2, 0.2]])
    others = [np.array([[0.5, 0.3, np.nan], [np.nan, 0.4, 0.4]]), np.array([[0.5, 0.7, np.nan], [np.nan, 0.8, 0.8]])]
    estimate = gap(own, others)
    assert estimate.value == pytest.approx(0.325)
    # Without each example: (0 + 0.4) / 2, (0.5 + 0.4) / 2, (0.25 + 0.4) / 2.
    without = np.array([0.2, 0.45, 0.325])
    half = 4.303 * np.sqrt(2 / 3 * np.square(without - without.mean()).sum())
    assert estimate.low == pytest.approx(max(0, 0.325 - half), abs=1e-3)
    assert estimate.high == pytest.approx(min(1, 0.325 + half), abs=1e-3)
    assert gap(own, [own]).value == 0
    assert "other than itself" in gap(own, []).note
    assert "too few" in gap(own[:1, :1], [own[:1, :1]]).note


def test_the_forgotten_class_has_no_part(class_world: World) -> None:
    w, setting = class_world, setting_of(class_world)
    view = CMIA()._view(w.original, setting, w.request.forget)
    assert view.classes.tolist() == [1, 2, 3]
    assert np.exp(view.outputs).sum(1) == pytest.approx(1)
    assert set(view.targets.tolist()) == {0}
    shifted = torch.nn.Sequential(w.original, Shift())
    again = CMIA()._view(shifted, setting, w.request.forget)
    assert np.allclose(again.outputs, view.outputs, atol=1e-5)


class Shift(torch.nn.Module):
    """Moves the logit of the class that is forgotten."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + torch.tensor([7.0, 0, 0, 0])


def test_both_controls_hold(class_world: World) -> None:
    """And a retrained model that is the unlearned one has that one's gap."""
    report = inspection_finding(CMIA(), setting_of(class_world, class_world.retrained[0])).report
    assert report.positive_holds, report.positive_control
    assert report.negative_holds, report.negative_control
    role = {series.role: series.y for series in report.curves[0].series}
    assert role["unlearned"] == role["retrained 0"]


def test_what_it_cannot_compare_is_refused(class_world: World, samples_world: World) -> None:
    w = class_world
    with pytest.raises(NotSupported, match="a class to forget, got kind='samples'"):
        CMIA().inspect(w.original, setting_of(samples_world))
    with pytest.raises(MissingReference, match="a retrained model"):
        CMIA().inspect(w.original, replace(setting_of(w), models=Models(w.original, w.original)))
    with pytest.raises(MissingReference, match="nobody knows"):
        request = replace(w.request, test=Absent("nobody knows"))
        CMIA().inspect(w.original, replace(setting_of(w), request=request))
    two = replace(setting_of(w), request=replace(w.request, masked=(0, 1)))
    with pytest.raises(NotSupported, match="three classes or more besides the forgotten, got 2"):
        CMIA()._view(w.original, two, w.request.forget)
