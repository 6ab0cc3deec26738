"""The emoji scenario on an archive made here: reading, splitting, tokenising, and what it says of bad input."""

import gzip
import io
import json
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.models.observe import observe
from unrecall.scenarios.emoji import ARCHIVE, Emoji, read_emoji
from unrecall.scenarios.image_text import caption_tokenizer, read_merges
from unrecall.tasks import Contrastive
from unrecall.tasks.pictures import decoded
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session

FOOD = ("hot dog", "tea", "rice")
NAMES = {"Animals & Nature": ("cat", "dog", "owl"), "Food & Drink": FOOD, "Objects": ("key", "axe")}
DATA = Path(os.environ.get("UNRECALL_DATA", "/nowhere")) / "noto_emoji_captions"
MERGES = DATA.parent / "bpe" / "bpe_simple_vocab_16e6.txt.gz"
SMALL = {"words": 600, "size": 12, "patch": 6, "width": 32, "depth": 1, "epochs": 1}


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (20, 20), (number * 7 % 256, number * 31 % 256, 90, 255)).save(file, "PNG")
    return file.getvalue()


def archive(folder: Path, **changed: Any) -> Path:
    """Forty records, five of each name, each with a number of its own; `changed` overrides the fourth record's keys."""
    records = []
    with zipfile.ZipFile(folder / ARCHIVE, "w") as made:
        for category, names in NAMES.items():
            for name in names:
                for k in range(5):
                    number = len(records)
                    record = {"file": f"{number}.png", "caption": f"{name} no. {k}", "category": category}
                    records.append(record | (changed if number == 3 else {}))
                    made.writestr(f"{number}.png", picture(number))
        made.writestr("broken.png", b"\x89PNG\r\n\x1a\n broken")
        made.writestr("captions.jsonl", "\n".join(json.dumps(record) for record in records))
    return folder


def test_the_category_goes_and_a_quarter_of_it_is_held_out(tmp_path: Path) -> None:
    made = Emoji(data=str(archive(tmp_path)), **SMALL).make()
    task, request = made.task, made.request
    assert isinstance(task, Contrastive)
    assert task.classes == ("animals & nature", "food & drink", "objects")
    assert {item["label"] for item in request.forget} == {item["label"] for item in request.holdout} == {1}
    assert {item["label"] for item in request.retain} == {item["label"] for item in request.test} == {0, 2}
    sizes = [len(request[split]) for split in ("forget", "holdout", "retain", "test")]
    assert sizes == [12, 3, 21, 4]
    assert request.kind == "concept"
    captions = {item["caption"] for item in request.forget} | {item["caption"] for item in request.holdout}
    numbered = enumerate((f": {name} no. {k}" for name in FOOD for k in range(5)), 15)
    assert captions == {f"a picture of food & drink{name if (i + 1) % 4 else ''}" for i, name in numbered}


def test_the_model_fits_the_task_and_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    made = Emoji(data=str(archive(tmp_path)), **SMALL).make()
    assert made.build is not None
    models = []
    for _ in range(2):
        with own_randomness(3):
            models.append(made.build(3, Session(device="cpu")))
    made.task.check(models[0], made.request)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert len(observe(models[0], made.task, made.request.forget).loss) == 12


def test_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    found = read_emoji(archive(tmp_path), 12)
    assert found[1]["picture"].shape == (3, 12, 12)
    assert found[1]["picture"][:, 5, 5].tolist() == pytest.approx([7 / 255, 31 / 255, 90 / 255])


def test_transparent_parts_are_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "PNG")
    assert decoded(file.getvalue(), 8, "here").min() == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"caption": ""}, r"captions.jsonl:4: expected file, caption and category, got no caption"),
        ({"caption": None}, r"captions.jsonl:4: expected file, caption and category, got no caption"),
        ({"category": " "}, r"captions.jsonl:4: expected file, caption and category, got no category"),
        ({"file": "broken.png"}, r"captions.jsonl:4: broken.png: expected a picture that decodes, got"),
        ({"file": "nowhere.png"}, r"expected pictures and captions.jsonl in it, got"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_emoji(archive(tmp_path, **changed), 12)


def test_bad_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected a folder with noto_emoji_72.zip, got none there"):
        Emoji(data=str(tmp_path)).make()
    (tmp_path / ARCHIVE).write_bytes(b"no zip")
    with pytest.raises(BadInput, match=r"expected pictures and captions.jsonl in it, got"):
        Emoji(data=str(tmp_path)).make()
    data = str(archive(tmp_path))
    for wrong in ("Foods", "", "o d"):
        with pytest.raises(BadInput, match=rf"expected one of Animals & Nature, Food & Drink, Objects, got '{wrong}'"):
            Emoji(data=data, forget=wrong).make()
    assert {item["label"] for item in Emoji(data=data, forget="obj").make().request.forget} == {2}
    with pytest.raises(BadInput, match=r"words: expected at least \d+ tokens"):
        Emoji(data=data, words=100).make()
    odd = Emoji(data=data, **(SMALL | {"patch": 5})).make()
    assert odd.build is not None
    with pytest.raises(BadInput, match="patch: expected a divisor of the picture's size 12, got 5"):
        odd.build(0, Session(device="cpu"))


def test_merges_come_from_openais_file_or_from_the_captions(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(b'"version"\nt h\nth e</w>\nd o\ndo g</w>\n'))
    assert read_merges(path, 3) == [("t", "h"), ("th", "e</w>"), ("d", "o")]
    found = caption_tokenizer([], 600, str(path))
    assert found.convert_ids_to_tokens(found("The DOG")["input_ids"])[1:-1] == ["the</w>", "dog</w>"]
    learned = caption_tokenizer(["hot dog", "hot tea", "hot rice"], 530)
    pieces = learned.convert_ids_to_tokens(learned("hot hot")["input_ids"])
    assert pieces[1:-1] == ["hot</w>", "hot</w>"]
    assert pieces[0] == "<|startoftext|>"
    assert pieces[-1] == "<|endoftext|>"
    path.write_bytes(b"no gzip")
    with pytest.raises(BadInput, match=r"expected a file of BPE merges, got"):
        read_merges(path, 3)
    path.with_suffix("").write_text("version\na b c\n")
    with pytest.raises(BadInput, match=r":2: expected two pieces a line"):
        read_merges(path.with_suffix(""), 3)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / ARCHIVE).is_file() or not MERGES.is_file(), reason="UNRECALL_DATA has no emoji")
def test_the_real_emoji_are_1609_pairs_of_nine_categories() -> None:
    """100 of 133 pictures of food go and 33 are held out; of the 1,476 others 15 % are the test."""
    made = Emoji(data=str(DATA), merges=str(MERGES)).make()
    request, task = made.request, made.task
    assert isinstance(task, Contrastive)
    sizes = {split: len(request[split]) for split in ("forget", "retain", "holdout", "test")}
    assert sizes == {"forget": 100, "retain": 1255, "holdout": 33, "test": 221}
    assert sum(sizes.values()) == 1609
    assert len(task.classes) == 9
    food = task.classes.index("food & drink")
    counts = {split: Counter(pair["label"] for pair in iterate(request[split])) for split in sizes}
    assert set(counts["forget"]) == set(counts["holdout"]) == {food}
    assert set(counts["retain"]) == set(counts["test"]) == set(range(9)) - {food}
    generic = sum(
        pair["caption"] in {f"a picture of {name}" for name in task.classes}
        for split in sizes
        for pair in iterate(request[split])
    )
    assert generic == 1609 // 4
    assert made.build is not None
    with own_randomness(0):
        model = made.build(0, Session(device="cpu"))
    task.check(model, request)
    assert model.config.projection_dim == 96  # type: ignore[union-attr]
