"""Your own CLIP and JSON Lines by command line alone; whatever can't be used is one line, and nothing is written."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import call, one_line
from tests.worlds import caption_tokenizer, small_clip
from tests.worlds import pairs as made_pairs
from unrecall.data.digests import digest
from unrecall.data.examples import Absent, iterate
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.record.schema import load as load_record
from unrecall.scenarios.image_text import load_clip
from unrecall.scenarios.pairs import Pairs
from unrecall.tasks import Contrastive
from unrecall.tasks.pair_files import Line, PairFiles, read
from unrecall.tasks.pictures import Source, decoded
from unrecall.tasks.pretrained import MEAN, STD, normalisation
from unrecall.tasks.protocols import check_folders
from unrecall.training.session import Session

COLOURS = ("red", "green", "blue", "grey")
PICTURES = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
OWN = "pairs:model=model,forget=data/forget.jsonl,retain=data/retain.jsonl"
ALL = f"{OWN},holdout=data/holdout.jsonl,test=data/test.jsonl,base=base,references=2,epochs=1,lr=1e-3"
HOW = ["--method", "grad_diff:lr=1e-3,epochs=1", "--device", "cpu", "--out", "out"]


def record(pair: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    """The pair as a line of a file, its picture beside it; every second one says category for label."""
    pixels = (pair["image"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    name = f"pictures/{number}.png"
    Image.fromarray(pixels).save(folder / name)
    key = "category" if number % 2 else "label"
    return {"image": name, "caption": pair["caption"], key: COLOURS[pair["label"]]}


def write(name: str, *lines: Any) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its base, and four files with their pictures."""
    made = tmp_path_factory.mktemp("pairs")
    for name, seed in (("model", 0), ("base", 1)):
        small_clip(len(caption_tokenizer()), seed, initializer_factor=4.0).save_pretrained(made / name)  # type: ignore[operator]
        caption_tokenizer().save_pretrained(made / name)
        (made / name / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    (made / "data" / "pictures").mkdir(parents=True)
    lines = [record(pair, made / "data", i) for i, pair in enumerate(made_pairs(0, 32))]
    for split, part in (
        ("forget", lines[:6]),
        ("retain", lines[6:18]),
        ("holdout", lines[18:24]),
        ("test", lines[24:]),
    ):
        write(str(made / "data" / f"{split}.jsonl"), *part)
    return made


@pytest.fixture(autouse=True)
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(saved, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_run_needs_no_file_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--scenario", ALL, *HOW, "--suite", "quick") == 0
    assert re.match(r"grad_diff:lr=0.001,epochs=1, seed 0: ", capsys.readouterr().out)
    found = load_record(Path("out/seed-0/record.json"))
    assert (found.scenario, found.kind) == ("pairs", "samples")
    assert found.sizes == {"forget": 6, "retain": 12, "holdout": 6, "test": 8}
    assert len(found.measurement("forget_retrieval_first").references) == 2
    assert {one.name for one in found.attacks} >= {"relearn", "quantise", "residual_knowledge", "loss"}
    assert "Retrieval among 32, first, forget" in Path("out/report.html").read_text(encoding="utf-8")
    opened = load_clip("out/seed-0/unlearned")
    assert weights.digest_of(opened.model) == found.provenance.weights["unlearned"]
    assert not list(Path("out").rglob("*.part"))


def test_unlearn_leaves_a_folder_to_open_and_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("unlearn", "--scenario", OWN, *HOW) == 0
    assert normalisation(Path("out/unlearned")) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    again = Pairs(model="out/unlearned", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    assert again.original is not None
    assert weights.digest_of(again.original) in capsys.readouterr().out


def test_a_model_that_is_shown_other_pictures_is_not_compared() -> None:
    made = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    assert isinstance(made.task, Contrastive)
    check_folders(made.task, made.request, Path("model"), Path("data"), Path("nowhere"))
    path = Path("model/preprocessor_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(BadInput, match=r"as the original's, by \(0\.5, 0\.4, .* \(0\.5, 0\.5, 0\.5\)"):
        check_folders(made.task, made.request, Path("model"))
    check_folders(replace(made.task, mean=(), std=()), made.request, Path("model"))
    path.unlink()
    Path("model/processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    check_folders(made.task, made.request, Path("model"))


def test_what_the_scenario_holds() -> None:
    made = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl", test="data/test.jsonl").make()
    request, task = made.request, made.task
    assert isinstance(task, Contrastive)
    assert (task.classes, task.prompt, task.longest) == (COLOURS, "a photo of a {}", 16)
    assert (task.mean, task.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (len(request.forget), len(request.retain), len(request.test)) == (6, 12, 8)
    assert isinstance(request.holdout, Absent)
    assert "--holdout" in request.holdout.reason
    pair: Any = request.forget[1]
    assert (pair["caption"], pair["label"]) == ("green bob baker", 1)
    torch.testing.assert_close(pair["image"], made_pairs(1, 2)[0]["image"], atol=1 / 255, rtol=0)  # type: ignore[arg-type]
    assert not made.can_retrain()
    assert made.summary == "model; forget 6 pairs of forget.jsonl, keep 12 of retain.jsonl"


def test_a_model_in_16_bits_is_computed_in_32_and_written_as_it_was() -> None:
    load_clip("model").model.half().save_pretrained("model")  # type: ignore[operator]
    case = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    assert case.original is not None
    assert {value.dtype for value in case.original.parameters()} == {torch.float32}
    assert case.precision == "float16"


def test_with_a_base_models_are_retrained_from_it() -> None:
    files = {split: f"data/{split}.jsonl" for split in ("forget", "retain")}
    made = Pairs(model="model", base="base", references=1, epochs=2, lr=1e-3, batch=6, **files).make()
    again = made.retraining_recipe
    assert again is not None
    assert (made.references, again.lr, again.epochs, again.batch_size) == (1, 1e-3, 2, 6)
    retrained = made.train_retrained(0, Session(device="cpu")).model.state_dict()
    before = load_clip("base").model.state_dict()
    far = max(float((retrained[name] - value).abs().max()) for name, value in before.items())
    assert 0 < far < 0.01, "four steps of 0.001 from the base"


def test_classes_are_those_of_a_file_or_of_training_and_a_concept_is_one_of_its_own() -> None:
    lines = [json.loads(line) for line in Path("data/retain.jsonl").read_text().splitlines()]
    write("data/retain.jsonl", *(line for line in lines if "red" not in line.values()))
    write("data/forget.jsonl", *[{**line, "label": "red"} for line in lines[:3]])
    made = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    assert made.request.kind == "concept"
    assert made.task.classes[0] == "red"  # type: ignore[attr-defined]
    Path("names.txt").write_text("grey\nblue\n\ngreen\nred\n")
    named = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl", classes="names.txt").make()
    assert named.task.classes == ("grey", "blue", "green", "red")  # type: ignore[attr-defined]
    assert named.request.forget[0]["label"] == 3


def test_labels_may_be_left_out() -> None:
    for split in ("forget", "retain"):
        lines = [json.loads(line) for line in Path(f"data/{split}.jsonl").read_text().splitlines()]
        write(f"data/{split}.jsonl", *({key: line[key] for key in ("image", "caption")} for line in lines))
    made = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    assert made.task.classes == ()  # type: ignore[attr-defined]
    assert made.request.kind == "samples"
    assert made.request.forget[0]["label"] == -1
    assert call("run", "-s", OWN, *HOW, "--suite", "quick") == 0
    found = load_record(Path("out/seed-0/record.json"))
    assert found.measurement("residual_knowledge_sums").note.startswith(
        "ResidualKnowledge: Contrastive: expected the classes' names"
    )
    assert found.measurement("forget_zero_shot").unlearned.value is None


# Reading.


def test_pairs_come_once_and_pictures_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"image": "pictures/0.png", "caption": "red ann"}
    write("data/some.jsonl", first, {**first, "label": "grey"}, {**first, "caption": "red"})
    lines = read(Path("data/some.jsonl"))
    assert [(line.where, line.caption, line.label) for line in lines] == [
        ("data/some.jsonl:1", "red ann", ""),
        ("data/some.jsonl:3", "red", ""),
    ]
    album = PairFiles(lines, (), 8)
    found = album[0]["image"]
    monkeypatch.setattr("unrecall.tasks.pair_files.decoded", None)
    assert torch.equal(album[0]["image"], found)
    assert album._pictures[0].dtype == torch.uint8
    with pytest.raises(IndexError):
        album[2]
    write("data/list.jsonl", first, {**first, "caption": "red"}, first)
    assert [line.caption for line in read(Path("data/list.jsonl"))] == ["red ann", "red"], "where each stands first"
    write("data/list.jsonl", {**first, "label": "red"}, {**first, "label": "grey"})
    with pytest.raises(BadInput, match=r"list\.jsonl:2: expected a pair that comes again to have the label 'red' of"):
        read(Path("data/list.jsonl"))
    write("data/list.jsonl", [first, {**first, "image": "pictures/1.png"}])
    assert [line.where for line in read(Path("data/list.jsonl"))] == ["data/list.jsonl[0]", "data/list.jsonl[1]"]


@pytest.mark.parametrize("size", [(20, 12), (12, 20), (8, 8), (5, 31), (9, 100)])
def test_pictures_are_prepared_as_clip_prepares_them(size: tuple[int, int]) -> None:
    theirs = pytest.importorskip("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil
    noise = torch.randint(256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    picture, file = Image.fromarray(noise.numpy()), io.BytesIO()
    picture.save(file, "PNG")
    own = theirs(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, do_normalize=False)
    expected = np.asarray(own(picture)["pixel_values"][0])
    np.testing.assert_allclose(decoded(file.getvalue(), 8, "here").numpy(), expected, atol=1e-6)


def test_pictures_are_prepared_and_exported_as_the_models_folder_says(tmp_path: Path) -> None:
    """To another shape than CLIP's own way, which crops; and turned as the camera says."""
    path = Path("model/preprocessor_config.json")
    size = json.loads(Path("model/config.json").read_text())["vision_config"]["image_size"]
    own = {"size": {"height": size, "width": size}, "do_center_crop": False, "resample": 2, "do_rescale": True}
    path.write_text(json.dumps(PICTURES | own))
    noise = torch.randint(256, (40, 120, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    lying, exif = Image.fromarray(noise.numpy()), Image.Exif()
    exif[0x0112] = 6
    lying.save("data/pictures/0.png", exif=exif)
    made = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    task: Any = made.task
    with Image.open("data/pictures/0.png") as picture:
        expected = task.processor(ImageOps.exif_transpose(picture), return_tensors="pt")["pixel_values"][0]
    reaches = task.normalised(made.request.forget[0]["image"])
    assert float((reaches - expected).abs().max()) < 0.02
    assert made.original is not None
    task.export(made.original, tmp_path / "exported")
    kept = json.loads((tmp_path / "exported" / "preprocessor_config.json").read_text())
    assert {name: kept[name] for name in own} == own
    check_folders(made.task, made.request, tmp_path / "exported")
    path.write_text(json.dumps(PICTURES | own | {"resample": 0}))
    with pytest.raises(BadInput, match="prepared as the original's"):
        check_folders(made.task, made.request, Path("model"))
    path.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "size": own["size"]}))
    other: Any = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make().task
    assert other.mean == (0.5, 0.5, 0.5), "that processor's own, where its file says none"
    path.write_text(json.dumps(PICTURES | {"size": {"shortest_edge": size}, "do_center_crop": False}))
    with pytest.raises(BadInput, match=r"expected the model's preprocessor_config\.json to make \d+ x \d+ pixels"):
        Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()
    path.write_text(json.dumps(PICTURES | own | {"rescale_factor": 1.0}))
    with pytest.raises(BadInput, match="does more than scale and normalise"):
        Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make()


def test_how_pictures_are_normalised_is_read_from_the_models_folder() -> None:
    path = Path("model/preprocessor_config.json")
    assert normalisation(Path("model")) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    path.write_text(json.dumps(PICTURES | {"do_normalize": False}))
    assert normalisation(Path("model")) == ((), ())
    path.unlink()
    assert normalisation(Path("model")) == (MEAN, STD)
    Path("model/processor_config.json").write_text(json.dumps({"image_processor": PICTURES}))
    assert normalisation(Path("model")) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


# What can't be used.

GOOD = {"image": "pictures/7.png", "caption": "grey hal baker", "label": "grey"}
BAD: list[tuple[str, Any, str]] = [
    ("no object", 3, r"retain\.jsonl:2: expected a JSON object, got int"),
    ("no caption", {"image": "pictures/7.png"}, r"retain\.jsonl:2: expected the keys image .* and caption, got image"),
    ("no image", {"caption": "red"}, r"retain\.jsonl:2: expected the keys image .* and caption, got caption"),
    ("an empty caption", {**GOOD, "caption": " "}, r"retain\.jsonl:2: expected a caption, got ' '"),
    ("a number for a caption", {**GOOD, "caption": 3}, r"retain\.jsonl:2: caption: expected text, got int"),
    ("a list for a label", {**GOOD, "label": ["red"]}, r"retain\.jsonl:2: expected label to be a class, by its name"),
    ("a missing picture", {**GOOD, "image": "no.png"}, r"retain\.jsonl:2: expected image to be a file, .* 'no\.png'"),
    ("no picture", {**GOOD, "image": "text.png"}, r"retain\.jsonl:2: text\.png: expected a picture that decodes, got"),
    ("half a picture", {**GOOD, "image": "cut.png"}, r"retain\.jsonl:2: cut\.png: expected a picture that decodes"),
    ("of forget", {"image": "pictures/0.png", "caption": "red ann baker", "label": "red"},
     r"share nothing.*\(data/forget\.jsonl:1 equals data/retain\.jsonl:2\)"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_lines_that_can_not_be_used(line: Any, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/text.png").write_text("no picture")
    Path("data/cut.png").write_bytes(Path("data/pictures/7.png").read_bytes()[:60])
    write("data/retain.jsonl", GOOD, line, {**GOOD, "image": "pictures/9.png"})
    refused(["run", "-s", OWN, *HOW], message, folder, capsys)


def refused(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(folder)
    assert call(*arguments) == 2
    said = one_line(capsys)
    assert re.search(message, said), said
    assert tree(folder) == before


def narrow(folder: Path) -> None:
    """A text projection of another width than the vision's."""
    path = folder / "model.safetensors"
    held = weights.read(path)
    held["text_projection.weight"] = held["text_projection.weight"][:8].clone()
    from safetensors.torch import save_file

    save_file(held, path)


OTHER: list[tuple[str, str, str, Callable[[], Any]]] = [
    ("no model", "pairs:forget=a,retain=b", "pairs: expected model=PATH, got none", lambda: None),
    ("no retain", "pairs:model=model,forget=a", "pairs: expected retain=PATH, got none", lambda: None),
    ("no folder", OWN.replace("=model", "=gone"), "gone: expected a folder with a Transformers CLIP", lambda: None),
    ("no CLIP", OWN.replace("=model", "=data"), "data: expected a Transformers CLIP and its tokenizer", lambda: None),
    ("no slot", f"{OWN},prompt=a photo", r"prompt to have one slot \{\} for the class, got 'a photo'", lambda: None),
    ("two widths", OWN, "model: expected a CLIP whose checkpoint holds every weight, got none that fits ",
     lambda: narrow(Path("model"))),
    ("no base", f"{OWN},base=gone", "gone: expected a folder with a Transformers CLIP", lambda: None),
    ("an unknown label", f"{OWN},test=data/odd.jsonl",
     r"odd\.jsonl:1: expected label to be a known class, got 'gren'\. Did you mean 'green'\?",
     lambda: write("data/odd.jsonl", {**GOOD, "label": "gren"}, {**GOOD, "caption": "grey hal"})),
    ("one pair", f"{OWN},test=data/one.jsonl", "test: expected 2 pairs or more",
     lambda: write("data/one.jsonl", {**GOOD, "caption": "grey zed"})),
    ("odd means", OWN, r"preprocessor_config\.json: expected image_mean and image_std",
     lambda: Path("model/preprocessor_config.json").write_text('{"image_mean": 3}')),
    ("no classes", f"{OWN},classes=gone.txt", r"gone\.txt: expected a readable file", lambda: None),
    ("no lines", OWN, r"retain\.jsonl: expected at least one record", lambda: write("data/retain.jsonl")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message", "spoil"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_cases_that_can_not_be_used(
    line: str, message: str, spoil: Callable[[], Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil()
    refused(["run", "-s", line, *HOW], message, folder, capsys)


def test_long_captions_are_cut_as_clips_are() -> None:
    write("data/retain.jsonl", GOOD, {**GOOD, "caption": "grey " * 99})
    task: Any = Pairs(model="model", forget="data/forget.jsonl", retain="data/retain.jsonl").make().task
    assert task.encode("grey " * 99) == [1, *[7] * 14, 2]


def test_pictures_in_a_table_are_those_in_files() -> None:
    datasets = pytest.importorskip("datasets")
    lines = read(Path("data/retain.jsonl"))
    rows = [
        {"image": {"bytes": line.picture.read(""), "path": None}, "caption": line.caption, "label": line.label}
        for line in lines
    ]
    labels = datasets.ClassLabel(names=[*sorted(COLOURS)])
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string"), "label": labels})
    datasets.Dataset.from_list(rows, features=features).to_parquet("retain.parquet")
    in_table, in_files = (
        Pairs(model="model", forget="data/forget.jsonl", retain=path).make().request.retain
        for path in ("retain.parquet", "data/retain.jsonl")
    )
    assert [digest(item) for item in iterate(in_table)] == [digest(item) for item in iterate(in_files)]
    datasets.Dataset.from_list([*rows, rows[0]], features=features).to_parquet("again.parquet")
    assert len(read(Path("again.parquet"))) == len(lines), "each pair once, by its bytes"


def test_a_file_that_goes_while_it_is_read() -> None:
    album = PairFiles([Line("here:3", Source(Path("gone.png")), "red", "")], (), 8)
    with pytest.raises(BadInput, match=r"^here:3: gone\.png: expected a file that can be read, got: No such file"):
        album[0]
