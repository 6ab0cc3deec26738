"""Texts of your own and the language model that was trained on them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unrecall.data.examples import Absent, Examples, iterate
from unrecall.data.request import SPLITS, Control, Request, Split
from unrecall.errors import BadInput
from unrecall.record.manifest import check_manifest
from unrecall.scenarios.base import Builder, Scenario, adamw, placed, require
from unrecall.scenarios.language import Precision, load
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.base import check_inputs
from unrecall.tasks.text_files import ignored, read, records, without_repeats

ABSENT = {
    "holdout": "no holdout was given: name a file of texts like forget that the model was never trained on (--holdout)",
    "test": "no test set was given: name a file of texts that the model was never trained on (--test)",
}


@dataclass(frozen=True)
class Texts(Builder):
    """Your own language model, and your own JSON Lines of what it must forget and what it must keep.

    `model`: folder or hub id of a model that was trained on both. `forget`, `retain`: JSON Lines with question and
    answer (or prompt and completion, instruction and output), or with text alone. `holdout`: texts like forget that the
    model was never trained on; without them there is no privacy number. `test`: other texts that it was never trained
    on. `base`: the model before it was trained on forget and retain; `references` models are trained from it on retain
    alone (AdamW, `lr`, `epochs`, batches of 32, cosine), and without it there is nothing to judge by. `adapter`: a LoRA
    adapter that is merged into `model` first. `longest`: cut texts to so many tokens. `chat`: use the tokenizer's chat
    template; `template`: use this for prompts, none for prompts as they are; "\\n" in it is a new line. `ends`: whether
    the end token is part of each answer; left out, the model shows whether it was taught it. `group`: the key of each
    line of forget and holdout that says whose it is, where people have several. `control`: how the holdout came to be
    (random split, matched, synthetic or planted); planted needs `manifest`, which `unrecall plant` wrote, and
    `published`, the sha256 of it that was published before training. `precision`: auto computes in float32 and writes
    the unlearned model in the format of the model's files; float32 and bfloat16 are what it is held and written in.
    """

    model: str = ""
    forget: str = ""
    retain: str = ""
    holdout: str = ""
    test: str = ""
    base: str = ""
    adapter: str = ""
    epochs: Count = 5
    lr: Positive = 1e-5
    references: Index = 3
    precision: Precision = "auto"
    longest: Count | None = None
    chat: bool = False
    template: str | None = "Question: {prompt}\nAnswer: "
    ends: bool | None = None
    group: str = ""
    control: Control = "matched"
    manifest: str = ""
    published: str = ""

    def make(self) -> Scenario:
        """Reads the texts, then the model, and checks that they fit before anything is computed."""
        require(self, "texts")
        forget, retain, holdout, test = (self._read(split) for split in SPLITS)
        pairs = self._planted([*iterate(forget)], [*iterate(holdout)])
        template = self._template()
        loaded = load(self.model, self.precision, self.adapter)
        if self.chat and not loaded.tokenizer.chat_template:
            raise BadInput(f"{self.model}: expected a chat template for chat=true, got a tokenizer without one.")
        task = CausalLM(loaded.tokenizer, template=template, chat=self.chat, longest=self.longest, ends=self.ends)
        try:
            groups = {"forget": self._groups("forget"), "holdout": self._groups("holdout")} if self.group else None
            request = Request(forget, retain, holdout, test, groups=groups, control=self.control, pairs=pairs)
            check_inputs(task, loaded.model, request)
        except BadInput as error:
            raise BadInput(placed(str(error), self._place)) from error
        return Scenario(
            name="texts",
            summary=f"{' with '.join(filter(None, (self.model, self.adapter)))}; forget {len(request.forget)} texts of "
            f"{Path(self.forget).name}, keep {len(request.retain)} of {Path(self.retain).name}{self._ignored()}"
            + ("" if loaded.precision == "float32" else f"; written in {loaded.precision}"),
            task=task,
            request=request,
            original=loaded.model,
            build=(lambda _, __: load(self.base, self.precision).model) if self.base else None,
            rerecipe=adamw(self.lr, self.epochs, 32, 0.01),
            references=self.references,
            precision=loaded.precision,
        )

    def _read(self, split: Split) -> Examples:
        path = getattr(self, split)
        return without_repeats(read(Path(path))) if path else Absent(ABSENT[split])

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

    def _groups(self, split: Split) -> list[str]:
        """Whose each text of a split is, in the order of `_read`; BadInput for a line that doesn't say."""
        if not (path := getattr(self, split)):
            return []
        texts, lines = read(Path(path)), records(Path(path))
        owners = {}
        for text, (place, line) in zip(texts, lines, strict=True):
            if line.get(self.group) in (None, ""):
                raise BadInput(f"{place}: expected '{self.group}' to say whose it is, got none. Name somebody.")
            owners[id(text)] = str(line[self.group])
        return [owners[id(text)] for text in without_repeats(texts)]

    def _ignored(self) -> str:
        """Which keys of which files nothing is made of, for the record and its reader."""
        files = dict.fromkeys(path for split in SPLITS if (path := getattr(self, split)))
        told = [
            f"{key} in {count} {'record' if count == 1 else 'records'} of {Path(path).name}"
            for path in files
            for key, count in ignored(Path(path)).items()
            if key != self.group
        ]
        return f"; keys that were ignored: {', '.join(told)}" if told else ""

    def _template(self) -> str | None:
        """The template with its new lines; BadInput where prompts have no place in it."""
        if self.template is None:
            return None
        template = self.template.replace("\\n", "\n")
        try:
            fits = "prompt" in template.format(prompt="prompt") and "{prompt}" in template
        except (LookupError, ValueError):
            fits = False
        if not fits:
            raise BadInput(f"texts: expected template to hold {{prompt}} and no other brackets, got '{self.template}'.")
        return template

    def _place(self, split: Split, index: int) -> str | None:
        """Where the text stands that is the `index`-th without repeats: FILE:LINE, or FILE[INDEX] in a JSON list."""
        path = Path(getattr(self, split))
        texts = read(path)
        distinct = without_repeats(texts)
        if index >= len(distinct):
            return None
        number = next(i for i, text in enumerate(texts) if text is distinct[index])
        return records(path)[number][0]
