"""JensUn: towards a refusal on forget and the original on retain, both by a divergence that is bounded."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unrecall.data.batches import move
from unrecall.data.examples import iterate
from unrecall.methods.base import Batch, Fit, GradientMethod, Job, Phase, Rows, Strength, loss_on
from unrecall.models.observe import device_of
from unrecall.models.perturb import other_classes
from unrecall.nn.functional import js, one_hot_mask
from unrecall.spec.parameters import NonNegative, Positive
from unrecall.tasks.protocols import Textual, offers, textual
from unrecall.training.refusals import Refusal
from unrecall.training.teacher import remembered
from unrecall.training.terms import Terms, weighted


@dataclass(frozen=True)
class JensUn(GradientMethod):
    """Makes each token of an answer one of a refusal, and holds what the original says of retain.

        L = lambda_f JSD(p(.|x) || onehot(r)) over forget  +  lambda_r JSD(p(.|x) || p_0(.|x)) over retain

    JSD is the Jensen-Shannon divergence in nats, a mean over an example's rows and then over examples; each term lies
    in [0, ln 2], so that neither runs away. Row k of an answer is shown the true answer up to there, and its r is token
    k of the refusal, which begins again where it ends. Of examples that are no texts r is a class other than the true
    one, drawn anew for each row and batch. p_0 is the original's, read once.

    Args:
        lambda_f: weight of the forget term.
        lambda_r: weight of the retain term; at 0 retain is not read.
        refusals: texts that r is made of, one drawn for each example once, without commas and plus signs (a + separates
            them in a line). Each ends as the task ends an answer.
        fit: AdamW, lr 8e-6, weight decay 0.01, batch 32, 10 epochs over forget.

    Expected to fail: where the refusal is all but impossible at first, as its pull then is next to nothing (p log p of
    its probability p); where the first words of an answer are given. "No idea" is itself a sign of what was forgotten.

    Reference: Singh, Mueller, Croce, Hein, "Unlearning That Lasts: Utility-Preserving, Robust, and Almost Irreversible
    Forgetting in LLMs", arXiv 2509.02820, from its abstract and the authors' code, whose weights are both 1; the
    paper's own weights were not read. Differs from the code in r, which is one token a row (there every row has a one
    at each token of the refusal, which is no distribution), in the rows, which are the answer's (there those of the
    prompt and of padding too), in the end of the refusal (a variant of theirs, JensUnEOT), and in a constant rate
    without warm-up. Classes in place of tokens are ours.
    """

    title = "JensUn"
    strength = Strength(("fit.lr",), high=2**10)

    lambda_f: Positive = 1.0
    lambda_r: NonNegative = 1.0
    refusals: Annotated[tuple[Refusal, ...], Field(min_length=1)] = ("No idea",)
    fit: Fit = Fit(optimizer="adamw", lr=8e-6, weight_decay=0.01, batch_size=32, epochs=10)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, with retain cycling beside it where it has a weight."""
        request, task = job.request, job.task
        refused = self._refused(original, job) if offers(task, Textual) else None

        def forget(rows: Rows, batch: Batch) -> Tensor:
            if refused is not None:
                return towards(rows, refused.labels(rows, batch))
            return towards(rows, other_classes(rows.targets, rows.logits.shape[1], job.generator))

        terms = {"forget": weighted(self.lambda_f, loss_on("forget", task, forget))}
        if self.lambda_r == 0:
            return [Phase(Terms(terms), {"forget": request.forget}, self.fit)]
        before = remembered(original, task, request.retain)
        retain = loss_on("retain", task, lambda rows, batch: from_original(rows, before(batch)))
        loss = Terms({**terms, "retain": weighted(self.lambda_r, retain)})
        return [Phase(loss, {"forget": request.forget, "retain": request.retain}, self.fit)]

    @torch.no_grad()
    def _refused(self, model: nn.Module, job: Job) -> "Refused":
        """Draws a refusal for each example of forget, and reads the tokens that the task makes of each refusal."""
        task, forget, place = textual(self, job.task), job.request.forget, device_of(model)
        roomiest = min(iterate(forget), key=lambda item: len(task.prompt(item)))  # whose context cuts no refusal
        refusing = [move(job.task.collate([task.answered(roomiest, refusal)]), place) for refusal in self.refusals]
        answers = [job.task.rows(model, batch).targets for batch in refusing]
        lengths = torch.tensor([len(answer) for answer in answers]).to(place)
        drawn = torch.randint(len(answers), (len(forget),), generator=job.generator).to(place)
        return Refused(pad_sequence(answers, batch_first=True), lengths, drawn)


class Refused(NamedTuple):
    """Tokens of refusals `[refusals, longest]`, how many each has, and which of them each example gets `[examples]`."""

    answers: Tensor
    lengths: Tensor
    drawn: Tensor

    def labels(self, rows: Rows, batch: Batch) -> Tensor:
        """Gives the token that each row should have `[rows]`: those of the example's refusal in turn."""
        chosen = self.drawn[batch["index"]][rows.example]
        return self.answers[chosen, rows.places() % self.lengths[chosen]]


def towards(rows: Rows, labels: Tensor) -> Tensor:
    """Computes JSD(p || onehot(label)) of labels `[rows]`: the mean over an example's rows, then over examples."""
    p = rows.logits.softmax(1)
    return rows.mean(js(p, one_hot_mask(labels, p.shape[1]).to(p)))


def from_original(rows: Rows, before: Tensor) -> Tensor:
    """Computes JSD(p || p_0), given the original's logits `before` `[rows, classes]`, as the same mean."""
    return rows.mean(js(rows.logits.softmax(1), before.softmax(1)))
