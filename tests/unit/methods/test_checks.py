"""What a method and a search for its strength refuse before they do anything, as an audit does."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import unrecall as ur
from tests.worlds import CPU
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.experiment.tune import tune
from unrecall.methods.base import Method
from unrecall.scenarios.image_text import load_clip
from unrecall.scenarios.language import load
from unrecall.tasks import Classification
from unrecall.training.randomness import seeded

METHODS = [
    ur.methods.Finetune(),
    ur.methods.SSD(),
    ur.methods.TaskVector(),
    ur.methods.EC(),
    ur.methods.LoRA(),
    ur.methods.SalUn(),
]
Act = Callable[[nn.Module, Request], object]


class Giving(nn.Module):
    """A network whose output is what `change` makes of its logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.change = nn.Linear(4, 3), change

    def forward(self, inputs: Tensor) -> Any:
        return self.change(self.inner(inputs))


def pairs(n: int, seed: int, label: Callable[[int], Any] = int) -> list[tuple[Tensor, Any]]:
    inputs = torch.rand(n, 4, generator=seeded(seed))
    return [(inputs[i], label(i % 3)) for i in range(n)]


def request(label: Callable[[int], Any] = int, **sets: Any) -> Request:
    usual = {"forget": pairs(8, 1, label), "retain": pairs(24, 2, label), "holdout": pairs(8, 3), "test": pairs(8, 4)}
    return Request(**{**usual, **sets})


def job(asked: Request) -> ur.Job:
    return ur.Job(asked, Classification(), seeded(0), CPU)


def acts() -> dict[str, Act]:
    def unlearning(method: Method) -> Act:
        return lambda model, asked: method.unlearn(model, job(asked))

    def audited(model: nn.Module, asked: Request) -> object:
        after = copy.deepcopy(model)
        return ur.audit(original=model, unlearned=after, request=asked, task=Classification(), session=CPU)

    return {type(method).__name__: unlearning(method) for method in METHODS} | {
        "tune": lambda model, asked: tune(ur.methods.GradDiff(), model, job(asked), trials=1),
        "audit": audited,
    }


each_act = pytest.mark.parametrize("act", acts().values(), ids=acts().keys())


@each_act
def test_models_that_give_no_logits_are_refused(act: Act) -> None:
    wrong: dict[str, Callable[[Tensor], Any]] = {
        "got probabilities.*wrap the model": lambda logits: logits.softmax(1),
        "got tuple.*Wrap the model": lambda logits: (logits, logits),
        "got dict.*Wrap the model": lambda logits: {"logits": logits},
        "got SimpleNamespace.*Wrap the model": lambda logits: SimpleNamespace(logits=logits),
    }
    for message, change in wrong.items():
        with pytest.raises(BadInput, match=f"^model: expected logits.*{message}"):
            act(Giving(change), request())
    with pytest.raises(BadInput, match="float32"):
        act(nn.Linear(4, 3).double(), request())


@each_act
def test_labels_that_are_no_classes_are_refused(act: Act) -> None:
    with pytest.raises(BadInput, match=r"forget\[0\]: expected a label in 0\.\.2 .*got 5\. Number"):
        act(nn.Linear(4, 3), request(lambda _: 5))
    for label in (str, lambda k: torch.eye(3)[k], lambda k: k + 0.5):
        with pytest.raises(BadInput, match=r"forget\[0\]: expected \(input, label\).*Wrap the data set"):
            act(nn.Linear(4, 3), request(label))


@each_act
def test_models_that_can_not_be_changed_are_refused(act: Act) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear}, dtype=torch.qint8)
        scripted, traced = torch.jit.script(network), torch.jit.trace(network, torch.rand(2, 4))
    in_bytes = copy.deepcopy(network)
    in_bytes[0].weight = nn.Parameter(torch.zeros(8, 4, dtype=torch.uint8), requires_grad=False)
    in_words = copy.deepcopy(network)
    in_words[0].register_buffer("qweight", torch.zeros(8, 4, dtype=torch.int32))
    for model, what in ((packed, "DynamicQuantizedLinear"), (in_bytes, "0.weight in uint8"), (in_words, "0.qweight")):
        with pytest.raises(BadInput, match=f"expected weights in floats, got quantised ones .{what}.*before it was"):
            act(model, request())
    for model in (scripted, traced):
        with pytest.raises(BadInput, match=r"got a scripted or traced one.*Give the model that it was made from"):
            act(model, request())
    with pytest.raises(BadInput, match="a model without parameters"):
        act(nn.Flatten(), request())
    with pytest.raises(BadInput, match=r"expected a torch\.nn\.Module, got OrderedDict"):
        act(network.state_dict(), request())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Pass an example through the model first"):
        act(nn.LazyLinear(3), request())


def test_whole_numbers_in_double_precision_are_read() -> None:
    doubled = request(float, forget=[(x.double(), float(y)) for x, y in pairs(8, 1)])
    model = nn.Linear(4, 3)
    for method in (ur.methods.Finetune(), ur.methods.SSD()):
        first, second = (method.unlearn(model, job(asked)).state_dict() for asked in (doubled, request()))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_sets_that_are_no_data_sets_are_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(pairs(3, 9))

        def __len__(self) -> int:
            return 3

    for name in ("forget", "retain", "holdout", "test", "validation"):
        with pytest.raises(BadInput, match=f"{name} .*got DataLoader. Give the data set, not its loader"):
            request(**{name: DataLoader(pairs(8, 9), batch_size=2)})  # type: ignore[arg-type]
        for wrong in (iter(pairs(8, 9)), Stream(), {"train": pairs(8, 9)}, "data.jsonl", 3):
            with pytest.raises(
                BadInput, match=f"Request: expected {name} to be a data set .*got {type(wrong).__name__}"
            ):
                request(**{name: wrong})
    for name in ("holdout", "test"):
        with pytest.raises(BadInput, match=rf'{name}=ur\.Absent\("\.\.\."\)'):
            request(**{name: None})
    assert len(request(holdout=ur.Absent("nobody kept any")).holdout) == 0


def test_a_class_of_one_s_own_is_checked_too() -> None:
    class Mine(Method):
        def unlearn(self, model: nn.Module, job: ur.Job) -> nn.Module:
            raise AssertionError("this ran before the check")

    with pytest.raises(BadInput, match="expected logits"):
        Mine().unlearn(Giving(lambda logits: (logits,)), job(request()))


def test_wrong_validation_is_named_as_such() -> None:
    with pytest.raises(BadInput, match=r"validation\[0\]: expected a label"):
        tune(ur.methods.GradDiff(), nn.Linear(4, 3), job(request(validation=pairs(8, 9, lambda _: 7))), trials=1)


class Counted:
    """Examples that count how often they are read."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.reads = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Any:
        self.reads += 1
        return self.items[index]


def test_the_check_reads_a_request_once() -> None:
    retain = Counted(pairs(24, 2))
    asked, model = request(retain=retain), nn.Linear(4, 3)

    def reads() -> int:
        before = retain.reads
        ur.methods.GradAscent().unlearn(model, job(asked))
        return retain.reads - before

    assert reads() > reads() == reads(), "the second time nothing is looked for again"


GPTQ = {"quant_method": "gptq", "bits": 4}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize("how", [GPTQ, NF4])
def test_quantised_folders_are_refused(how: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": how}))
    for opening in (load, load_clip):
        with pytest.raises(BadInput, match=r"expected weights in floats, got quantised ones \((gptq|bitsandbytes)\)"):
            opening(str(tmp_path))
