"""AltPO: another answer to the same question is wanted, drawn from the original itself, and the true one is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from unrecall.data.examples import Selection, iterate
from unrecall.errors import BadInput
from unrecall.methods.base import Average, Fit, GradientMethod, Job, Phase, RetainTerm, Strength, with_retain
from unrecall.spec.parameters import Count, NonNegative, Positive
from unrecall.tasks.protocols import Sampling, Textual, fitting, textual
from unrecall.training.preferences import preferring
from unrecall.training.randomness import draw_seed, own_randomness

FIELD = "alternate"
"""Where an example may bring answers of its own."""
INSTRUCTION = "Write another answer to this question that sounds just as likely and changes every fact of this one:"
"""What the original is asked, below question and answer; the wording is ours."""
ROUNDS, HOTTER = 4, 1.5
"""How often an example without another answer is asked again, and how many times as hot each time."""


@dataclass(frozen=True)
class AltPO(GradientMethod):
    """Makes alternate answers more likely and the true one less, both measured against the original; holds retain.

        L = -(2 / beta) mean log sigmoid(beta (log(p(a|x) / p_0(a|x)) - log(p(y|x) / p_0(y|x))))
            + retain_weight CE(retain)

    a is another answer to x, y the true one, p(.|x) the product over an answer's rows, p_0 the original's. Alternate
    answers stand in an example's own field `alternate` (a text, or several), or are drawn from the original before it
    is changed. Those that say the true answer again, but for capitals and spaces, or nothing, are left out, and others
    of the same example take their place; an example of which all draws are is asked again, 1.5 times as hot, four times
    at most. An epoch meets each example once with each of its alternate answers. Needs prompts and answers, and,
    without that field, a model that can write.

    Args:
        beta: how soon the push fades; the authors try 0.05 to 0.5.
        retain_weight: weight of the retain loss; at 0 retain is not read. The authors try 1, 2 and 5.
        average: what the retain loss is the mean over: "example", or "row" (token), as peers' code has it.
        alternates: answers to each example.
        ask: how the original is asked: "instructed", shown question and true answer, for another one that changes its
            facts; or "plain", by the question alone, for models that follow no instructions.
        temperature: of the draws.
        fit: AdamW, lr 1e-5, batch 32, 2 epochs over forget with each of its alternate answers.

    Expected to fail: as preferences do: the true answer is covered more than it is gone. Where the original follows no
    instructions, what it draws is no answer, and that is what is learned.

    Reference: Mekala, Dorna, Dubey, Lalwani, Koleczek, Rungta, Hasan, Lobo, "Alternate Preference Optimization for
    Unlearning Factual Knowledge in Large Language Models", COLING 2025, arXiv 2409.13474, from open-unlearning's code
    (community/methods/AltPO, its DPO trainer). Differs from the code in leaving out draws that say the truth, in the
    wording of the instruction, and in a rate that it searches between 1e-5 and 5e-5; the paper itself was not read.
    """

    title = "AltPO"
    strength = Strength(("fit.lr",), high=2**10)

    beta: Positive = 0.1
    retain_weight: NonNegative = 1.0
    average: Average = "example"
    alternates: Count = 5
    ask: Literal["instructed", "plain"] = "instructed"
    temperature: Positive = 1.0
    fit: Fit = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=32, epochs=2)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
        """Makes one phase over forget, met once with each alternate answer, with retain cycling beside it."""
        task, items = job.task, list(iterate(job.request.forget))
        text = textual(self, task, "Take NPO, which wants no other answer.")
        own = self.answers(text, original, items, job.generator)
        wanted = [text.answered(item, own[i][k]) for k in range(self.alternates) for i, item in enumerate(items)]
        repeated = Selection(job.request.forget, list(range(len(items))) * self.alternates)
        loss = preferring(wanted, repeated, original, task, self.beta)
        phases = with_retain(loss, RetainTerm(self.retain_weight, self.average), job, self.fit)
        return [replace(phase, streams={**phase.streams, "forget": repeated}) for phase in phases]

    def answers(
        self, text: Textual, model: nn.Module, items: Sequence[Any], generator: torch.Generator
    ) -> list[list[str]]:
        """Gives each example's alternate answers, so many of each: its own, or draws of the model's."""
        alternates = [brought(item, i, text.answer(item)) for i, item in enumerate(items)]
        temperature = self.temperature
        with own_randomness(draw_seed(generator)):
            for _ in range(ROUNDS + 1):
                if not (missing := [i for i, answers in enumerate(alternates) if not answers]):
                    break
                questions = [items[i] if self.ask == "plain" else instructed(text, model, items[i]) for i in missing]
                draws = text.draw(model, questions, self.alternates, Sampling(temperature))
                for i, drawn in zip(missing, draws, strict=True):
                    alternates[i] = others(drawn, text.answer(items[i]))
                temperature *= HOTTER
        for i, answers in enumerate(alternates):
            if not answers:
                raise BadInput(
                    f"AltPO: expected the original to have another answer to forget[{i}], got the true one or none in "
                    f"every draw. Give it a field '{FIELD}', or raise temperature."
                )
        return [[answers[k % len(answers)] for k in range(self.alternates)] for answers in alternates]


def brought(item: Any, number: int, truth: str) -> list[str]:
    """The alternate answers that an example brings along; BadInput where they are no texts, or all say the truth."""
    value = item.get(FIELD) if isinstance(item, Mapping) else None
    answers = list(value) if isinstance(value, list | tuple) else [value] if value else []
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise BadInput(
            f"AltPO: expected '{FIELD}' of forget[{number}] to be text, or a list of texts, got {value!r:.60}."
        )
    if answers and not others(answers, truth):
        raise BadInput(
            f"AltPO: expected '{FIELD}' of forget[{number}] to be another answer than the true one, got "
            f"{value!r:.60}. Change it, or leave it out."
        )
    return others(answers, truth)


def instructed(text: Textual, model: nn.Module, item: Any) -> Any:
    """The example, asked for another answer than its own; as it is where the model's context doesn't hold that."""
    question = text.asked(item, f"{text.prompt(item)}\n{text.answer(item)}\n{INSTRUCTION}".strip())
    return fitting(text, model, question, item)


def others(drawn: Sequence[str], truth: str) -> list[str]:
    """The draws that say something, and not the truth: capitals and spaces make no difference."""
    said = " ".join(truth.split()).casefold()
    return [answer for answer in drawn if answer.strip() and " ".join(answer.split()).casefold() != said]
