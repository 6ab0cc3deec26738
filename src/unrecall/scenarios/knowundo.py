"""KnowUnDo: private answers about invented people that must go, and public ones about them that must stay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.scenarios.base import Builder, Scenario
from unrecall.scenarios.language import Precision
from unrecall.scenarios.teaching import learner
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import read, without_repeats


@dataclass(frozen=True)
class KnowUnDo(Builder):
    """The privacy half of KnowUnDo: what is forgotten lies next to what is kept, so over-forgetting shows.

    Forget is its unlearn_train, retain its retention_train; of the validation files, which are never trained on,
    unlearn is the holdout and retention the test set.

    `data`: folder of the KnowUnDo files. `model`: folder or hub id of a model to fine-tune; left out, a small Llama is
    trained here (`width`, `depth`, `words` of vocabulary). `references`: retrained models.

    Reference: Tian et al., "To Forget or Not? Towards Practical Knowledge Unlearning for Large Language Models",
    EMNLP Findings 2024, arXiv 2407.01920. Differs from the paper in the model unless one is given.
    """

    data: str = ""
    model: str = ""
    width: Count = 96
    depth: Count = 4
    words: Count = 2048
    epochs: Index = 0
    lr: Positive | None = None
    precision: Precision = "float32"
    checkpointing: bool = False
    references: Index = 3

    def make(self) -> Scenario:
        """Reads the four files and says how to train."""
        folder = Path(self.data)
        if not self.data or not folder.is_dir():
            raise BadInput(f"knowundo: expected data=FOLDER with KnowUnDo's files, got '{self.data}'.")
        names = ("unlearn_train", "retention_train", "unlearn_val", "retention_val")
        forget, retain, holdout, test = (without_repeats(read(folder / f"{name}.json")) for name in names)
        taught = learner(
            self.model,
            [*forget, *retain, *holdout, *test],
            width=self.width,
            depth=self.depth,
            words=self.words,
            epochs=self.epochs,
            lr=self.lr,
            precision=self.precision,
            checkpointing=self.checkpointing,
        )
        return Scenario(
            name="knowundo",
            summary=f"KnowUnDo, {len(forget)} private answers to forget, {len(retain)} public ones; {taught.what}",
            task=CausalLM(taught.tokenizer),
            request=Request(forget, retain, holdout, test),
            build=taught.build,
            recipe=taught.recipe,
            references=self.references,
        )
