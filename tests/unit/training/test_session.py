"""Where work runs, and what a launcher may not make of it."""

import re
import time
from typing import Any

import pytest
import torch

from unrecall.errors import BadInput
from unrecall.training import session as module
from unrecall.training.session import UNSUPPORTED_ACCELERATE_OPTIONS, Session, TimeLeft, duration


@pytest.mark.parametrize("name", UNSUPPORTED_ACCELERATE_OPTIONS)
@pytest.mark.parametrize("device", ["cpu", None])
def test_models_stay_whole_and_as_precise_as_they_are(
    name: str, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "bf16" if name == "MIXED_PRECISION" else "true"
    monkeypatch.setenv(f"ACCELERATE_{name}", asked)
    with pytest.raises(BadInput, match=f"ACCELERATE_{name}: expected models that stay whole .*, got '{asked}'. Unset"):
        Session(device=device).torch_device()
    for harmless in ("no", "false", ""):
        monkeypatch.setenv(f"ACCELERATE_{name}", harmless)
        assert Session(device="cpu").torch_device() == torch.device("cpu")


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


def test_progress_says_how_long_the_rest_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    assert list(Session(show=True).track("abcd", "fit", 4)) == [*"abcd"]
    # Two calls before the first item, at 0 and 10; items at 20, 30, 40 and 50, of which every second one is due.
    assert capsys.readouterr().err.splitlines() == [
        "fit: 1 of 4, about 60 s left",
        "fit: 3 of 4, about 13 s left",
        "fit: done in 60.0 s",
    ]
    assert list(Session().track("ab", "fit", 2)) == [*"ab"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (180, "3 min"), (9000, "2.5 h")]
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_that_is_left_is_told_by_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: parts of 1, 1 and 3. After 10 s one is done: 40 s for 4; after 30 s two: 45 s for 3."""
    now = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    left = TimeLeft([1, 1, 3])
    assert [left.words(), left.words(), left.words()] == ["", "; about 40 s left", "; about 45 s left"]


def test_what_is_hardly_begun_says_nothing_of_the_time_left() -> None:
    """A look at all data beside 120 steps is no measure of these."""
    left = TimeLeft([1, 1, 16, 121])
    assert [bool(left.words()) for _ in range(4)] == [False, False, False, True]
