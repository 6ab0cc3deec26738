"""One person out of a face model of 40: the page on it runs as it stands, in Python and by one command."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import unrecall as ur
from tests.end_to_end.test_cli import call
from tests.worlds import CPU
from unrecall.errors import BadInput
from unrecall.experiment.cell import scenario_of
from unrecall.record.schema import Record, load

PAGE = (Path(__file__).parents[2] / "docs" / "faces.md").read_text(encoding="utf-8")
LINES, SCENARIO, GALLERY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = '"grad_diff"', '"grad_diff", attacks="loss", session=session'


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    (path / "faces.py").write_text(SCENARIO, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def scenario(folder: Path) -> ur.Scenario:
    return scenario_of(f"{folder / 'faces.py'}:make")


@pytest.fixture(scope="module")
def model(scenario: ur.Scenario) -> nn.Module:
    return scenario.train_original(0, CPU).model


def values(record: Record, name: str) -> list[float | None]:
    row = record.measurement(name)
    assert row is not None
    return [row.original.value, row.unlearned.value]


def test_five_lines_forget_one_person_and_nobody_else(scenario: ur.Scenario, model: nn.Module) -> None:
    request = scenario.request
    faces = [*(request.forget[i] for i in range(12)), *(request.retain[i] for i in range(468))]
    names = {"faces": faces, "others": request.test, "model": model, "session": CPU}
    lines = [line for line in LINES.splitlines() if line and not line.startswith("import")]
    assert len(lines) == 5
    exec(compile(LINES.replace(*QUICK), "faces.md", "exec"), names)
    record = names["outcome"].record  # type: ignore[union-attr]
    assert values(record, "forget_accuracy") == [1.0, 0.0]
    assert values(record, "retain_accuracy") == [1.0, 1.0]
    assert min(v for v in values(record, "test_accuracy") if v is not None) > 0.98
    assert record.tuning is not None, "a class is tuned without a holdout"
    assert (record.verdict.label, record.measurement("loss_auc").unlearned.value) == ("not judged", None)  # type: ignore[union-attr]
    assert "no holdout was given" in record.measurement("loss_auc").unlearned.note  # type: ignore[union-attr]
    weights = torch.load("without-7.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in names["outcome"].model.state_dict().items())  # type: ignore[union-attr]
    assert "<html" in Path("without-7.html").read_text(encoding="utf-8")


def test_one_command_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"^unrecall (run .*)$", PAGE, re.MULTILINE)
    words = command.replace("--suite quick", "--suite loss").split()
    assert call(*words, "--device", "cpu") == 0
    record = load(Path("gone/seed-0/record.json"))
    assert values(record, "forget_accuracy") == [1.0, 0.0]
    assert len(record.measurement("forget_accuracy").references) == 5  # type: ignore[union-attr]
    assert "grad_diff" in capsys.readouterr().out


def test_the_doctor_looks_at_the_case_first(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"^unrecall (doctor [^#]*)", PAGE, re.MULTILINE)
    assert call(*command.split(), "--suite", "loss", "--device", "cpu") == 0
    said = capsys.readouterr().out
    for line in (
        "faces: person 7 of 40 asked to be forgotten",
        "data       forget 12, retain 468, holdout 8, test 312",
        "retrained  5 x 160 steps of ",
        "in all ",
        "verdict    beside 5 retrained models: ",
    ):
        assert line in said
    assert call("doctor", "faces.py:makes") == 2
    assert "Did you mean 'make'?" in capsys.readouterr().err
    assert call("doctor", "--scenario", "faces.py:make", "--alone", "--suite", "loss", "--device", "cpu") == 0
    assert call("doctor", "faces.py:make", "--scenario", "digits") == 2
    assert call("doctor", "digits", "--suite", "loss", "--against", "loss") == 2
    assert "no verdict on what is still known: a whole class must go" in capsys.readouterr().out


def test_a_gallery_behind_an_embedder_is_a_classifier(scenario: ur.Scenario, model: nn.Module) -> None:
    class Unit(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return nn.functional.normalize(values)

    embedder = nn.Sequential(*list(model)[:3], Unit())  # type: ignore[call-overload]
    task = ur.tasks.Classification()
    with pytest.raises(BadInput, match=r"got embeddings .*Put the gallery behind it as a linear layer"):
        task.check(embedder, scenario.request)
    faces = [scenario.request.retain[i] for i in range(468)] + [scenario.request.forget[i] for i in range(12)]
    with torch.no_grad():
        shown = embedder(torch.stack([face for face, _ in faces]))
        of = torch.tensor([who for _, who in faces])
        gallery = nn.functional.normalize(torch.stack([shown[of == who].mean(0) for who in range(40)]))
    names = {"torch": torch, "gallery": gallery, "embedder": embedder}
    exec(compile(GALLERY, "faces.md", "exec"), names)
    recogniser: nn.Module = names["recogniser"]  # type: ignore[assignment]
    outcome = ur.forget(recogniser, scenario.request, "delete", attacks="loss", session=CPU)
    assert values(outcome.record, "forget_accuracy") == [1.0, 0.0]
    assert min(v for v in values(outcome.record, "retain_accuracy") if v is not None) > 0.95
    assert torch.equal(outcome.model[1].weight, recogniser[1].weight), "the gallery stays as it was"  # type: ignore[index]
