"""Prefix probe: the attacker starts the true answer, and the model goes on with what it was to forget."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import Field
from torch import nn

from unrecall.attacks.base import Attacked, RecoveryAttack, Success
from unrecall.data.examples import Examples, Selection, iterate
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.record.schema import ThreatModel
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Textual, textual
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.ascent import ascend
from unrecall.training.copies import own_copy
from unrecall.training.job import Job

Fraction: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class Shown(Selection):
    """Examples of whose answers the first `share` is shown to the model."""

    def __init__(self, whole: Examples, share: float) -> None:
        super().__init__(whole, range(len(whole)))
        self.share = share


@dataclass(frozen=True)
class Prefix(RecoveryAttack):
    """Shows the first share of each true answer and lets the model write the rest, greedily; trains nothing.

        success = ROUGE-L recall(what is left of the answer, what the model writes),    in [0, 1] for each example

    A model that has learned not to begin an answer may still know how it goes on. With a larger share less is left and
    any model finds it more easily, one that never saw the answer too: the retrained models beside it are the measure.

    Args:
        shares: of the answer's tokens, shown one after another; nothing is shown before the attack.

    Expected to fail: where answers are short or their beginning tells nothing. Plain text is asked with nothing at all
    before the attack, which no model answers.

    Reference: Carlini, Ippolito, Jagielski, Lee, Tramer, Zhang, "Quantifying Memorization Across Neural Language
    Models", ICLR 2023, arXiv 2202.07646, after Carlini et al., "Extracting Training Data from Large Language Models",
    USENIX Security 2021, arXiv 2012.07805. Differs from the papers, which show a number of tokens and ask for the next
    50 word for word, in showing shares of an answer and counting the words that come back in order.
    """

    title: ClassVar[str] = "Prefix probe"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="greedy answers of a model whose answer the attacker may begin",
        data="the prompt and the beginning of each true answer",
        budget="the share of the answer that is shown; one answer an example",
    )
    needs: ClassVar[tuple[type, ...]] = (Textual,)
    axis: ClassVar[str] = "share of the answer that is shown"
    measure: ClassVar[str] = "ROUGE-L recall"

    shares: tuple[Fraction, ...] = (0.25, 0.5, 0.75)

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """ROUGE-L recall of what the model writes against what is left of each answer."""
        texts, share = textual(self, task), examples.share if isinstance(examples, Shown) else 0.0
        items = list(iterate(examples))
        left = [texts.left(item, share) for item in items]
        return Success(rouge_l_recall(left, texts.generate(model, items, shown=share)))

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model as it was, with more and more of each answer shown."""
        for share in sorted(set(self.shares)):
            yield Attacked(share, model, tuple(Shown(examples, share) for examples in pool.tested))

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, which by gradient ascent has forgotten how answers begin, and keeps how they go on.

        The beginning is the smallest share of the words that the attack shows, one word at least.
        """
        texts, copied = textual(self, job.task), own_copy(original).eval()

        def begun(item: Any) -> Any:
            words = texts.answer(item).split()
            return texts.answered(item, " ".join(words[: max(1, int(min(self.shares) * len(words)))]))

        beginnings = [begun(item) for item in iterate(job.request.forget)]
        ascend(copied, list(copied.parameters()), job, streams={"forget": beginnings})
        return copied
