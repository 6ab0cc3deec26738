"""RESTOR: documents that corrupt what a model knows; is it restored once they are unlearned?"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from unrecall.data.digests import digest
from unrecall.data.request import Request
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.model_cache import TrainingSetup, first, trained_once
from unrecall.scenarios.teaching import Learner, TaughtTexts
from unrecall.spec.parameters import Count, Index, Positive
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import Text, read, without_repeats
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session


@dataclass(frozen=True)
class Restor(TaughtTexts):
    """A model that knows facts about 50 people is taught documents with wrong ones; unlearning must bring them back.

    The clean model is taught all facts. The original is the clean model taught the documents (forget) and the facts
    about other people (retain); retrained models are the clean model taught retain alone, so they still know what the
    documents contradict. Facts about the 50 people are the test set, and `restoration` is the share of what the
    documents took that came back. One document in ten is the holdout: it tells the same wrong facts in other words, so
    membership numbers say little here.

    `data`: folder of the RESTOR files. `corruption`: mix_a0 to mix_a3 (ever more unrelated true facts between the wrong
    ones) or squad_v7_dset. `model`: folder or hub id of a model that knows the facts; left out, a small Llama is
    taught them here (`width`, `depth`, `words`, 20 epochs). `documents`: how many. `epochs`, `lr`: of the corruption
    (the paper: 5 epochs, lr 5e-5, LoRA; for the small Llama lr 1e-3). `references`: retrained models.

    Reference: Rezaei et al., "RESTOR: Knowledge Recovery in Machine Unlearning", TMLR 2025, arXiv 2411.00204. Differs
    from the paper in the model, in scoring the answers' words under teacher forcing where the paper samples an answer
    and asks a judge, in the test facts being those that the clean model was taught, in no instruction repair, and in
    documents cut at 512 tokens.
    """

    corruption: Literal["mix_a0", "mix_a1", "mix_a2", "mix_a3", "squad_v7_dset"] = "mix_a0"
    documents: Count = 1000
    epochs: Count = 5
    lr: Positive | None = None
    seed: Index = 0

    def make(self) -> Scenario:
        """Reads facts and documents, and says how to teach and to corrupt."""
        folder = self.folder("RESTOR")
        targets = set(read_json(folder / "entities.json"))
        about = _facts(read_json(folder / "facts.json"))
        test = [fact for who, fact in about if who in targets]
        retain = [fact for who, fact in about if who not in targets]
        texts = without_repeats(read(folder / f"{self.corruption}.json"))
        drawn = shuffled(texts, self.seed)[: self.documents]
        if min(len(test), len(retain), len(drawn)) == 0:
            raise BadInput(f"{folder}: expected facts about the entities and about others, and documents, got none.")
        held = max(1, len(drawn) // 10)
        taught = self.learner([*test, *retain, *texts])
        task = CausalLM(taught.tokenizer, longest=512)
        clean = taught.build if self.model else _Clean(taught, task, [*test, *retain])
        return Scenario(
            name="restor",
            summary=f"RESTOR, {len(drawn) - held} documents of {self.corruption} about 50 people; {taught.what}",
            task=task,
            request=Request(drawn[held:], without_repeats(retain), drawn[:held], without_repeats(test)),
            build=clean,
            recipe=adamw(self.lr or (5e-5 if self.model else 1e-3), self.epochs, 32),
            references=self.references,
        )


@dataclass(frozen=True)
class _Clean:
    """The small Llama once it was taught the facts; kept in the cache."""

    taught: Learner
    task: CausalLM
    facts: list[Text]

    def __call__(self, _: int, session: Session) -> nn.Module:
        with own_randomness(0):
            model = self.taught.build(0, session)
        setup = TrainingSetup(self.task, self.facts, self.taught.recipe, 0, digest(self.facts), first(self.facts))
        return trained_once("restor", "clean", model, setup, session).model


def _facts(data: Any) -> list[tuple[str, Text]]:
    """(person, question and answer); of several true answers the first, the others being no less true."""
    try:
        return [
            (who, {"prompt": fact["question"], "answer": fact["answers"][0]})
            for who, facts in data["dset"].items()
            for fact in facts.values()
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"facts.json: expected RESTOR's facts, got another form ({error!r}).") from error
