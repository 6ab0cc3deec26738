"""Digits that were entered wrongly, and must go."""

import pytest
import torch
from sklearn.datasets import load_digits

from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.scenarios.digits import Digits


def test_what_was_entered_wrongly_must_go_and_the_test_set_is_right() -> None:

    bunch = load_digits()
    true = {
        digest(torch.tensor(x, dtype=torch.float32)[None] / 16): int(y)
        for x, y in zip(bunch.images, bunch.target, strict=True)
    }
    request = Digits(forget="mistakes:0.1").make().request
    wrong = {
        name: [label != true[digest(picture)] for picture, label in iterate(data)]
        for name, data in request.sets.items()
    }
    assert all(wrong["forget"]) and all(wrong["holdout"]) and all(wrong["validation"])
    assert not any(wrong["retain"]) and not any(wrong["test"])
    assert sum(map(len, wrong.values())) == len(bunch.target)
    assert sum(map(sum, wrong.values())) == round(0.1 * len(bunch.target))
    assert len(request.forget) + len(request.retain) == 1000


def test_of_wrong_entries_it_is_said_what_they_are_and_that_the_holdout_has_them_too() -> None:
    """Else an accuracy of 0 on the holdout, of retrained models too, looks like a fault."""
    summary = Digits(forget="mistakes:0.1").make().summary
    assert "; 106 of 1000 training pictures were entered under a wrong digit, and these entries must go. The" in summary
    assert "The holdout is 49 more such entries, which no model was trained on: a model that gives the right" in summary
    assert Digits().make().summary.endswith("; forget share:0.25 of 1000 training pictures")


def test_a_share_of_mistakes_is_between_0_and_1() -> None:
    with pytest.raises(BadInput, match="between 0 and 1, got '2'"):
        Digits(forget="mistakes:2").make()
