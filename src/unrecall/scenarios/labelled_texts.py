"""Texts of your own with a class each, and the classifier of Transformers that was trained on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from unrecall.data.request import Split
from unrecall.disk.tables import records
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.classifiers import Kind, class_names, class_number, load_classifier
from unrecall.scenarios.hub import load_or_refuse, local_folder, transformers
from unrecall.scenarios.own_classifiers import OwnClassifier, OwnSet
from unrecall.spec.parameters import Count
from unrecall.tasks import TransformersTexts
from unrecall.tasks.causal_lm import context_of
from unrecall.tasks.labelled import Example
from unrecall.tasks.record_keys import label, owner
from unrecall.tasks.strings import readable

KEYS = ("text", "sentence")
"""What the text of a record may be called."""


class LabelledText(NamedTuple):
    """A text of a file: its place there, its class by name or number, and whose it is, or nothing."""

    where: str
    text: str
    label: str | int
    owner: str = ""


@dataclass(frozen=True)
class LabelledTexts(OwnClassifier):
    """Your own text classifier, and your own texts that it must forget and that it must keep.

    `model`: folder or hub id (`who/what`) of a Transformers text classifier that was trained on both. `forget`,
    `retain`: records (JSON Lines, a JSON list, CSV, Parquet, or what `datasets` saved) with text and label, a class's
    name or number. `holdout`: texts like forget that the model was never trained on; without them there is no privacy
    number. `test`: other texts that it was never trained on. `base`: the model before it was trained on forget and
    retain, whose last layer is made anew where it has other classes; `references` models are trained from it on retain
    alone (AdamW, `lr`, `epochs`, batches of `batch`, cosine), and without it there is nothing to judge by. `group`: the
    key of records that says whose each text of forget and holdout is. `control`: how the holdout came to be (random
    split, matched or synthetic). `longest`: texts are cut to so many tokens, and to what the model takes. Classes are
    those that the model's config.json names; where it names none, they are numbers.
    """

    name: ClassVar[str] = "labelled-texts"
    examples: ClassVar[str] = "texts"
    kind: ClassVar[Kind] = Kind("AutoModelForSequenceClassification", "text classifier", "text")

    longest: Count = 512

    def make(self) -> Scenario:
        """Reads the texts, then the model, and checks that they fit before anything is computed."""
        texts = {split: read(path, self.group) for split, path in self.paths.items()}
        model: Any = load_classifier(self.kind, self.model)
        tokenizer = load_tokenizer(self.model)
        task = TransformersTexts(classes=tuple(class_names(model.config, (), Path(self.retain))), tokenizer=tokenizer)
        longest = min(self.longest, tokenizer.model_max_length, positions_of(model) or self.longest)
        whole = {split: task.prepare([text.text for text in own]) for split, own in texts.items()}
        cut = sum(len(tokens) > longest for own in whole.values() for tokens in own)
        sets = {split: _set(task, own, whole[split], longest) for split, own in texts.items()}
        _check_beginnings(texts, sets, longest)
        return self.scenario(
            task,
            model,
            sets,
            lambda _, split: [text.text for text in texts[split]],
            f"; {cut} texts cut to {longest} tokens" if cut else "",
        )


def load_tokenizer(model: str) -> Any:
    """The tokenizer beside a model; BadInput where there is none."""
    folder = local_folder(model, LabelledTexts.kind.whole)
    return load_or_refuse(
        f"{model}: expected the model's tokenizer beside it",
        lambda: transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )


def positions_of(model: nn.Module) -> int | None:
    """How many tokens a model takes; None where it doesn't say. RoBERTa's positions begin behind that of padding."""
    context = context_of(model)
    positions = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    paddings = [m.padding_idx for m in positions if getattr(m, "padding_idx", None) is not None]
    return None if context is None else context - (1 + int(paddings[0]) if paddings else 0)


def read(path: Path, group: str = "") -> list[LabelledText]:
    """The texts of a file of records with text and label. `group`: the key that says whose each is.

    BadInput, with the line, where a text or its label is missing.
    """
    return [_of_record(place, record, group) for place, record in records(path)]


def _of_record(where: str, record: Mapping[str, Any], group: str) -> LabelledText:
    text = next((record[key] for key in KEYS if record.get(key) is not None), None)
    name = label(record, where)
    if text is None or name is None:
        raise BadInput(f"{where}: expected the keys text and label, got {', '.join(map(str, record)) or 'nothing'}.")
    if not isinstance(text, str) or not readable(text):
        raise BadInput(f"{where}: expected text to be a text that can be read, got {text!r:.60}.")
    return LabelledText(where, text, name, owner(record, group, where))


def _check_beginnings(texts: Mapping[Split, list[LabelledText]], sets: Mapping[Split, OwnSet], longest: int) -> None:
    """BadInput where nothing is read of two texts but what they share, and one must go while the other is kept."""
    read_as = {
        split: [tuple(own.examples[i].input.tolist()) for i in range(len(own.examples))] for split, own in sets.items()
    }
    forgotten = dict(zip(read_as["forget"], texts["forget"], strict=True))
    for split, own in texts.items():
        for tokens, text in zip(read_as[split], own, strict=True):
            other = forgotten.get(tokens)
            if split != "forget" and other is not None and other.text != text.text:
                raise BadInput(
                    f"{text.where}: expected a text that differs from {other.where} in the {longest} tokens that are "
                    "read of it, got one that doesn't. Remove one of them, or raise longest as far as the model allows."
                )


def _set(task: TransformersTexts, texts: list[LabelledText], whole: list[Tensor], longest: int) -> OwnSet:
    """A set of texts. `whole`: the tokens of each, which stay as they are up to `longest` of them."""
    labels = [class_number(text.label, task.classes, text.where) for text in texts]
    tokens = [
        own if len(own) <= longest else task.prepare([text.text], longest)[0]
        for text, own in zip(texts, whole, strict=True)
    ]
    return OwnSet([*map(Example, tokens, labels)], labels, texts)
