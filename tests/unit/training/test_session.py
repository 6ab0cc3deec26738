"""Where work runs, and what a launcher may not make of it."""

import re
from typing import Any

import pytest
import torch

from unrecall.errors import BadInput
from unrecall.training.session import LEFT_ALONE, Session


@pytest.mark.parametrize("name", LEFT_ALONE)
@pytest.mark.parametrize("device", ["cpu", None])
def test_models_stay_whole_and_as_precise_as_they_are(
    name: str, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "bf16" if name == "MIXED_PRECISION" else "true"
    monkeypatch.setenv(f"ACCELERATE_{name}", asked)
    with pytest.raises(BadInput, match=f"ACCELERATE_{name}: expected models that stay whole .*, got '{asked}'. Unset"):
        Session(device=device).place()
    for harmless in ("no", "false", ""):
        monkeypatch.setenv(f"ACCELERATE_{name}", harmless)
        assert Session(device="cpu").place() == torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"every": "x"}, "every: expected seconds from 0 on, got 'x'. Give a number."),
        ({"every": -1}, "every: expected seconds from 0 on, got -1. Give a number."),
        ({"every": float("nan")}, "every: expected seconds from 0 on, got nan. Give a number."),
        ({"folder": 3}, "folder: expected a path or None, got 3. Give the path"),
    ],
)
def test_what_is_no_path_and_no_time_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=re.escape(told)):
        Session(**given)
