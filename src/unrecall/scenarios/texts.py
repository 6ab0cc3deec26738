"""Texts of your own and the language model that was trained on them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from unrecall.data.examples import Absent, Examples, iterate
from unrecall.data.request import SPLITS, Control, Request, Split
from unrecall.disk.tables import records
from unrecall.errors import BadInput
from unrecall.record.manifest import check_manifest
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.language import Precision, load
from unrecall.scenarios.own_files import FromOwnFiles, no_owner, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.base import check_inputs
from unrecall.tasks.record_keys import owner
from unrecall.tasks.templates import check_template
from unrecall.tasks.text_files import ignored, read, without_repeats


@dataclass(frozen=True)
class Texts(FromOwnFiles):
    """Your own language model, and your own files of what it must forget and what it must keep.

    `model`: folder or hub id of a model that was trained on both. `forget`, `retain`: files (JSON Lines, a JSON list,
    CSV, Parquet, or a folder of `datasets`) of conversations, of questions and answers (or prompt and completion,
    instruction and output), or of text alone (docs/language.md). `holdout`: texts like forget that the
    model was never trained on; without them there is no privacy number. `test`: other texts that it was never trained
    on. `base`: the model before it was trained on forget and retain; `references` models are trained from it on retain
    alone (AdamW, `lr`, `epochs`, batches of 32, cosine), and without it there is nothing to judge by. `adapter`: a LoRA
    adapter that is merged into `model` first. `longest`: cut examples to so many tokens, and plain text into pieces of
    so many. `template`: left out ("auto"), the model shows which it was trained with; or chat, question, alpaca, plain,
    or a text with {prompt} in it, where "\\n" is a new line. `ends`: whether the end token is part of each answer,
    and `joined`: whether answers are tokenised together with their prompts; left out, the model shows that too.
    `group`: the key of each line of forget and holdout that says whose it is, where people have several. `control`:
    how the holdout came to be (random split, matched, synthetic or planted); planted needs `manifest`, which
    `unrecall plant` wrote, and `published`, the sha256 of it that was published before training. `precision`: auto
    computes in float32 and writes the unlearned model in the format of the model's files; float32 and bfloat16 are
    what it is held and written in.
    """

    examples: ClassVar[str] = "texts"

    adapter: str = ""
    lr: Positive = 1e-5
    precision: Precision = "auto"
    longest: Count | None = None
    template: str | None = "auto"
    ends: bool | None = None
    joined: bool | None = None
    group: str = ""
    control: Control = "matched"
    manifest: str = ""
    published: str = ""

    def make(self) -> Scenario:
        """Reads the texts, then the model, and checks that they fit before anything is computed."""
        paths = self.paths
        texts: dict[Split, Examples] = {
            split: without_repeats(read(paths[split])) if split in paths else self.absent(split) for split in SPLITS
        }
        pairs = self._planted([*iterate(texts["forget"])], [*iterate(texts["holdout"])])
        template = self._template()
        loaded = load(self.model, self.precision, self.adapter)
        task = CausalLM(loaded.tokenizer, template=template, longest=self.longest, ends=self.ends, joined=self.joined)
        cut = {split: _cut(task, loaded.model, texts[split]) for split in SPLITS}
        forget, retain, holdout, test = (_set(texts[split], cut[split]) for split in SPLITS)
        try:
            owners = self._owners(cut)
            request = Request(forget, retain, holdout, test, groups=owners, control=self.control, pairs=pairs)
            check_inputs(task, loaded.model, request)
            task = task.settled(loaded.model, request)
        except BadInput as error:
            raise placed(error, lambda split, index: self._place(split, index, cut[split])) from error
        return Scenario(
            name="texts",
            summary=f"{' with '.join(filter(None, (self.model, self.adapter)))}; forget {len(request.forget)} texts of "
            f"{Path(self.forget).name}, keep {len(request.retain)} of {Path(self.retain).name}; {task.templated}"
            f"{_pieces(cut)}{_written(loaded.precision)}{self._ignored()}",
            task=task,
            request=request,
            original=loaded.model,
            build=(lambda _, __: load(self.base, self.precision).model) if self.base else None,
            retraining_recipe=adamw(self.lr, self.epochs, 32, 0.01),
            references=self.references,
            precision=loaded.precision,
            note=self._shared_key(),
        )

    def _planted(self, forget: list[Any], holdout: list[Any]) -> list[int] | None:
        """Which holdout text is each forget text's other wording; BadInput where no manifest vouches for it."""
        if {self.control == "planted"} != {bool(self.manifest), bool(self.published)}:
            raise BadInput(
                "--control: expected planted together with --manifest and --published, the sha256 of it that was "
                "published before training, and neither without it. Give all three, or 'random split'."
            )
        if not self.manifest:
            return None
        return check_manifest(Path(self.manifest), self.published, forget, holdout)

    def _owners(self, cut: Mapping[Split, Sequence[list[Any]]]) -> dict[str, list[str]] | None:
        """The owner of each piece of forget and of holdout; None where no owner is named and no text was cut up."""
        several = any(len(pieces) > 1 for split in ("forget", "holdout") for pieces in cut[split])
        if not self.group and not several:
            return None
        if several and self.manifest:
            raise BadInput(
                "--control planted: expected wordings that the model's context holds whole, got one that it doesn't. "
                "Plant shorter texts."
            )
        owners: dict[str, list[str]] = {}
        for split in ("forget", "holdout"):
            names = self._groups(split) if self.group else [f"{split} {i}" for i in range(len(cut[split]))]
            owners[split] = [name for name, pieces in zip(names, cut[split], strict=True) for _ in pieces]
        return owners

    def _groups(self, split: Split) -> list[str]:
        """Whose each text of a split is, repeats left out; BadInput for a line that doesn't say."""
        if not (path := getattr(self, split)):
            return []
        texts, lines = read(Path(path)), records(Path(path))
        owners = {}
        for text, (place, line) in zip(texts, lines, strict=True):
            if line.get(self.group) in (None, ""):
                raise no_owner(place, self.group, line)
            owners[id(text)] = owner(line, self.group, place)
        return [owners[id(text)] for text in without_repeats(texts)]

    def _ignored(self) -> str:
        """Which keys of which files nothing is made of, for the record and its reader."""
        files = dict.fromkeys(path for split in SPLITS if (path := getattr(self, split)))
        keys = [
            f"{key} in {count} {'record' if count == 1 else 'records'} of {Path(path).name}"
            for path in files
            for key, count in ignored(Path(path)).items()
            if key != self.group
        ]
        return f"; keys that were ignored: {', '.join(keys)}" if keys else ""

    def _shared_key(self) -> str:
        """What to do about an ignored key that several texts of forget share, as those of one person do."""
        if not (key := self._owner_key()):
            return ""
        values = [line.get(key) for _, line in records(Path(self.forget))]
        return (
            f"the key '{key}' was ignored, by which the {len(values)} texts of forget are of {len(set(values))}: if it "
            f"says whose each is, give --group {key}, and persons are counted in place of texts"
        )

    def _owner_key(self) -> str:
        """An ignored key by which several texts of forget, or of both arms, belong together, as a person's; or none."""
        if self.group or not self.holdout:
            return ""
        forget, holdout = ([line for _, line in records(Path(path))] for path in (self.forget, self.holdout))
        for key in ignored(Path(self.holdout)):
            values, own = ([line.get(key) for line in lines] for lines in ([*forget, *holdout], forget))
            named = all(isinstance(value, str | int) for value in values) and len(set(values)) > 1
            if named and any(2 * len(set(part)) <= len(part) for part in (values, own)):
                return key
        return ""

    def _template(self) -> str | None:
        """The template with its new lines; BadInput where prompts have no place in it."""
        template = None if self.template is None else self.template.replace("\\n", "\n")
        check_template(template)
        return template

    def _place(self, split: Split, index: int, cut: Sequence[list[Any]]) -> str | None:
        """Where the text stands that the `index`-th piece of a split is of: FILE:LINE, or FILE[INDEX]."""
        path = Path(getattr(self, split))
        texts = read(path)
        distinct = without_repeats(texts)
        number = next((i for i, pieces in enumerate(itertools.accumulate(map(len, cut))) if pieces > index), None)
        if number is None or number >= len(distinct):
            return None
        return records(path)[next(i for i, text in enumerate(texts) if text is distinct[number])][0]


def _cut(task: CausalLM, model: nn.Module, texts: Examples) -> list[list[Any]]:
    """Each text of a split in the pieces that the model's context holds; a piece that an earlier one equals goes."""
    cut, earlier = [], set()
    for pieces in (task.chunks(model, text) for text in iterate(texts)):
        contents = [task.content(piece) for piece in pieces] if len(pieces) > 1 else [""]
        cut.append([piece for piece, key in zip(pieces, contents, strict=True) if not key or key not in earlier])
        earlier.update(contents)
    return cut


def _set(texts: Examples, cut: Sequence[list[Any]]) -> Examples:
    """The pieces of a split's texts; what is absent stays so."""
    return texts if isinstance(texts, Absent) else [*itertools.chain.from_iterable(cut)]


def _pieces(cut: Mapping[Split, Sequence[list[Any]]]) -> str:
    """How many texts were cut into pieces, for the record and its reader."""
    long = [len(pieces) for texts in cut.values() for pieces in texts if len(pieces) > 1]
    return f"; {len(long)} long {'text' if len(long) == 1 else 'texts'} in {sum(long)} pieces" if long else ""


def _written(precision: str) -> str:
    """In which number format the unlearned model is written, where that is not the usual one."""
    return "" if precision == "float32" else f"; written in {precision}"
