"""KnowUnDo: private answers about invented people that must go, and public ones about them that must stay."""

from dataclasses import dataclass

from unrecall.data.request import Request
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.teaching import TaughtTexts
from unrecall.spec.parameters import Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import read, without_repeats


@dataclass(frozen=True)
class KnowUnDo(TaughtTexts):
    """The privacy half of KnowUnDo: what is forgotten lies next to what is kept, so over-forgetting shows.

    Forget is its unlearn_train, retain its retention_train; of the validation files, which are never trained on,
    unlearn is the holdout and retention the test set.

    `data`: folder of the KnowUnDo files. `model`: folder or hub id of a model to fine-tune; left out, a small Llama is
    trained here (`width`, `depth`, `words` of vocabulary). `references`: retrained models.

    Reference: Tian et al., "To Forget or Not? Towards Practical Knowledge Unlearning for Large Language Models",
    EMNLP Findings 2024, arXiv 2407.01920. Differs from the paper in the model unless one is given.
    """

    epochs: Index = 0
    lr: Positive | None = None

    def make(self) -> Scenario:
        """Reads the four files and says how to train."""
        folder = self.folder("KnowUnDo")
        names = ("unlearn_train", "retention_train", "unlearn_val", "retention_val")
        forget, retain, holdout, test = (without_repeats(read(folder / f"{name}.json")) for name in names)
        taught = self.learner([*forget, *retain, *holdout, *test], self.epochs, self.lr)
        return Scenario(
            name="knowundo",
            summary=f"KnowUnDo, {len(forget)} private answers to forget, {len(retain)} public ones; {taught.what}",
            task=CausalLM(taught.tokenizer),
            request=Request(forget, retain, holdout, test),
            build=taught.build,
            recipe=taught.recipe,
            references=self.references,
        )
