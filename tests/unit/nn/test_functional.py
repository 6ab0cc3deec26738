"""Losses say which labels they can't have."""

import pytest
import torch

from unrecall.errors import BadInput
from unrecall.nn.functional import nll


def test_a_label_that_is_no_output_is_named() -> None:
    logits = torch.zeros(3, 4)
    assert nll(logits, torch.tensor([0, 3, 1])).tolist() == pytest.approx([1.3862944] * 3)  # log 4
    with pytest.raises(BadInput, match="labels: expected 0 to 3, as many as the model has outputs, got 0 to 4"):
        nll(logits, torch.tensor([0, 4, 1]))
