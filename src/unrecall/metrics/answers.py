"""What models write, and what they make of true and wrong answers: each is asked once, all are held side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from unrecall.data.examples import Absent, iterate
from unrecall.data.request import SPLITS, Request, Split
from unrecall.data.signals import Evidence
from unrecall.disk.cache import JSON, code_key
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.setting import Setting, Subject
from unrecall.metrics import truth
from unrecall.metrics.base import Measured, Metric
from unrecall.models.observe import observe
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import Estimate, Measurement, Piece, Reading, Side
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Textual
from unrecall.tasks.rouge import rouge_l_recall

MOST = 200
"""How many examples of a set are answered in full."""
HALF = 0.5
"""How much of a text without a prompt is shown before the model goes on."""
USE: tuple[Split, ...] = ("retain", "test")
"""Where use is judged: only on examples that have wrong answers, if there are any, as TOFU does."""
FORGET_ROUGE = Row("forget_rouge", "ROUGE-L recall on forget", "forgetting", "above", judged=True)
EXTRACTION = Row("extraction_strength", "Extraction strength on forget", "forgetting", "above", judged=True)
QUALITY = Row("forget_quality", "Forget quality, p-value", "forgetting", "below")
UTILITY = Row("model_utility", "Model utility", "utility", judged=True)
PREFERENCE = Row(
    "forget_truth_preference", "Preference for the truth on forget, 1/(1 + R)", "forgetting", "above", judged=True
)
RATIOS = {
    PREFERENCE.name: (PREFERENCE, truth.truth_preference),
    "forget_truth_ratio": (
        Row("forget_truth_ratio", "Truth ratio on forget, min(R, 1/R)", "forgetting"),
        truth.forget_truth_ratio,
    ),
    "retain_truth_ratio": (
        Row("retain_truth_ratio", "Truth ratio on retain, max(0, 1 - R)", "utility"),
        truth.retain_truth_ratio,
    ),
}
"""What is made of R, by name, which begins with the split: row and formula. The last two are TOFU's."""


def measure(setting: Setting, most: int = MOST) -> Measured:
    """TOFU's measurements, extraction strength and multiple choice for every model, and what each of them wrote.

    Answers are greedy, to at most `most` examples a set, evenly spread. What a request has no data for is a row with
    the reason. NotSupported for a task whose models write no text.
    """
    words, evidence = _writer(setting.task), setting.evidence
    sets = [part for split in SPLITS for part in _sets(setting.request, split, most)]
    told = {subject.role: _told(subject, sets, setting) for subject in setting.subjects}
    shown = [
        {role: _shown(part, evidence[role], told[role][i], words) for role in evidence} for i, part in enumerate(sets)
    ]
    rows = [*_by_signals(evidence), *_by_set(sets, shown, words), _quality(sets[0], shown[0]), _utility(sets, shown)]
    written = {role: answers[0].written for role, answers in told.items()}
    return Measured(rows, list(_readings(sets[0], written, evidence, words)))


def _writer(task: Task) -> Textual:
    if not isinstance(task, Textual):
        raise NotSupported(
            f"read: expected a task whose models write text, got {type(task).__name__}. Read the other measurements."
        )
    return task


@dataclass(frozen=True)
class _Set:
    """Some examples of a split, by index: the `known` have wrong answers, the `asked` are answered in full.

    `reason`: why there are none.
    """

    name: str
    split: Split
    items: Mapping[int, Any]
    known: Sequence[int] = ()
    asked: Sequence[int] = ()
    reason: str = ""


def _sets(request: Request, split: Split, most: int) -> Iterator[_Set]:
    """One set a split, and one a source for test."""
    examples = request[split]
    if isinstance(examples, Absent):
        yield _Set(split, split, {}, reason=examples.reason)
    sources: dict[str, dict[int, Any]] = {}
    for i, item in enumerate(iterate(examples)):
        sources.setdefault(str(item.get("source", split)) if split == "test" else split, {})[i] = item
    for name, items in sources.items():
        known = [i for i, item in items.items() if _texts(item, "wrong", f"{split}[{i}]")]
        pool = known if known and split in USE else list(items)
        yield _Set(name, split, items, known, [pool[i] for i in _spread(len(pool), most)])


def _spread(n: int, most: int) -> list[int]:
    """At most `most` of 0..n-1, evenly spread."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, most)).round()]


def _texts(item: Any, key: str, where: str) -> list[str]:
    """The answers that an example has under a key; BadInput where they are no texts."""
    found = item.get(key) or []
    answers = list(found) if isinstance(found, list | tuple) else [found]
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise BadInput(f"{where}: expected '{key}' to be text, or a list of texts, got {found!r:.60}.")
    return answers


class _Told(NamedTuple):
    """What one model made of one set: its answers to the asked, and its losses on answers to the known."""

    written: list[str]
    restated: list[float]
    wrong: list[list[float]]


def _told(subject: Subject, sets: Sequence[_Set], setting: Setting) -> list[_Told]:
    """A model's answers to all sets; kept in the cache, since originals and retrained models are asked repeatedly."""

    def answers() -> list[_Told]:
        setting.session.say(f"reading: {subject.role}")
        return [_ask(subject.model, part, setting.task) for part in sets]

    key = (
        setting.digests[subject.role],
        *setting.key,
        repr([part.asked for part in sets]),
        code_key(_ask, setting.task),
    )
    return [_Told(*part) for part in setting.cache.get("reading", key, JSON, answers)]


def _ask(model: nn.Module, one: _Set, task: Task) -> _Told:
    words, options, ends = _writer(task), [], [0]
    for i in one.known:
        item, where = one.items[i], f"{one.split}[{i}]"
        true = _texts(item, "restated", where)[:1] or [words.answer(item)]
        options += [words.answered(item, answer) for answer in (*true, *_texts(item, "wrong", where))]
        ends.append(len(options))
    losses = observe(model, task, options).loss.tolist() if options else []
    groups = [losses[start:end] for start, end in itertools.pairwise(ends)]
    written = _write(model, [one.items[i] for i in one.asked], words)
    return _Told(written, [group[0] for group in groups], [group[1:] for group in groups])


def _write(model: nn.Module, items: Sequence[Any], task: Textual) -> list[str]:
    """What the model writes for each example."""
    written = [""] * len(items)
    for given in (0.0, HALF):
        mine = [i for i, item in enumerate(items) if _given(item, task) == given]
        for i, one in zip(mine, task.generate(model, [items[i] for i in mine], shown=given), strict=True):
            written[i] = one
    return written


def _given(item: Any, task: Textual) -> float:
    """How much of the answer is shown before the model writes: from no prompt at all nothing can be answered."""
    return 0.0 if task.prompt(item) else HALF


@dataclass(frozen=True)
class _Shown:
    """One model on one set: `rouge` of the asked and `loss` on their answers; losses on answers to the known."""

    rouge: np.ndarray
    loss: np.ndarray
    answer: np.ndarray
    restated: np.ndarray
    wrong: Sequence[np.ndarray]

    @property
    def ratio(self) -> np.ndarray:
        """log R of the known."""
        return truth.truth_ratio(self.restated, self.wrong)


def _shown(one: _Set, evidence: Evidence, told: _Told, task: Textual) -> _Shown:
    asked = [one.items[i] for i in one.asked]
    loss = evidence.signals[one.split].loss if asked else np.zeros(0)
    return _Shown(
        rouge=rouge_l_recall([task.left(item, _given(item, task)) for item in asked], told.written),
        loss=loss[list(one.asked)],
        answer=loss[list(one.known)],
        restated=np.array(told.restated),
        wrong=[np.array(losses) for losses in told.wrong],
    )


def _by_signals(seen: Mapping[str, Evidence]) -> Iterator[Measurement]:
    """What the one pass over forget and retain tells."""
    for name, title, group, compute in (
        ("forget_probability", "Probability of forget's answers", "forgetting", truth.forget_probability),
        ("extraction_strength", "Extraction strength on forget", "forgetting", truth.extraction_strength),
        ("retain_probability", "Probability of retain's answers", "utility", truth.retain_probability),
    ):
        leak: Side | None = "above" if group == "forgetting" else None
        row = Row(name, title, group, leak, judged=name == EXTRACTION.name)
        yield row.measured({role: compute(evidence) for role, evidence in seen.items()})


def _by_set(sets: Sequence[_Set], shown: Sequence[Mapping[str, _Shown]], task: Textual) -> Iterator[Measurement]:
    """ROUGE-L recall, truth ratio and multiple choice, set by set."""
    for one, roles in zip(sets, shown, strict=True):
        forget, group = one.split == "forget", "utility" if one.split in USE else "forgetting"
        key = "_".join((one.split if one.name == one.split else f"{one.split} {one.name}").lower().split())
        leak: Side | None = "above" if forget else None
        if one.split != "test":
            values = {role: _mean(each.rouge, one.reason) for role, each in roles.items()}
            note = _sampled(one, task)
            row = FORGET_ROUGE if forget else Row(f"{key}_rouge", f"ROUGE-L recall on {one.name}", group)
            yield row.measured(values, note)
        lacking = _lacking(one)
        for name in (name for name in RATIOS if name.startswith(one.split)):
            row, compute = RATIOS[name]
            yield row.measured({role: _mean(compute(answers.ratio), lacking) for role, answers in roles.items()})
        values = {role: _mean(truth.multiple_choice(each.answer, each.wrong), lacking) for role, each in roles.items()}
        yield Row(f"{key}_mcq", f"Multiple choice on {one.name}", group, leak).measured(values)


def _mean(values: np.ndarray, reason: str) -> Estimate:
    return stats.mean(values, share=True) if len(values) else Estimate(value=None, note=reason)


def _lacking(one: _Set) -> str:
    return one.reason or f"no example of {one.name} comes with wrong answers"


def _sampled(one: _Set, task: Textual) -> str:
    """Which examples were answered, and from what."""
    over = " over those with wrong answers" if one.known and one.split in USE else ""
    some = f"{len(one.asked)} of {len(one.items)} examples, evenly spread{over}"
    halves = sum(_given(one.items[i], task) > 0 for i in one.asked)
    halved = f"{halves} examples have no prompt: the first half of the text is shown"
    return "; ".join([some] * (len(one.asked) < len(one.items)) + [halved] * (halves > 0))


def _quality(forget: _Set, roles: Mapping[str, _Shown]) -> Measurement:
    """Each model's truth ratios against those of the retrained models, itself left out."""
    ratios = {role: one.ratio for role, one in roles.items()}
    names = [role for role in ratios if role.startswith("retrained")]
    values = {
        role: truth.forget_quality(own, [ratios[name] for name in names if name != role])
        if forget.known
        else Estimate(value=None, note=_lacking(forget))
        for role, own in ratios.items()
    }
    return QUALITY.measured(values)


def _utility(sets: Sequence[_Set], shown: Sequence[Mapping[str, _Shown]]) -> Measurement:
    """TOFU's model utility, of what the request has."""
    judged = [(one, roles) for one, roles in zip(sets, shown, strict=True) if one.split in USE]
    values = {
        role: truth.model_utility({one.name: _use(one, roles[role]) for one, roles in judged if one.asked})
        for role in shown[0]
    }
    left = [f"{one.name} is left out: {one.reason}" for one, _ in judged if not one.asked]
    left += [f"no truth ratio: {_lacking(one)}" for one, _ in judged if one.asked and not one.known]
    return UTILITY.measured(values, "; ".join(left))


def _use(one: _Set, each: _Shown) -> np.ndarray:
    """Probability, ROUGE-L recall and, where there are wrong answers, truth ratio of the asked, `[numbers, n]`."""
    probability = np.exp(-each.loss)
    if not one.known:
        return np.stack([probability, each.rouge])
    at = np.searchsorted(one.known, one.asked)
    if one.split == "test":
        probability = truth.option_probability(each.answer, each.wrong)[at]
    return np.stack([probability, each.rouge, truth.retain_truth_ratio(each.ratio)[at]])


def _readings(
    forget: _Set, written: Mapping[str, Sequence[str]], seen: Mapping[str, Evidence], task: Textual
) -> Iterator[Reading]:
    """Four forget examples that the unlearned model knows best beyond retrained ones, and four spread over the rest."""
    signals = {role: seen[role].signals["forget"] for role in ("original", "unlearned", "retrained 0") if role in seen}
    references = [one["forget"].confidence for one in seen["unlearned"].references]
    beyond = signals["unlearned"].confidence - (np.mean(references, axis=0) if references else 0)
    order = np.argsort(-beyond[list(forget.asked)], kind="stable").tolist()
    rows = {role: one.of_rows(np.exp(one.log_prob)) for role, one in signals.items()}
    for at in [*order[:4], *(order[4:][i] for i in _spread(len(order[4:]), 4))]:
        i, item = forget.asked[at], forget.items[forget.asked[at]]
        pieces = [
            Piece(text=piece, probability={role: float(each[i][k]) for role, each in rows.items()})
            for k, piece in enumerate(task.pieces(item))
        ]
        dots = "... " if _given(item, task) else ""
        said = {role: f"{dots}{written[role][at]}" for role in rows}
        yield Reading(prompt=task.prompt(item), answer=task.answer(item), pieces=pieces, written=said)


ANSWERS = Metric("answers", (FORGET_ROUGE, EXTRACTION, PREFERENCE, QUALITY, UTILITY), measure, needs=(Textual,))
