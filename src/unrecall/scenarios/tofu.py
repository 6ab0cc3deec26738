"""TOFU: 4,000 questions about 200 authors who don't exist, and a language model that must forget some of them."""

from dataclasses import dataclass
from typing import Literal

from unrecall.data.request import Request
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.teaching import TaughtTexts
from unrecall.spec.parameters import Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import Text, read, without_repeats

EACH = 20
"""Questions about each author, one author after another."""


@dataclass(frozen=True)
class Tofu(TaughtTexts):
    """TOFU's forget01, forget05 or forget10: a small Llama trained here, or your own model fine-tuned on it.

    As many authors as are forgotten (at least 10) are taken out of retain and never trained on: they are the holdout,
    which TOFU itself lacks. Real authors and world facts are the test set.

    `data`: folder of the TOFU files. `model`: folder or hub id of a model to fine-tune (AdamW, lr 1e-5, 5 epochs unless
    told otherwise); left out, a Llama of `width` and `depth` with a tokenizer of `words` is trained from nothing
    (AdamW, lr 5e-3, cosine, 20 epochs). `forget`: forget01, forget05 or forget10. `references`: retrained models.

    Reference: Maini, Feng, Schwarzschild, Lipton, Kolter, "TOFU: A Task of Fictitious Unlearning for LLMs", COLM 2024,
    arXiv 2401.06121. Differs from the paper in the holdout, and in the model unless one is given.
    """

    forget: Literal["forget01", "forget05", "forget10"] = "forget10"
    epochs: Index = 0
    lr: Positive | None = None
    seed: Index = 0

    def make(self) -> Scenario:
        """Reads the questions, splits the authors, and says how to train."""
        folder = self.folder("TOFU")
        share = int(self.forget.removeprefix("forget"))
        extras = read(folder / f"{self.forget}_perturbed.json") + read(folder / "retain_perturbed.json")
        forget = _with(read(folder / f"{self.forget}.json"), extras)
        rest = _with(read(folder / f"retain{100 - share}.json"), extras)
        authors = shuffled(range(len(rest) // EACH), self.seed)
        out = set(authors[: max(10, len(forget) // EACH)])
        test = [
            text | {"source": source}
            for name, source in (("real_authors", "real authors"), ("world_facts", "world facts"))
            for text in read(folder / f"{name}_perturbed.json")
        ]
        retain = [text for i, text in enumerate(rest) if i // EACH not in out]
        holdout = [text for i, text in enumerate(rest) if i // EACH in out]
        taught = self.learner([*forget, *rest], self.epochs, self.lr)
        return Scenario(
            name="tofu",
            summary=f"TOFU, {self.forget} of 200 fictitious authors, {len(out)} more held out; {taught.what}",
            task=CausalLM(taught.tokenizer),
            request=Request(
                without_repeats(forget), without_repeats(retain), without_repeats(holdout), without_repeats(test)
            ),
            build=taught.build,
            recipe=taught.recipe,
            references=self.references,
        )


def _with(texts: list[Text], extras: list[Text]) -> list[Text]:
    """The texts, with paraphrases and wrong answers where there are some."""
    extra_of = {(text["prompt"], text["answer"]): text for text in extras}
    return [extra_of.get((text["prompt"], text["answer"]), text) for text in texts]
