"""What a method and a search for its strength refuse before they do anything, as an audit does."""

import copy
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import unrecall as ur
from tests.worlds import CPU, World, network
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.experiment.tune import tune
from unrecall.methods.base import Method
from unrecall.scenarios.image_text import load_clip
from unrecall.scenarios.language import load
from unrecall.tasks import Classification
from unrecall.tasks.base import check_inputs
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
    counts = {"forget": 8, "retain": 24, "holdout": 8, "test": 8}
    usual = {name: pairs(count, seed, label) for seed, (name, count) in enumerate(counts.items(), 1)}
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
        r"got tuple.*forward=lambda model, inputs: model\(inputs\)\[0\]\)": lambda logits: (logits, logits),
        r"got dict.*forward=lambda model, inputs: model\(inputs\)\['logits'\]\)": lambda logits: {"logits": logits},
        r"got SimpleNamespace.*forward=lambda model, inputs: model\(inputs\)\.logits\)": lambda logits: SimpleNamespace(
            logits=logits
        ),
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
    wrong: dict[str, Callable[[int], Any]] = {
        "Number the classes": str,
        r"multi-label.*int\(item\[1\]\.argmax": lambda k: torch.eye(3)[k],
        "a regression has no classes": lambda k: k + 0.5,
    }
    for message, label in wrong.items():
        with pytest.raises(BadInput, match=rf"forget\[0\]: expected \(input, label\).*{message}"):
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
    sets = request().sets
    doubled = request(**{name: [(x.double(), float(y)) for x, y in iterate(sets[name])] for name in sets})
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


class Holding(nn.Linear):
    """A layer that holds something beside its weights."""

    def __init__(self, what: Any) -> None:
        super().__init__(4, 3)
        self.what = what


class Training(nn.Module):
    """A network that gives something else while it is trained."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.change = nn.Linear(4, 3), change

    def forward(self, inputs: Tensor) -> Any:
        logits = self.inner(inputs)
        return self.change(logits) if self.training else logits


class Restless(nn.Linear):
    """A layer that draws in eval mode too."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(inputs))


def test_models_that_can_not_be_copied_or_switched_are_refused() -> None:
    act = acts()["Finetune"]
    for what in (threading.Lock(), (i for i in range(3)), torch.ones(2, requires_grad=True) * 2):
        with pytest.raises(BadInput, match=r"model: expected one that can be copied, got: .*Keep locks"):
            act(Holding(what), request())
    exported = torch.export.export(nn.Linear(4, 3), (torch.rand(2, 4),)).module()
    with pytest.raises(BadInput, match=r"expected one that has a train and an eval mode, got .*that was exported"):
        act(exported, request())
    turning = nn.Linear(4, 3)
    turning.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(BadInput, match="expected weights in real numbers, got complex ones in 'phase'"):
        act(turning, request())


@each_act
def test_models_whose_answers_can_not_be_trained_or_repeated_are_refused(act: Act) -> None:
    for change, kind in (
        (lambda logits: (logits, logits), "tuple"),
        (lambda logits: {"logits": logits}, "dict"),
        (lambda _: None, "NoneType"),
        (lambda logits: logits[:, None], r"\(8, 1, 3\)"),
    ):
        with pytest.raises(BadInput, match=rf"logits \[examples, classes\] in train mode too, got {kind}"):
            act(Training(change), request())
    for change, kind in ((Tensor.long, "int64"), (lambda logits: logits.to(torch.complex64), "complex64")):
        with pytest.raises(BadInput, match=f"expected logits in floats, got {kind}"):
            act(Giving(change), request())
    with pytest.raises(BadInput, match="expected finite outputs, got NaN though weights"):
        act(Giving(lambda logits: logits * torch.nan), request())
    with pytest.raises(BadInput, match="expected the same outputs for the same inputs in eval mode"):
        act(Restless(), request())


def test_the_look_at_train_mode_leaves_statistics_and_randomness(samples_world: World) -> None:
    model, task = network(), Classification()
    before, drawn = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    check_inputs(task, model, samples_world.request)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(drawn, torch.random.get_rng_state())


@dataclass(frozen=True)
class Noisy(Classification):
    def collate(self, items: Sequence[Any]) -> dict[str, Tensor]:
        batch = super().collate(items)
        return {**batch, "inputs": (batch["inputs"] + 0.1 * torch.rand(batch["inputs"].shape)).clamp(0, 1)}


@dataclass(frozen=True)
class Listing(Classification):
    """Looks at nothing itself, and collates a list."""

    def check(self, model: nn.Module, request: Request) -> None:
        pass

    def collate(self, items: Sequence[Any]) -> Any:
        return list(items)


@dataclass(frozen=True)
class Silent(Classification):
    def rows(self, model: nn.Module, batch: dict[str, Tensor]) -> Any:
        return None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Noisy(), "Noisy: expected collate to give the same batch of the same examples, got two"),
        (Listing(), "Listing: expected collate to give a dict of tensors, got list"),
        (Silent(), "Silent: expected rows to give Rows with logits .*, got NoneType"),
    ],
)
def test_a_task_that_gives_something_else_is_refused(task: Classification, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ur.methods.Finetune().unlearn(nn.Linear(4, 3), ur.Job(request(), task, seeded(0), CPU))


def test_a_method_is_given_a_job_and_a_job_its_parts() -> None:
    model, asked, task = nn.Linear(4, 3), request(), Classification()
    for wrong in (asked, None, model):
        with pytest.raises(BadInput, match=r"Finetune: expected job to be a Job, as ur\.Job\(request, task\) is, got"):
            ur.methods.Finetune().unlearn(model, wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Job: expected request to be a Request, got"):
        ur.Job(task, asked)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Job: expected task to be a Task, as"):
        ur.Job(asked, Classification)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Job: expected session to be a Session, got 'x'"):
        ur.Job(asked, task, session="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("seed", "x"),
            ("seed", -1),
            ("request", {}),
            ("session", "x"),
            ("method", 3),
            ("retrained", None),
            ("task", None),
        ],
        *[("rate", 0), ("rate", float("nan")), ("run", "x"), ("show_examples", "no"), ("defender", "x")],
    ],
)
def test_an_audit_is_given_what_it_names(name: str, value: Any) -> None:
    usual = {"request": request(), "task": Classification(), "session": CPU}
    with pytest.raises(BadInput, match=f"^audit: expected {name} to be "):
        ur.audit(original=nn.Linear(4, 3), unlearned=nn.Linear(4, 3), **{**usual, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("retain_drop", float("nan")), ("retain_drop", -5), ("trials", 0), ("method", 3), ("job", None)],
)
def test_tuning_is_given_what_it_names(name: str, value: Any) -> None:
    usual = {"method": "finetune", "model": nn.Linear(4, 3), "job": ur.Job(request(), Classification())}
    with pytest.raises(BadInput, match=f"^tune: expected {name} to be "):
        ur.tune(**{**usual, name: value})  # type: ignore[arg-type]


def test_labels_that_no_class_can_have_are_refused() -> None:
    for label in (10**20, float("inf"), -(10**20)):
        with pytest.raises(BadInput, match=r"forget\[0\]: expected a label that numbers a class, got (-?1000|inf)"):
            ur.methods.Finetune().unlearn(nn.Linear(4, 3), job(request(lambda _, label=label: label)))


def test_a_model_that_can_not_be_asked_in_train_mode_is_refused() -> None:
    def fail(_: Tensor) -> Tensor:
        raise ValueError("targets should not be none when in training mode")

    with pytest.raises(BadInput, match=r"expected to accept inputs \(8, 4\), got: targets should not be none"):
        ur.methods.Finetune().unlearn(Training(fail), job(request()))
