"""TinyStories: a real language model of 260,032 weights, and real stories that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.scenarios.base import Builder, Scenario, adamw
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.hub import Loaded
from unrecall.scenarios.llama2c import load
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import Text

MEMBERS = "all stories here are of the model's training set: name epochs=N to teach it some of them and hold others out"


@dataclass(frozen=True)
class TinyStories(Builder):
    """The stories260K model of llama2.c, which must forget some of the stories that it was trained on.

    With `epochs` 0 the model is taken as it is. It can't be retrained (its training set is two million stories) and no
    story is known to be unseen, so there is neither a retrained model nor a holdout, and the verdict says so. With
    `epochs` N the original is the model taught forget and retain N times more, retrained models are taught retain
    alone, and stories that neither is taught are the holdout; the pretraining has seen them all alike.

    `data`: folder with stories260K.bin, tok512.bin and tinystories_sample.txt, or with the folders `stories260k` and
    `tinystories` that hold them. `forget`, `retain`, `holdout`: how many stories. `lr`: of teaching (AdamW, cosine).
    `longest`: stories are cut to so many tokens; 512 is all that the model takes.

    Reference: Eldan, Li, "TinyStories: How Small Can Language Models Be and Still Speak Coherent English?", 2023,
    arXiv 2305.07759; the checkpoint is Karpathy's, trained with llama2.c.
    """

    data: str = ""
    forget: Count = 100
    retain: Count = 400
    holdout: Count = 100
    epochs: Index = 0
    lr: Positive = 1e-3
    longest: Annotated[int, Field(ge=2, le=512)] = 512
    references: Index = 3
    seed: Index = 0

    def make(self) -> Scenario:
        """Reads model and stories and draws the sets."""
        if not self.data or not Path(self.data).is_dir():
            raise BadInput(f"tinystories: expected data=FOLDER with the model and the stories, got '{self.data}'.")
        pair = self._loaded()
        stories = self._stories(self._file("tinystories/tinystories_sample.txt"))
        total = self.forget + self.retain + (2 * self.holdout if self.epochs else 0)
        if total > len(stories):
            raise BadInput(f"tinystories: expected at most {len(stories)} stories in all, got {total}. Ask for fewer.")
        drawn = shuffled(stories, self.seed)[:total]
        taught, unseen = drawn[: self.forget + self.retain], drawn[self.forget + self.retain :]
        forget, retain = taught[: self.forget], taught[self.forget :]
        task = CausalLM(pair.tokenizer, template=None, longest=self.longest)
        if not self.epochs:
            return Scenario(
                name="tinystories",
                summary=f"stories260K as it is; forget {self.forget} of the stories that it was trained on",
                task=task,
                request=Request(forget, retain, Absent(MEMBERS), Absent(MEMBERS)),
                original=pair.model,
                references=0,
            )
        return Scenario(
            name="tinystories",
            summary=f"stories260K, taught {len(taught)} stories; forget {len(forget)} of them",
            task=task,
            request=Request(forget, retain, unseen[: self.holdout], unseen[self.holdout :]),
            build=lambda _, __: self._loaded().model,
            recipe=adamw(self.lr, self.epochs, 16),
            references=self.references,
        )

    def _loaded(self) -> Loaded:
        return load(self._file("stories260k/stories260K.bin"), self._file("stories260k/tok512.bin"))

    def _file(self, name: str) -> Path:
        """A file in its own folder below `data`, or in `data` itself."""
        nested = Path(self.data) / name
        return nested if nested.is_file() else Path(self.data) / nested.name

    @staticmethod
    def _stories(path: Path) -> list[Text]:
        if not path.is_file():
            raise BadInput(f"{path}: expected the stories, got nothing there. Check data.")
        text = path.read_bytes().decode("utf-8", errors="replace")
        whole = [story.strip() for story in text.split("<|endoftext|>")[1:-1]]
        return [{"prompt": "", "answer": story} for story in dict.fromkeys(whole) if story]
