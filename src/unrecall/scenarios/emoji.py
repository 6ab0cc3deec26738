"""Emoji pictures and their names: a small CLIP is trained on them and forgets a category."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.disk.json_files import parse_json
from unrecall.errors import BadInput, nearest
from unrecall.scenarios.base import Builder, Scenario, adamw
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.image_text import Towers, caption_tokenizer, small_clip
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.tasks import Contrastive
from unrecall.tasks.pictures import decoded

ARCHIVE = "noto_emoji_72.zip"
CAPTIONS = "captions.jsonl"
GENERIC = 4
"""One picture in so many is called by its category alone, as many on the web are: zero-shot needs such captions."""
PROMPT = "a picture of {}"


@dataclass(frozen=True)
class SmallClip(Builder):
    """Pictures of emoji with their names, and a small CLIP that learns them.

    `data`: the folder with noto_emoji_72.zip (pictures and captions.jsonl in it: file, caption, category). `merges`:
    OpenAI's file of BPE merges, of which the first are taken; without one the BPE is trained on the captions. `words`:
    tokens. `size`, `patch`: of pictures, in pixels. `width`, `depth`: of both towers. `epochs`, `lr`: AdamW, batches of
    64, cosine. `references`: retrained models.
    """

    data: str = ""
    merges: str = ""
    words: Count = 2000
    size: Count = 36
    patch: Count = 6
    width: Count = 96
    depth: Count = 3
    epochs: Count = 40
    lr: Positive = 1e-3
    references: Index = 5
    seed: Index = 131


@dataclass(frozen=True)
class Emoji(SmallClip):
    """1,609 pictures of Noto Emoji with their names; a CLIP of 3 + 3 layers learns them, and forgets one category.

    A caption is "a picture of CATEGORY: NAME"; every fourth is "a picture of CATEGORY" alone, which is what zero-shot
    classification asks. A quarter of the category is the holdout and 15 % of the others the test set; both are never
    trained on.

    `forget`: a category, or how its name begins. All else is `SmallClip`'s.
    """

    forget: str = "Food & Drink"

    def make(self) -> Scenario:
        """Reads the pictures, splits them, and says how to train."""
        records = read_emoji(Path(self.data), self.size)
        categories = tuple(dict.fromkeys(record["category"] for record in records))
        category = _chosen(self.forget, categories)
        pairs = [_pair(record, categories, named=bool((i + 1) % GENERIC)) for i, record in enumerate(records)]
        captions = [pair["caption"] for pair in pairs]
        tokenizer = caption_tokenizer(captions, self.words, self.merges)
        context = max(len(ids) for ids in tokenizer(captions)["input_ids"])
        towers = Towers(self.width, self.depth, self.size, self.patch)
        task = Contrastive(
            tokenizer,
            classes=tuple(name.lower() for name in categories),
            prompt=PROMPT,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            longest=context,
        )
        return Scenario(
            name="emoji",
            summary=f"{len(pairs):,} emoji with their names, a CLIP of width {self.width} trained here; forget "
            f"{categories[category]}",
            task=task,
            request=split(pairs, category, self.seed),
            build=lambda _, __: small_clip(tokenizer, towers, context),
            recipe=adamw(self.lr, self.epochs, 64, 0.1),
            references=self.references,
        )


def read_emoji(folder: Path, size: int) -> list[dict[str, Any]]:
    """Records with `picture` `[3, size, size]`, `caption` and `category`; BadInput names what does not fit."""
    path = folder / ARCHIVE
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(CAPTIONS).decode().splitlines()
            records = [parse_json(line, f"{path}: {CAPTIONS}") for line in lines if line.strip()]
            return [_read(archive, record, size, f"{path}: {CAPTIONS}:{i}") for i, record in enumerate(records, 1)]
    except FileNotFoundError as error:
        raise BadInput(
            f"{folder or 'data'}: expected a folder with {ARCHIVE}, got none there. Give data=PATH."
        ) from error
    except BadInput:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: expected pictures and {CAPTIONS} in it, got: {error}") from error


def _read(archive: zipfile.ZipFile, record: Any, size: int, where: str) -> dict[str, Any]:
    if not isinstance(record, dict) or not isinstance(record.get("file", ""), str):
        raise BadInput(f"{where}: expected a JSON object with the name of a file, got {record!r:.60}.")
    lacking = [key for key in ("file", "caption", "category") if not str(record.get(key) or "").strip()]
    if lacking:
        raise BadInput(f"{where}: expected file, caption and category, got no {lacking[0]}.")
    picture = decoded(archive.read(record["file"]), size, f"{where}: {record['file']}")
    return {"picture": picture, "caption": str(record["caption"]), "category": str(record["category"])}


def _pair(record: dict[str, Any], categories: tuple[str, ...], *, named: bool) -> dict[str, Any]:
    name, category = record["caption"].replace("’", "'"), record["category"].lower()
    caption = PROMPT.format(f"{category}: {name}" if named else category)
    return {"image": record["picture"], "caption": caption, "label": categories.index(record["category"])}


def _chosen(forget: str, categories: tuple[str, ...]) -> int:
    """The category that is called so, or the only one that begins so."""
    like = [i for i, name in enumerate(categories) if name.lower().startswith(forget.lower())]
    if len(like) != 1 or not forget:
        hint = nearest(forget, categories)
        raise BadInput(f"forget: expected one of {', '.join(categories)}, got '{forget}'. {hint}")
    return like[0]


def split(pairs: list[dict[str, Any]], category: int, seed: int) -> Request:
    """Three quarters of a class to forget and a quarter held out; 15 % of the others for the test."""
    order = shuffled(pairs, seed)
    members = [pair for pair in order if pair["label"] == category]
    others = [pair for pair in order if pair["label"] != category]
    held, tested = len(members) // 4, round(0.15 * len(others))
    forget: Examples = members[held:]
    return Request(forget, others[tested:], members[:held], others[:tested], kind="concept")
