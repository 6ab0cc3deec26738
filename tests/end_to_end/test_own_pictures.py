"""Your own image classifier and pictures by command line alone; what can't be used is one line, nothing is written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import call, one_line
from tests.worlds import small_vit
from unrecall.cli.lines import lines_of, own_kind
from unrecall.data.examples import Absent
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.record.schema import load as load_record
from unrecall.scenarios.classifiers import class_number, load_classifier
from unrecall.scenarios.pictures import Pictures, load_processor
from unrecall.tasks import TransformersPictures
from unrecall.tasks.picture_files import Picture, PictureFiles
from unrecall.tasks.pictures import Source
from unrecall.training.session import Session

COLOURS = ("red", "green", "blue")
PREPARATION = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 8, "width": 8},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
OWN = ["--model", "model", "--forget", "letter.txt", "--retain", "data"]
UNSEEN = ["--holdout", "unseen", "--test", "test.jsonl"]
HOW = ["--method", "grad_diff:lr=1e-3,epochs=1", "--device", "cpu", "--out", "out"]


def picture(number: int) -> Image.Image:
    """Noise in which the class's colour is the brightest."""
    pixels = np.random.default_rng(number).integers(0, 160, (12, 10, 3), dtype=np.uint8)
    pixels[..., number % 3] = 230
    return Image.fromarray(pixels)


def put(root: Path, numbers: range) -> None:
    """Pictures in a folder for each class."""
    for number in numbers:
        folder = root / COLOURS[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")


def write(name: str | Path, *lines: Any) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def trained(folder: Path) -> nn.Module:
    """A classifier that knows the pictures of `folder`."""
    names = dict(enumerate(COLOURS))
    model = small_vit(id2label=names, label2id={name: number for number, name in names.items()})
    files = sorted(folder.rglob("*.png"))
    inputs = torch.stack([torch.tensor(np.asarray(Image.open(file).resize((8, 8)))) for file in files])
    inputs = inputs.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(PREPARATION[key])[:, None, None] for key in ("image_mean", "image_std"))
    labels = torch.tensor([COLOURS.index(file.parent.name) for file in files])
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model((inputs - mean) / std).logits, labels).backward()
        optimizer.step()
    trained_model: nn.Module = model.eval()
    return trained_model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its base with other classes, three sets of pictures and a list of names."""
    made = tmp_path_factory.mktemp("pictures")
    put(made / "data", range(24))
    put(made / "unseen", range(24, 33))
    put(made / "more", range(33, 39))
    write(made / "test.jsonl", *({"image": f"more/{COLOURS[i % 3]}/{i}.png", "label": i % 3} for i in range(33, 39)))
    models = {"model": trained(made / "data"), "base": small_vit(5, 1)}
    for name, model in models.items():
        model.save_pretrained(made / name)  # type: ignore[operator]
        (made / name / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    (made / "letter.txt").write_text("# whose letter\nred/0.png\ngreen/1.png\n\nblue/2.png\nred/3.png\n")
    return made


@pytest.fixture(autouse=True)
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(saved, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_run_needs_no_file_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", *OWN, *UNSEEN, "--alone", *HOW, "--no-tune", "--suite", "quick", "--show-examples") == 0
    assert re.match(r"grad_diff:lr=0.001,epochs=1, seed 0: ", capsys.readouterr().out)
    record = load_record(Path("out/seed-0/record.json"))
    assert (record.scenario, record.kind) == ("pictures", "samples")
    assert record.sizes == {"forget": 4, "retain": 20, "holdout": 9, "test": 6}
    assert record.measurement("forget_accuracy").original.value == 1
    exhibits = {exhibit.index: exhibit.caption for exhibit in record.exhibits}
    assert re.fullmatch(r"blue: blue/2\.png, unlearned [\d.]+", exhibits[0])
    again = load_classifier(Pictures.kind, "out/seed-0/unlearned")
    assert weights.digest_of(again) == record.provenance.weights["unlearned"]
    assert not list(Path("out").rglob("*.part"))


def test_methods_are_compared_on_ones_own_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is tuned by default as `run` does it, but where its line sets the strength, or it has none."""
    words = ["bench", *OWN, *UNSEEN, "--alone", "--suite", "loss", "--device", "cpu", "--out", "grid", "--methods"]
    methods = "grad_diff:lr=1e-3,epochs=1 l1_sparse retrain:epochs=1"
    assert call(*words, methods) == 0
    records = {record.method.split(":")[0]: record for record in map(load_record, Path("grid").rglob("record.json"))}
    assert {name: record.tuning is not None for name, record in records.items()} == {
        "grad_diff": False,
        "l1_sparse": True,
        "retrain": False,
    }
    assert {record.scenario for record in records.values()} == {"pictures"}
    assert call(*words[:-2], "lora", "--lora", "r=2", "--methods", "finetune:epochs=1 grad_diff:epochs=1") == 0
    tuned = [load_record(path).tuning is not None for path in sorted(Path("lora").rglob("record.json"))]
    assert tuned == [True, True], "the rates that --lora sets are none of the line's"
    capsys.readouterr()
    assert call(*words, methods, "--no-tune") == 2
    assert "another" in one_line(capsys)


def test_a_model_goes_by_its_hub_id_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what the hub's library keeps, and not over the network."""
    from huggingface_hub import constants

    kept = tmp_path / "hub" / "models--who--vit"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    shutil.copytree("model", kept / "snapshots" / "abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made, here = (Pictures(model=model, forget="letter.txt", retain="data").make() for model in ("who/vit", "model"))
    assert made.original is not None and here.original is not None
    assert weights.digest_of(made.original) == weights.digest_of(here.original)
    assert (repr(made.task), made.precision) == (repr(here.task), here.precision)
    with pytest.raises(BadInput, match="who/else: expected a folder or a hub id that can be reached"):
        Pictures(model="who/else", forget="letter.txt", retain="data").make()


def test_tables_of_datasets_are_as_good_as_folders() -> None:
    """The same examples, and so the same request: from Parquet, from a saved folder, and from file_name in CSV."""
    datasets = pytest.importorskip("datasets")
    files = sorted(Path("data").rglob("*.png"))
    rows = [
        {"image": {"bytes": file.read_bytes(), "path": f"{file.parent.name}/{file.name}"}, "label": file.parent.name}
        for file in files
    ]
    labels = datasets.ClassLabel(names=sorted(COLOURS))  # in another order than the model's
    table = datasets.Dataset.from_list(rows, features=datasets.Features({"image": datasets.Image(), "label": labels}))
    table.to_parquet("data.parquet")
    table.save_to_disk("saved")
    Path("data.csv").write_text(
        "file_name,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files), encoding="utf-8"
    )
    letter = [line for line in Path("letter.txt").read_text().splitlines() if line and not line.startswith("#")]
    Path("longer.txt").write_text("".join(f"data/{line}\n" for line in letter))
    Path("shorter.txt").write_text("".join(f"{Path(line).name}\n" for line in letter))  # as save_to_disk calls them
    by_content = {
        path: Pictures(model="model", forget=names, retain=path, holdout="unseen").make().request.fingerprint
        for path, names in (
            ("data", "letter.txt"),
            ("data.csv", "longer.txt"),
            ("data.parquet", "letter.txt"),
            ("saved", "shorter.txt"),
        )
    }
    assert len(set(by_content.values())) == 1, by_content


def test_a_number_in_a_table_is_no_name(tmp_path: Path) -> None:
    """Classes that are called by numbers: which is meant isn't sure, whatever the table calls its pictures."""
    datasets = pytest.importorskip("datasets")
    config = Path("model/config.json")
    names = {"id2label": {"0": "1", "1": "2", "2": "3"}, "label2id": {"1": 0, "2": 1, "3": 2}}
    config.write_text(json.dumps(json.loads(config.read_text()) | names))
    data = Path("data/red/0.png").read_bytes()
    for path in ("one.png", None):
        rows = [{"image": {"bytes": data + bytes([i]), "path": path}, "label": i % 3} for i in range(6)]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        datasets.Dataset.from_list(rows, features=features).to_parquet("data.parquet")
        with pytest.raises(BadInput, match="expected a class that is sure, got 1"):
            Pictures(model="model", forget="data.parquet", retain="data.parquet").make()


def test_pictures_of_one_name_in_a_table_are_called_by_their_place() -> None:
    datasets = pytest.importorskip("datasets")
    files = sorted(Path("data").rglob("*.png"))
    rows = [{"image": {"bytes": file.read_bytes(), "path": "image.png"}, "label": file.parent.name} for file in files]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).to_parquet("data.parquet")
    Path("names.txt").write_text("image.png\n")
    with pytest.raises(BadInput, match=r"got 'image\.png'. They have names such as \['data\.parquet\[0\]'\]"):
        Pictures(model="model", forget="names.txt", retain="data.parquet").make()
    Path("names.txt").write_text("data.parquet[3]\n")
    request = Pictures(model="model", forget="names.txt", retain="data.parquet").make().request
    assert (len(request.forget), len(request.retain)) == (1, 23)


def test_of_all_methods_those_that_only_train_take_a_low_rank_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines, left_out = lines_of("all", "r=2")
    assert {"ssd", "retrain", "lora"} <= set(left_out)
    assert {"scrub", "grad_diff", "blur"} <= lines.keys()
    assert all(line.startswith("lora(") for line in lines.values())
    assert lines_of("all", None)[1] == []
    words = ["bench", *OWN, *UNSEEN, "--alone", "--lora", "q=2", "--out", "grid"]
    assert call(*words) == 2
    assert "unknown parameter 'q'" in capsys.readouterr().err.splitlines()[-1], "said, and no method left out for it"


def test_unlearn_leaves_a_folder_to_open_and_audit(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("unlearn", *OWN, "--no-tune", *HOW) == 0
    processor = load_processor("out/unlearned")
    assert (list(processor.image_mean), processor.size["height"]) == (PREPARATION["image_mean"], 8)
    sets = ["--forget", "letter.txt", "--retain", "data", *UNSEEN]
    audit = ["audit", "--original", "model", "--unlearned", "out/unlearned", *sets]
    assert call(*audit, "--alone", "--suite", "loss", "--device", "cpu", "--out", "audited") == 0
    digest = load_record(Path("audited/record.json")).provenance.weights["unlearned"]
    assert digest in capsys.readouterr().out


def test_a_model_whose_outputs_are_called_otherwise_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("model", "other")
    path = Path("other/config.json")
    names = {"0": "green", "1": "red", "2": "blue"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
    sets = ["--forget", "letter.txt", "--retain", "data", *UNSEEN]
    audit = ["audit", "--original", "model", "--unlearned", "other", *sets, "--alone", "--suite", "loss"]
    assert call(*audit, "--device", "cpu", "--out", "audited") == 2
    assert "expected id2label to name the classes as the original's does, got 'green' for 'red'" in one_line(capsys)
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"id2label": {"0": "LABEL_0", "1": "green", "2": "blue"}})
    )
    assert call(*audit, "--device", "cpu", "--out", "again") == 0


@pytest.mark.parametrize("change", [{"image_mean": [0.5] * 3}, {"size": {"height": 8, "width": 6}}, {"size": 3}])
def test_a_model_that_is_shown_other_pictures_is_not_compared(change: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("model", "other")
    path = Path("other/preprocessor_config.json")
    path.write_text(json.dumps(PREPARATION | change))
    sets = ["--forget", "letter.txt", "--retain", "data", *UNSEEN]
    audit = ["audit", "--original", "model", "--unlearned", "other", *sets, "--alone", "--suite", "loss"]
    assert call(*audit, "--device", "cpu", "--out", "audited") == 2
    message = one_line(capsys)
    assert "expected pictures prepared as the original's" in message or "image processor that Transformers" in message
    path.write_text(json.dumps(PREPARATION | {"image_std": [0.2, 0.3, 0.4001]}))
    assert call(*audit, "--device", "cpu", "--out", "audited") == 0


def test_what_the_scenario_holds() -> None:
    case = Pictures(model="model", forget="letter.txt", retain="data", test="test.jsonl").make()
    request, task = case.request, case.task
    assert isinstance(task, TransformersPictures)
    assert task.classes == COLOURS
    assert [len(request[name]) for name in ("forget", "retain", "test")] == [4, 20, 6]
    assert [request.forget[i][1] for i in range(4)] == [2, 1, 0, 0], "in the order of their files"
    assert request.indexed, "files are told by their bytes, and not by what is made of them"
    assert isinstance(request.holdout, Absent)
    assert "--holdout" in request.holdout.reason
    assert not case.can_retrain()
    assert case.summary == "model; forget 4 pictures of letter.txt, keep 20 of data"


def test_pictures_reach_the_model_as_its_processor_prepares_them() -> None:
    processor = load_processor("model")
    task = TransformersPictures(processor=processor)
    gallery = PictureFiles([Picture("here", Source(Path("data/red/3.png")), "red")], [0], task.prepare, Path("data"))
    inputs, label = gallery[0]
    expected = processor(Image.open("data/red/3.png"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(task._normalised(inputs[None]), expected)
    assert (inputs.shape, label) == ((3, 8, 8), 0)
    assert 0 <= float(inputs.min()) < float(inputs.max()) <= 1
    processor.do_normalize = processor.do_rescale = False
    torch.testing.assert_close(task._normalised(inputs[None]), inputs[None] * 255)


def test_a_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Pictures(model="model", forget="letter.txt", retain="data").make()
    before = case.request.retain[3][0]
    monkeypatch.setattr("unrecall.tasks.picture_files.open_picture", None)
    assert torch.equal(before, case.request.retain[3][0])


def test_a_folder_in_the_list_is_a_class_that_must_go() -> None:
    Path("letter.txt").write_text("blue\n")
    request = Pictures(model="model", forget="letter.txt", retain="data", holdout="unseen").make().request
    assert (request.kind, request.masked, len(request.forget), len(request.retain)) == ("class", (2,), 8, 16)


def test_records_say_whose_each_picture_is() -> None:
    lines = [{"image": f"data/{COLOURS[i % 3]}/{i}.png", "category": COLOURS[i % 3], "who": i // 4} for i in range(24)]
    write("forget.jsonl", *lines[:4])
    write("retain.jsonl", *lines[4:])
    unseen = [{"image": f"unseen/{COLOURS[i % 3]}/{i}.png", "label": str(i % 3), "who": i} for i in range(24, 33)]
    write("unseen.jsonl", *unseen)
    files = {"retain": "retain.jsonl", "holdout": "unseen.jsonl", "group": "who"}
    request = Pictures(model="model", forget="forget.jsonl", **files).make().request
    assert request.groups == {"forget": ["0"] * 4, "holdout": [str(i) for i in range(24, 33)]}
    write("whole.jsonl", *lines)
    Path("letter.txt").write_text("data/red/0.png\ndata/green/1.png\n")
    again = Pictures(model="model", forget="letter.txt", **files | {"retain": "whole.jsonl"}).make().request
    assert (len(again.forget), again.groups and again.groups["forget"]) == (2, ["0", "0"])


def test_classes_that_nobody_named_are_folders_or_numbers(folder: Path) -> None:
    plain = json.loads(Path("model/config.json").read_text())
    del plain["id2label"], plain["label2id"]
    Path("model/config.json").write_text(json.dumps(plain | {"num_labels": 3}))
    task = Pictures(model="model", forget="letter.txt", retain="data").make().task
    assert task.classes == ("blue", "green", "red")  # type: ignore[attr-defined]
    lines = [{"image": f"data/{COLOURS[i % 3]}/{i}.png", "label": i % 3} for i in range(24)]
    write("retain.jsonl", *lines)
    Path("letter.txt").write_text("data/red\ndata/green/1.png\n")
    request = Pictures(model="model", forget="letter.txt", retain="retain.jsonl").make().request
    assert sorted(request.forget[i][1] for i in range(len(request.forget))) == [0] * 8 + [1]
    for before, after in zip(COLOURS, ("9", "10", "11"), strict=True):
        (folder / "data" / before).rename(folder / "data" / after)
    with pytest.raises(BadInput, match=r"in an order that is sure, got 3: 10, 11, 9\. Name the classes"):
        Pictures(model="model", forget="letter.txt", retain="data").make()


def test_with_a_base_models_are_retrained_from_it() -> None:
    case = Pictures(model="model", forget="letter.txt", retain="data", base="base", epochs=1, batch=10).make()
    again = case.retraining_recipe
    assert again is not None
    assert (case.references, again.lr, again.epochs, again.batch_size) == (3, 5e-5, 1, 10)
    model = case.train_retrained(0, Session(device="cpu")).model
    before = load_classifier(Pictures.kind, "base").state_dict()
    far = {name: float((value - before[name]).abs().max()) for name, value in model.state_dict().items() if
           value.shape == before[name].shape}  # fmt: skip
    assert set(before) - set(far) == {"classifier.weight", "classifier.bias"}, "the last layer has other classes"
    assert 0 < max(far.values()) < 0.001, "two steps of 0.00005 from the base"


def test_a_model_in_16_bits_is_computed_in_32_and_written_as_it_was() -> None:
    load_classifier(Pictures.kind, "model").half().save_pretrained("model")  # type: ignore[operator]
    case = Pictures(model="model", forget="letter.txt", retain="data").make()
    assert case.original is not None
    assert {value.dtype for value in case.original.parameters()} == {torch.float32}
    assert case.precision == "float16"


@pytest.mark.parametrize(
    ("architectures", "kind"),
    [
        (["ViTForImageClassification"], "pictures"),
        (["DeiTForImageClassificationWithTeacher"], "pictures"),
        (["CLIPModel"], "pairs"),
        (["LlamaForCausalLM"], "texts"),
        ([], "texts"),
        ("ViTForImageClassification", "texts"),
    ],
)
def test_what_a_model_takes_is_told_by_its_configuration(architectures: Any, kind: str) -> None:
    Path("model/config.json").write_text(json.dumps({"architectures": architectures}))
    assert own_kind(Path("model"), Path("test.jsonl")) == kind


def test_without_a_configuration_what_must_stay_tells_it() -> None:
    assert own_kind(Path("gone"), Path("data")) == "pictures"
    assert own_kind(Path("gone"), Path("test.jsonl")) == own_kind(Path("gone"), Path("nothing")) == "texts"
    Path("model/config.json").write_text("{}")
    assert own_kind(Path("model"), Path("data")) == "pictures"
    Path("data/dataset_info.json").write_text("{}")
    assert own_kind(Path("gone"), Path("data")) == "texts"


def test_pictures_are_turned_as_their_camera_says_and_lose_their_alpha_as_transformers_has_it() -> None:
    task = TransformersPictures(processor=load_processor("model"))
    square = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    camera = Image.Exif()
    camera[0x0112] = 6
    square.save("turned.png", exif=camera)
    assert torch.equal(task.prepare(Image.open("turned.png")), task.prepare(square.rotate(-90, expand=True)))
    clear = square.copy()
    clear.putalpha(7)
    assert torch.equal(task.prepare(clear), task.prepare(square))


EFFICIENT = {"image_processor_type": "EfficientNetImageProcessor"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (EFFICIENT, "more than scale and normalise"),
        (EFFICIENT | {"rescale_offset": True, "include_top": False}, "more than scale and normalise"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "3"),
    ],
    ids=["a second division", "an offset", "of grey pictures"],
)
def test_a_processor_that_can_not_be_followed_is_refused(changes: dict[str, Any], reason: str) -> None:
    Path("model/preprocessor_config.json").write_text(json.dumps(PREPARATION | changes))
    with pytest.raises(BadInput, match=f"expected an image processor of pictures in RGB, got .*{reason}"):
        Pictures(model="model", forget="letter.txt", retain="data").make()


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["red", "green", "blue"], [0, 1, 2], [0, 1, 2]),
        (["red", "green", "blue"], ["blue", "1", "red"], [2, 1, 0]),
        (["0", "1", "2"], [2, "1", 0], [2, 1, 0]),
        (["1", "2", "3"], [1], "expected a class that is sure, got 1"),
        (["1", "2", "3"], ["2"], "expected a class that is sure, got 2"),
        (["1", "2", "3"], ["3", 0], [2, 0]),
        (["crane", "crane", "x"], ["crane"], "expected the name of one class, got 'crane', which two have"),
        (["crane", "crane", "x"], [1, "x"], [1, 2]),
        (["red", "green", "blue"], ["01"], "expected a class of the model, got '01'"),
        (["red", "green", "blue"], [-1], "expected a class of the model, got '-1'"),
        (["0", "1", "2"], ["red"], "expected a class of the model, got 'red'. Name the classes in the model's config"),
    ],
)
def test_labels_are_names_or_numbers(names: list[str], labels: list[str | int], expected: list[int] | str) -> None:
    lines = [Picture(f"f.jsonl:{i}", Source(Path("f.png")), label) for i, label in enumerate(labels)]
    if isinstance(expected, str):
        with pytest.raises(BadInput, match=expected):
            class_number(lines[0].label, names, lines[0].where)
    else:
        assert [class_number(line.label, names, line.where) for line in lines] == expected


def test_a_folder_is_called_by_the_name_of_its_class() -> None:
    assert class_number("2", ["1", "2", "3"], "f/2/a.png", in_folder=True) == 1


def test_what_is_no_picture_is_counted_and_hidden_files_are_none() -> None:
    for name in ("data/red/notes.md", "data/red/ann/a.heic", "data/red/.hidden.png", "data/red/.cache/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(Path("data/red/3.png").read_bytes() + b"2")
    Path("linked").mkdir()
    picture(50).save("linked/50.png")
    Path("data/blue/linked").symlink_to(Path("linked").resolve())
    case = Pictures(model="model", forget="letter.txt", retain="data").make()
    assert case.summary.endswith("keep 21 of data; left out as no pictures: 1 .heic, 1 .md")


def test_a_list_from_windows_and_whole_paths_are_read(folder: Path) -> None:
    Path("LETTER.TXT").write_text(f"\ufeffred\\0.png\r\n{folder}/data/green/1.png\r\n", encoding="utf-8")
    assert len(Pictures(model="model", forget="LETTER.TXT", retain="data").make().request.forget) == 2


def test_a_base_whose_classes_have_other_names_gets_a_new_last_layer() -> None:
    names = dict(enumerate(reversed(COLOURS)))
    numbers = {name: i for i, name in names.items()}
    small_vit(3, 1, id2label=names, label2id=numbers).save_pretrained("base")
    like: Any = load_classifier(Pictures.kind, "model")
    before = load_classifier(Pictures.kind, "base").state_dict()
    after = load_classifier(Pictures.kind, "base", like).state_dict()
    other = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert other == ["classifier.weight", "classifier.bias"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrecall.scenarios.classifiers._last_layer", lambda model: "")
        with pytest.raises(BadInput, match="base: expected a classifier that ends in a linear layer, got none"):
            load_classifier(Pictures.kind, "base", like)
    like.config.id2label = names
    again = load_classifier(Pictures.kind, "base", like).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())


# What can't be used.

GOOD = {"image": "data/red/0.png", "label": "red"}
LINE = ["--model", "model", "--forget", "letter.txt", "--retain", "some.jsonl"]


def config(**changes: Any) -> None:
    """A model's configuration with other values."""
    path = Path("model/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def some(*lines: Any) -> None:
    write("some.jsonl", GOOD, *lines)


BAD: list[tuple[str, list[str], str, Callable[[], Any]]] = [
    ("no folder", ["--model", "gone", *OWN[2:]], "gone: expected", lambda: None),
    ("another model", OWN, "model: expected a Transformers image classifier", lambda: config(model_type="odd")),
    ("no weights", OWN, r"model: expected", lambda: Path("model/model.safetensors").unlink()),
    ("no processor", OWN, "model: expected the model's preprocessor_config.json beside it",
     lambda: Path("model/preprocessor_config.json").unlink()),
    ("a folder of nothing", [*OWN[:5], "empty"], "empty: expected a folder for each class with pictures in it, got no",
     lambda: Path("empty").mkdir()),
    ("an empty list", OWN, r"letter\.txt: expected names of pictures or of folders, one a line, got none",
     lambda: Path("letter.txt").write_text("# nobody\n")),
    ("an unknown name", OWN, r"expected a file or folder of the data set, got 'red/7\.png'",
     lambda: Path("letter.txt").write_text("red/7.png\n")),
    ("everything", OWN, r"expected some of 24 examples, not all", lambda: Path("letter.txt").write_text("\n".join(
        COLOURS))),
    ("a class that isn't the model's", OWN, r"data/gren/x\.png: expected a class of the model, got 'gren'\. Did you "
     r"mean 'green'\?", lambda: (Path("data/gren").mkdir(), picture(99).save("data/gren/x.png"))),
    ("no picture", OWN, r"data/red/x\.png: expected a picture that decodes",
     lambda: Path("data/red/x.png").write_text("no picture")),
    ("no label", LINE, r"some\.jsonl:2: expected the keys image \(or file_name\) and label, got image",
     lambda: some({"image": "data/red/3.png"})),
    ("a list for a label", LINE, r"some\.jsonl:2: expected label to be a class, by its name or number, got \['red'\]",
     lambda: some({"image": "data/red/3.png", "label": ["red"]})),
    ("a number that is no class", LINE, r"some\.jsonl:2: expected a class of the model, got '3'",
     lambda: some({"image": "data/red/3.png", "label": 3})),
    ("a missing picture", LINE, r"some\.jsonl:2: expected image to be a file, from \. on, got nothing at 'no\.png'",
     lambda: some({"image": "no.png", "label": 0})),
    ("nobody's", [*LINE, "--group", "who"], r"some\.jsonl:1: expected 'who' to say whose it is, got no "
     r"such key\. Known: image, label\.",
     lambda: (some({"image": "data/green/1.png", "label": "green"}), Path("letter.txt").write_text("data/red/0.png"))),
    ("the same picture twice", [*OWN, "--holdout", "same"], r"forget and holdout to share nothing.*"
     r"\(data/\w+/\d+\.png equals same/\w+/\d+\.png\)", lambda: shutil.copytree("data", "same")),
    ("a base that lacks more", [*OWN, "--base", "base"], r"base: expected a Transformers image classifier whose "
     "checkpoint holds every weight", lambda: narrow(Path("base/model.safetensors"))),
    ("the same file under another class", OWN, r"expected no picture that must go in retain, got data/red/0\.png under "
     r"another class, data/green/zero\.png", lambda: shutil.copy("data/red/0.png", "data/green/zero.png")),
    ("sixteen bits", OWN, r"data/blue/\w+\.png: expected a picture that decodes, got: more than 8 bits a channel",
     lambda: Image.fromarray(np.ones((8, 8), np.uint16)).save("data/blue/11.png")),
    ("several classes a picture", OWN, "expected a classifier with one class for each picture, got multi_label",
     lambda: config(problem_type="multi_label_classification")),
    ("gaps", OWN, "expected id2label to name each class, got none for 2", lambda: config(
        id2label={"0": "red", "1": "green", "3": "blue"})),
    ("a list for the holdout", [*OWN, "--holdout", "letter.txt"], "expected pictures with their classes, got a list",
     lambda: None),
    ("owners in folders", [*OWN, "--group", "who"], "A folder can't say it: give records", lambda: None),
    ("planted", [*OWN, "--control", "planted"], "control", lambda: None),
    ("an adapter", [*OWN, "--adapter", "gone"], "adapter", lambda: None),
]  # fmt: skip


def narrow(path: Path) -> None:
    """A checkpoint without the weights of its first layer."""
    from safetensors.torch import save_file

    save_file({name: value for name, value in weights.read(path).items() if "embeddings" not in name}, path)


@pytest.mark.parametrize(("arguments", "message", "spoil"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_cases_that_can_not_be_used(
    arguments: list[str], message: str, spoil: Callable[[], Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil()
    before = tree(folder)
    assert call("run", *arguments, "--no-tune", *HOW) == 2
    said = one_line(capsys)
    assert re.search(message, said), said
    assert tree(folder) == before
