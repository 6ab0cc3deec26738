"""What models write, and what they make of true and wrong answers: each model answers once, and all are compared."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from unrecall.data.examples import Absent, evenly, iterate
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.cache import JSON
from unrecall.disk.code_key import code_key
from unrecall.errors import BadInput
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Setting, Subject
from unrecall.metrics import truth
from unrecall.metrics.base import Measured, Metric, mean_share
from unrecall.models.observe import observe
from unrecall.nn.waiting import ask_for
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Measurement, Piece, Reading, Side, verbatim
from unrecall.tasks.protocols import Textual, textual
from unrecall.tasks.rouge import rouge_l_recall

MOST = 200
"""How many examples of a set are answered in full."""
HALF = 0.5
"""How much of a text without a prompt is shown before the model goes on."""
USE: tuple[Split, ...] = ("retain", "test")
"""Where use is judged: only on examples that have wrong answers, if there are any, as TOFU does."""
FORGET_ROUGE = Row("forget_rouge", "ROUGE-L recall on forget", "forgetting", "above", judged=True)
PREFERENCE = Row(
    "forget_truth_preference", "Preference for the truth on forget, 1/(1 + R)", "forgetting", "above", judged=True
)
FORGET_RATIO = Row("forget_truth_ratio", "Truth ratio on forget, min(R, 1/R)", "forgetting")
RETAIN_RATIO = Row("retain_truth_ratio", "Truth ratio on retain, max(0, 1 - R)", "utility")
QUALITY = Row("forget_quality", "Forget quality, p-value", "forgetting", "below")
UTILITY = Row("model_utility", "Model utility", "utility", judged=True)
RATIOS: Mapping[Split, Mapping[Row, Callable[[np.ndarray], np.ndarray]]] = {
    "forget": {PREFERENCE: truth.truth_preference, FORGET_RATIO: truth.forget_truth_ratio},
    "retain": {RETAIN_RATIO: truth.retain_truth_ratio},
}
"""What is made of log R on each split: row and formula. Both truth ratios are TOFU's."""


def measure(setting: Setting, most: int = MOST) -> Measured:
    """ROUGE-L recall, truth ratios, multiple choice, forget_quality and model_utility, and what each model wrote.

    Answers are greedy, to at most `most` examples of a set, evenly spread, and end at the latest after half as many
    tokens again as the true answer has. What a request has no data for is a row with the reason.
    NotSupported for a task whose models write no text.

    Reference: Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", COLM 2024, arXiv 2401.06121. Differs from
    its code in that length, which is 200 tokens there, prompt included, whatever the answer: ROUGE-L recall of an
    answer that wanders off before it says the truth is lower here.
    """
    texts = textual("answers", setting.task, "Read the other measurements.")
    holds = partial(texts.fits, ask_for(setting.models.original))
    sets = [questions for split in SPLITS for questions in question_sets(setting.observed, split, most)]
    sets = [_within_context(questions, texts, holds) for questions in sets]
    by_role = {subject.role: _answers(subject, sets, setting) for subject in setting.subjects}
    answered = [
        Answered(questions, {role: answers[i] for role, answers in by_role.items()}) for i, questions in enumerate(sets)
    ]
    rows = [row for part in answered for row in _of_set(part, texts)]
    rows += [_quality(answered[0]), _utility(answered)]
    return Measured(rows, list(_readings(answered[0], setting.evidence, texts)))


@dataclass(frozen=True)
class QuestionSet:
    """The examples of a split, or of one source of test, by index.

    `choices`: which of them come with wrong answers. `written`: which of them are answered in full. `reason`: why there
    are no examples.
    """

    name: str
    split: Split
    items: Mapping[int, Any]
    choices: Sequence[int] = ()
    written: Sequence[int] = ()
    reason: str = ""

    @property
    def no_choices(self) -> str:
        """Why nothing can be said of wrong answers where there are none."""
        return self.reason or f"no example of {self.name} comes with wrong answers"


class Answers(NamedTuple):
    """What one model makes of one set of questions.

    Of the examples that it answers in full: the `texts` it wrote, their ROUGE-L recall and the `loss` of the true
    answers. Of those that come with wrong answers: the losses of the `true` answer, of that answer `restated` (itself
    where it isn't) and of each `wrong` one. All losses are in nats a row.
    """

    texts: list[str]
    rouge: np.ndarray
    loss: np.ndarray
    true: np.ndarray
    restated: np.ndarray
    wrong: list[np.ndarray]

    @property
    def log_ratio(self) -> np.ndarray:
        """log R of the examples that come with wrong answers."""
        return truth.truth_ratio(self.restated, self.wrong)


class Answered(NamedTuple):
    """A set of questions, and what each model makes of it, by role."""

    questions: QuestionSet
    by_role: Mapping[str, Answers]


def question_sets(request: Request, split: Split, most: int) -> Iterator[QuestionSet]:
    """One set a split, and one a source for test."""
    examples = request[split]
    if isinstance(examples, Absent):
        yield QuestionSet(split, split, {}, reason=examples.reason)
    sources: dict[str, dict[int, Any]] = {}
    for i, item in enumerate(iterate(examples)):
        sources.setdefault(str(item.get("source", split)) if split == "test" else split, {})[i] = item
    for name, items in sources.items():
        choices = [i for i, item in items.items() if _texts(item, "wrong", f"{split}[{i}]")]
        eligible = choices if choices and split in USE else list(items)
        yield QuestionSet(name, split, items, choices, [eligible[i] for i in evenly(len(eligible), most)])


def _within_context(questions: QuestionSet, texts: Textual, holds: Callable[[Any], bool]) -> QuestionSet:
    """The set without other answers that the model's context doesn't hold: each example with those that are left."""
    items = dict(questions.items)
    for i in questions.choices:
        where = f"{questions.split}[{i}]"
        for key in ("wrong", "restated"):
            answers = _texts(items[i], key, where)
            left = [answer for answer in answers if holds(texts.answered(items[i], answer))]
            if len(left) < len(answers):
                items[i] = {**items[i], key: left}
    choices = [i for i in questions.choices if items[i].get("wrong")]
    return replace(questions, items=items, choices=choices)


def _texts(item: Any, key: str, where: str) -> list[str]:
    """The answers that an example has under a key; BadInput where they are no texts."""
    value = item.get(key) or []
    answers = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise BadInput(f"{where}: expected '{key}' to be text, or a list of texts, got {value!r:.60}.")
    return answers


def _answers(subject: Subject, sets: Sequence[QuestionSet], setting: Setting) -> list[Answers]:
    """A model's answers to all sets, from the cache where it has answered them before."""

    def plain() -> list[list[Any]]:
        setting.session.say(f"reading: {subject.role}")
        return [_answer(subject, questions, setting) for questions in sets]

    code = code_key(_answer)
    key = (setting.model_keys[subject.role], *setting.key, repr([questions.written for questions in sets]), code)
    return [
        Answers(texts, np.array(rouge), np.array(loss), np.array(true), np.array(restated), [*map(np.array, wrong)])
        for texts, rouge, loss, true, restated, wrong in setting.cache.get("reading", key, JSON, plain)
    ]


def _answer(subject: Subject, questions: QuestionSet, setting: Setting) -> list[Any]:
    """One model's answers to one set, in the order of `Answers`, as plain lists."""
    texts, options, ends = textual("answers", setting.task), [], [0]
    for i in questions.choices:
        item, where = questions.items[i], f"{questions.split}[{i}]"
        restated = _texts(item, "restated", where)[:1] or [texts.answer(item)]
        options += [texts.answered(item, answer) for answer in (*restated, *_texts(item, "wrong", where))]
        ends.append(len(options))
    losses = observe(subject.model, setting.task, options).loss.tolist() if options else []
    groups = [losses[start:end] for start, end in itertools.pairwise(ends)]
    items = [questions.items[i] for i in questions.written]
    written = _write(subject.model, items, texts)
    rouge = rouge_l_recall([texts.left(item, _shown(item, texts)) for item in items], written)
    true_losses = setting.evidence[subject.role].signals[questions.split].loss if items else np.zeros(0)
    return [
        written,
        rouge.tolist(),
        true_losses[list(questions.written)].tolist(),
        true_losses[list(questions.choices)].tolist(),
        [group[0] for group in groups],
        [group[1:] for group in groups],
    ]


def _write(model: nn.Module, items: Sequence[Any], texts: Textual) -> list[str]:
    """What the model writes for each example."""
    written = [""] * len(items)
    for shown in (0.0, HALF):
        indices = [i for i, item in enumerate(items) if _shown(item, texts) == shown]
        answers = texts.generate(model, [items[i] for i in indices], shown=shown)
        for i, answer in zip(indices, answers, strict=True):
            written[i] = answer
    return written


def _shown(item: Any, texts: Textual) -> float:
    """How much of the answer is shown before the model writes: half of it where there is no prompt to answer."""
    return 0.0 if texts.prompt(item) else HALF


def _of_set(answered: Answered, texts: Textual) -> Iterator[Measurement]:
    """ROUGE-L recall, truth ratios and multiple choice on one set."""
    questions, by_role = answered
    forget, group = questions.split == "forget", "utility" if questions.split in USE else "forgetting"
    if questions.split != "test":
        row = FORGET_ROUGE if forget else Row(f"{questions.name}_rouge", f"ROUGE-L recall on {questions.name}", group)
        values = {role: mean_share(answers.rouge, questions.reason) for role, answers in by_role.items()}
        yield row.measured(values, _sampled(questions, texts))
    reason = questions.no_choices
    for row, compute in RATIOS.get(questions.split, {}).items():
        yield row.measured({role: mean_share(compute(answers.log_ratio), reason) for role, answers in by_role.items()})
    values = {
        role: mean_share(truth.multiple_choice(answers.true, answers.wrong), reason)
        for role, answers in by_role.items()
    }
    prefix = questions.split if questions.name == questions.split else f"{questions.split} {questions.name}"
    leak: Side | None = "above" if forget else None
    name = "_".join(prefix.lower().split())
    yield Row(f"{name}_mcq", f"Multiple choice on {questions.name}", group, leak).measured(values)


def _sampled(questions: QuestionSet, texts: Textual) -> str:
    """Which examples were answered, and from what."""
    over = " over those with wrong answers" if questions.choices and questions.split in USE else ""
    some = f"{len(questions.written)} of {len(questions.items)} examples, evenly spread{over}"
    halves = sum(_shown(questions.items[i], texts) > 0 for i in questions.written)
    halved = f"{halves} examples have no prompt: the first half of the text is shown"
    return "; ".join([some] * (len(questions.written) < len(questions.items)) + [halved] * (halves > 0))


def _quality(forget: Answered) -> Measurement:
    """Each model's truth ratios against those of the other retrained models."""
    ratios = {role: answers.log_ratio for role, answers in forget.by_role.items()}
    references = [role for role in ratios if role.startswith("retrained")]
    none = Estimate(value=None, note=forget.questions.no_choices)
    values = {
        role: truth.forget_quality(own, [ratios[other] for other in references if other != role])
        if forget.questions.choices
        else none
        for role, own in ratios.items()
    }
    return QUALITY.measured(values)


def _utility(answered: Sequence[Answered]) -> Measurement:
    """TOFU's model utility, of what the request has."""
    used = [part for part in answered if part.questions.split in USE]
    values = {
        role: truth.model_utility(
            {questions.name: _numbers(questions, by_role[role]) for questions, by_role in used if questions.written}
        )
        for role in answered[0].by_role
    }
    sets = [questions for questions, _ in used]
    notes = [f"{questions.name} is left out: {questions.reason}" for questions in sets if not questions.written]
    notes += [f"no truth ratio: {q.no_choices}" for q in sets if q.written and not q.choices]
    return UTILITY.measured(values, "; ".join(notes))


def _numbers(questions: QuestionSet, answers: Answers) -> np.ndarray:
    """Probability, ROUGE-L recall and, where there are wrong answers, truth ratio, `[numbers, examples]`."""
    probability = np.exp(-answers.loss)
    if not questions.choices:
        return np.stack([probability, answers.rouge])
    places = np.searchsorted(questions.choices, questions.written)
    if questions.split == "test":
        probability = truth.option_probability(answers.true, answers.wrong)[places]
    return np.stack([probability, answers.rouge, truth.retain_truth_ratio(answers.log_ratio)[places]])


def _readings(forget: Answered, evidence: Mapping[str, Evidence], texts: Textual) -> Iterator[Reading]:
    """Four forget examples that the unlearned model knows best beyond retrained ones, and four spread over the rest."""
    roles = [role for role in ("original", "unlearned", "retrained 0") if role in evidence]
    references = [reference["forget"].confidence for reference in evidence["unlearned"].references]
    confidence = evidence["unlearned"].signals["forget"].confidence
    beyond = confidence - (np.mean(references, axis=0) if references else 0)
    order = np.argsort(-beyond[list(forget.questions.written)], kind="stable").tolist()
    signals = {role: evidence[role].signals["forget"] for role in roles}
    probabilities = {role: signals[role].of_rows(np.exp(signals[role].log_prob)) for role in roles}
    for place in [*order[:4], *(order[4:][i] for i in evenly(len(order[4:]), 4))]:
        i = forget.questions.written[place]
        item = forget.questions.items[i]
        pieces = [
            Piece(text=piece, probability={role: float(probabilities[role][i][k]) for role in roles})
            for k, piece in enumerate(texts.pieces(item))
        ]
        dots = "... " if _shown(item, texts) else ""
        written = {role: f"{dots}{forget.by_role[role].texts[place]}" for role in roles}
        rest = texts.left(item, _shown(item, texts))
        yield Reading(
            prompt=texts.prompt(item),
            answer=texts.answer(item),
            pieces=pieces,
            written=written,
            index=int(i),
            verbatim={role: verbatim(forget.by_role[role].texts[place], rest) for role in roles},
            mean={role: float(np.mean(probabilities[role][i])) for role in roles},
        )


ANSWERS = Metric(
    "answers",
    (FORGET_ROUGE, PREFERENCE, FORGET_RATIO, RETAIN_RATIO, QUALITY, UTILITY),
    measure,
    needs=(Textual,),
)
