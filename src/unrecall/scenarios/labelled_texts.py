"""Texts of your own with a class each, and the classifier of Transformers that was trained on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from torch import nn

from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.tables import records
from unrecall.disk.weights import files_of, precision_of
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.classifiers import Kind, builder, class_names, class_number, load_classifier
from unrecall.scenarios.hub import load_or_refuse, local_folder, transformers
from unrecall.scenarios.own_files import FromOwnFiles, no_owner, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks import TransformersTexts
from unrecall.tasks.base import check_inputs
from unrecall.tasks.causal_lm import context_of
from unrecall.tasks.labelled import Example
from unrecall.tasks.pictures import LABELS
from unrecall.tasks.strings import owner, readable

TEXTS = Kind("AutoModelForSequenceClassification", "text classifier", "text")
KEYS = ("text", "sentence")
"""What the text of a record may be called."""


class LabelledText(NamedTuple):
    """A text of a file: its place there, its class by name or number, and whose it is, or nothing."""

    where: str
    text: str
    label: str | int
    owner: str = ""


@dataclass(frozen=True)
class LabelledTexts(FromOwnFiles):
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

    examples: ClassVar[str] = "texts"

    group: str = ""
    control: Literal["random split", "matched", "synthetic"] = "matched"
    longest: Count = 512
    lr: Positive = 2e-5
    batch: Count = 32

    def make(self) -> Scenario:
        """Reads the texts, then the model, and checks that they fit before anything is computed."""
        texts = {split: read(path, self.group) for split, path in self.paths.items()}
        model: Any = load_classifier(TEXTS, self.model)
        folder = local_folder(self.model, TEXTS.whole)
        tokenizer = load_or_refuse(
            f"{self.model}: expected the model's tokenizer beside it",
            lambda: transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        )
        task = TransformersTexts(classes=tuple(class_names(model.config, (), Path(self.retain))), tokenizer=tokenizer)
        longest = min(self.longest, tokenizer.model_max_length, positions_of(model) or self.longest)
        try:
            request = self._request(texts, _examples(task, texts, longest))
            check_inputs(task, model, request)
        except BadInput as error:
            raise placed(error, lambda split, index: texts[split][index].where) from error
        return Scenario(
            name="labelled-texts",
            summary=f"{self.model}; forget {len(request.forget)} texts of {Path(self.forget).name}, keep "
            f"{len(request.retain)} of {Path(self.retain).name}{_cut(task, texts, longest)}",
            task=task,
            request=request,
            original=model,
            build=builder(TEXTS, self.base, model),
            retraining_recipe=adamw(self.lr, self.epochs, self.batch, 0.01),
            references=self.references,
            precision=precision_of(files_of(folder)),
        )

    def _request(self, texts: Mapping[Split, list[LabelledText]], sets: Mapping[Split, list[Example]]) -> Request:
        """Of a class where no text that stays has a class of those that must go."""
        forgotten, retained = ({example.label for example in sets[name]} for name in SPLITS[:2])
        whole = forgotten.isdisjoint(retained)
        _check_texts_apart(texts)
        return Request(
            sets["forget"],
            sets["retain"],
            sets.get("holdout", self.absent("holdout")),
            sets.get("test", self.absent("test")),
            kind="class" if whole else "samples",
            masked=tuple(sorted(forgotten)) if whole else (),
            groups={name: self._owners(name, texts) for name in ("forget", "holdout")} if self.group else None,
            control=self.control,
        )

    def _owners(self, split: Split, texts: Mapping[Split, list[LabelledText]]) -> list[str]:
        """Whose each text of a set is; BadInput for one of which nothing says it."""
        own = texts.get(split, [])
        if nameless := next((text.where for text in own if not text.owner), ""):
            lines = records(self.paths[split])
            raise no_owner(nameless, self.group, next(line for place, line in lines if place == nameless))
        return [text.owner for text in own]


def read(path: Path, group: str = "") -> list[LabelledText]:
    """The texts of a file of records with text and label. `group`: the key that says whose each is.

    BadInput, with the line, where a text or its label is missing.
    """
    return [_of_record(place, record, group) for place, record in records(path)]


def _of_record(where: str, record: Mapping[str, Any], group: str) -> LabelledText:
    text = next((record[key] for key in KEYS if record.get(key) is not None), None)
    label = next((record[key] for key in LABELS if record.get(key) is not None), None)
    if text is None or label is None:
        raise BadInput(f"{where}: expected the keys text and label, got {', '.join(map(str, record)) or 'nothing'}.")
    if not isinstance(text, str) or not readable(text):
        raise BadInput(f"{where}: expected text to be a text that can be read, got {text!r:.60}.")
    if isinstance(label, float) and label.is_integer():  # as tables with gaps have whole numbers
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise BadInput(
            f"{where}: expected label to be a class, by its name or number, got {label!r:.60}. Write one of the "
            "model's classes."
        )
    whose = record.get(group) if group else None
    name = "" if whose in (None, "") else owner(whose, f"{where}: {group}")
    return LabelledText(where, text, label.strip() if isinstance(label, str) else label, name)


def positions_of(model: nn.Module) -> int | None:
    """How many tokens a model takes; None where it doesn't say. RoBERTa's positions begin behind that of padding."""
    context, positions = (
        context_of(model),
        (m for name, m in model.named_modules() if name.endswith("position_embeddings")),
    )
    paddings = [m.padding_idx for m in positions if getattr(m, "padding_idx", None) is not None]
    return None if context is None else context - (1 + int(paddings[0]) if paddings else 0)


def _check_texts_apart(texts: Mapping[Split, list[LabelledText]]) -> None:
    """BadInput where a text that must go is in another set under another class, where it is another example."""
    forgotten = {text.text: text for text in texts["forget"]}
    for name, own in texts.items():
        for text in own if name != "forget" else ():
            if (same := forgotten.get(text.text)) is not None and str(same.label) != str(text.label):
                raise BadInput(
                    f"Request: expected no text that must go in {name}, got that of {same.where} under another class, "
                    f"{text.where}. Remove it there."
                )


def _examples(
    task: TransformersTexts, texts: Mapping[Split, list[LabelledText]], longest: int
) -> dict[Split, list[Example]]:
    """The examples of each set."""
    tokens = iter(task.prepare([text.text for own in texts.values() for text in own], longest))
    return {
        split: [Example(next(tokens), class_number(text.label, task.classes, text.where)) for text in own]
        for split, own in texts.items()
    }


def _cut(task: TransformersTexts, texts: Mapping[Split, list[LabelledText]], longest: int) -> str:
    """How many texts are longer than what is read of them, for the record and its reader; nothing for none."""
    whole = task.tokenizer([text.text for own in texts.values() for text in own], verbose=False)["input_ids"]
    count = sum(len(tokens) > longest for tokens in whole)
    return f"; {count} texts cut to {longest} tokens" if count else ""
