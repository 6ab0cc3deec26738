"""Who is on the device, and who waits: on a device that only notes who comes and goes."""

import copy

import pytest
import torch
from torch import nn

from unrecall.models.observe import device_of
from unrecall.nn import waiting
from unrecall.nn.waiting import ask_for, room_for, size_of, taking_turns

CPU = torch.device("cpu")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What came ("+0") and went ("-0") of models that are numbered by their bias."""
    lines: list[str] = []

    class Noted(waiting.Places):
        def enter(self, model: nn.Module) -> None:
            lines.append(f"+{number(model)}")

        def leave(self, model: nn.Module) -> None:
            lines.append(f"-{number(model)}")

    monkeypatch.setattr(waiting, "Places", Noted)
    monkeypatch.setattr(waiting, "room_for", lambda models, device: 2)
    return lines


def number(model: nn.Module) -> int:
    (bias,) = [value for name, value in model.named_parameters() if name == "bias"]
    return int(bias.item())


def numbered(count: int) -> list[nn.Module]:
    models: list[nn.Module] = [nn.Linear(2, 1) for _ in range(count)]
    for i, model in enumerate(models):
        nn.init.constant_(model.get_parameter("bias"), i)
    return models


def test_who_was_asked_for_longest_ago_leaves(log: list[str]) -> None:
    first, second, third = models = numbered(3)
    with taking_turns(models, CPU) as present:
        assert present == 2
        assert log == ["-0", "-1", "-2"]
        log.clear()
        ask_for(first)
        second(torch.zeros(1, 2))  # a forward pass asks too
        ask_for(first)
        assert log == ["+0", "+1"]
        assert device_of(third) == CPU  # and so does who asks where it is
        assert log == ["+0", "+1", "-1", "+2"]
    log.clear()
    ask_for(second)
    second(torch.zeros(1, 2))
    assert log == []
    assert not second._forward_pre_hooks


def test_a_copy_never_waits(log: list[str]) -> None:
    first, second, third = numbered(3)
    with taking_turns([first, second, third], CPU):
        copied = copy.deepcopy(first)
        log.clear()
        copied(torch.zeros(1, 2))
        ask_for(copied)
        assert log == []


def test_all_stay_where_there_is_room(log: list[str]) -> None:
    with taking_turns(numbered(2), CPU) as present:
        assert present == 2
    assert log == []


def test_a_fault_inside_leaves_no_hook(log: list[str]) -> None:
    models = numbered(3)
    with pytest.raises(ZeroDivisionError), taking_turns(models, CPU):
        raise ZeroDivisionError
    assert not any(model._forward_pre_hooks for model in models)
    assert not any(model in waiting.PLACES for model in models)


def test_half_of_the_free_memory_is_for_models_that_stand_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a layer of 2 x 1 and its bias take 12 bytes; of 60 free and 36 that PyTorch holds, models get 48."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 36)
    cuda = torch.device("cuda")
    assert [room_for(numbered(count), cuda) for count in (4, 5)] == [4, 4]
    assert room_for([nn.Linear(30, 1), *numbered(3)], cuda) == 2
    assert room_for(numbered(9), CPU) == 9


def test_models_that_share_a_tensor_stay_together(log: list[str]) -> None:
    features = nn.Linear(2, 2)
    models = [nn.Sequential(features, nn.Linear(2, 1)) for _ in range(3)]
    with taking_turns(models, CPU) as present:
        assert present == 3
    assert log == []


def test_who_takes_turns_inside_goes_back_to_wait(log: list[str]) -> None:
    """An audit inside an audit: when it ends, the outer one's models wait as before, and are brought again."""
    first, second, third = models = numbered(3)
    with taking_turns(models, CPU):
        ask_for(first)
        with taking_turns([first, second, numbered(1)[0]], CPU):
            ask_for(second)
        log.clear()
        ask_for(first)
        assert log == ["+0"]
        assert third in waiting.PLACES
    assert not any(model in waiting.PLACES for model in models)


def test_the_size_counts_weights_and_buffers() -> None:
    """By hand: 3 weights, 3 biases, two running figures of 3, and a count: 12 numbers of 4 bytes, one of 8."""
    assert size_of(nn.BatchNorm1d(3)) == 12 * 4 + 8
