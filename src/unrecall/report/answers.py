"""The screen for the person who signs: what was asked, what was done, and what the record answers, in plain words.

Three questions, and the two that a regulator asks of a model. Reference: European Data Protection Board, "Opinion
28/2024 on certain data protection aspects related to the processing of personal data in the context of AI models",
2024: a model is anonymous only if the likelihood that personal data can be extracted from it, and that they are
obtained by queries, is insignificant.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from unrecall.record.never_trained import ALPHA, MARGIN
from unrecall.record.never_trained_lines import SHARES_LEFT, after, strength
from unrecall.record.schema import AttackTest, Measurement, NeverTrained, Record, Tuning
from unrecall.record.verdict import ENOUGH, Reason, family, reference_values
from unrecall.report import harm, matrices, scales
from unrecall.report.harm import INCONCLUSIVE, NOT_JUDGED, Reply
from unrecall.report.never_trained import GRADES, in_points
from unrecall.report.numbers import finite, minus, number, p, percent, percent_of
from unrecall.report.scales import says_nothing
from unrecall.report.sentences import points, references

YES, NO, NOTHING_FOUND = "Yes", "No", "Nothing found"
AS_FAR: Final = "No, as far as can be told"
"""In place of no, where an attack can't tell even the original from retrained models."""
NO_TRACE: Final = "Can’t be told"
"""Neither yes nor no: nothing to hold the model against; too much could go unseen; no trace in the original either."""
LESS: Final = "Less than retrained models have"
"""In place of damage, where retrained models are better and the original was not."""
SOME: Final = "Some accuracy"
"""In place of damage, where a loss isn't chance, and isn't known to reach what counts as damage."""
KNOWLEDGE: Final = ("forget_accuracy", "forget_rouge", "extraction_strength", "loss_left", "class_margin")
"""The measurements that the answer to the first question quotes, where it rests on nothing else."""
WRITTEN: Final = ("forget_rouge", "extraction_strength")
"""The measurements of what a language model writes when it is asked."""
RECOGNITION: Final = ("loss_left", "loss_auc", "min_k_plus_plus_auc")
USEFUL: Final = ("retain_accuracy", "test_accuracy", "model_utility")
ASKING: Final = ("forgetting", "text", "privacy")
"""The groups of measurements that need no more than the model's answers; so does `PERTURBED`."""
PERTURBED: Final = "residual_knowledge"
"""The attack that shows perturbed pictures, and only asks too."""
AS_IT_IS: Final = "as_it_is"
"""The one test of the fixed suite that needs no weights: it only asks."""
KINDS: Final = {"samples": "single records", "class": "a whole class", "concept": "a concept", "backdoor": "a backdoor"}
WHY: Final = "Inconclusive: "
"""What a judged row's reason begins with."""
RETRAIN: Final = r"retrain(:.*)?"
"""The line of the one exact method."""
ANEW: Final = "It was trained anew on what stays alone: the forgotten had no part in that."
RECOGNISED: Final = "Recognised"
"""In place of yes where records can be told from others, and none of their content was seen to come out."""
TOLD: Final = "That tells who was in, and brings no content out."
MOST: Final = 3
"""How many figures an answer quotes."""


class Answer(NamedTuple):
    """A question, the answer in a word or a few, the sentence with its numbers, and the colour it has."""

    question: str
    word: str
    text: str
    tone: str


def facts(record: Record) -> dict[str, str]:
    """What stands above the answers, by its name: what was asked, of which model, what was done, and held against."""
    return {
        "Asked": request(record),
        "Model": audited(record),
        "Done": unlearning(record),
        "Held against": compared(record),
    }


def request(record: Record) -> str:
    """What was to be forgotten."""
    forget, retain = record.sizes.get("forget"), record.sizes.get("retain")
    kind = KINDS[record.kind]
    what = kind if forget is None else f"{forget:,} {'record' if forget == 1 else 'records'}"
    whole = f" ({kind})" if forget is not None and record.kind != "samples" else ""
    drawn = [f"{count:,} of {split}" for split, count in record.observed.items()]
    sample = f" Models were looked at on {' and '.join(drawn)}, drawn at random." if drawn else ""
    sample += f" {harm.WHOSE}" if harm.reports(record) else ""
    return f"Forget {what}{whole}" + ("." if retain is None else f"; {retain:,} stay.") + sample


def unlearning(record: Record) -> str:
    """How the model was made, and what that took."""
    own, whole = record.costs.get("unlearned"), record.costs.get("retrained")
    tuned = f", its strength {_tuned(record.tuning)}" if record.tuning else ""
    took = "" if own is None or own.seconds is None else f"; {number(own.seconds)} s"
    part = "" if own is None or whole is None else percent_of(own.passes, whole.passes)
    beside = "" if part in ("", "–") else f", {part} of the examples that retraining passes"
    line = f" ({record.method})" if record.parameters else ""
    exact = f" {ANEW}" if own is not None and re.fullmatch(RETRAIN, record.method) else ""
    return f"{record.method_title}{line}{tuned}, seed {record.seed}{took}{beside}.{exact}"


def _tuned(tuning: Tuning) -> str:
    """That a strength was tuned, how long that took, and whether it came to what it was for."""
    took = "" if tuning.seconds is None else f" in {number(tuning.seconds)} s"
    return f"tuned{took}" + ("" if tuning.met else " (goal not met)")


def audited(record: Record) -> str:
    """Which model, of which scenario, and when."""
    digest = record.provenance.weights.get("unlearned", "")
    model = f"weights {digest[:12]} (sha256 of its tensors); " if digest else ""
    day = f"; audited on {record.provenance.created[:10]}" if record.provenance.created else ""
    return f"{model}{record.scenario}{day}."


def asked(records: Sequence[Record]) -> list[str]:
    """What the cases are, and what was asked for, as their scenarios say it: each sentence once."""
    sentences = (record.scenario_summary.rstrip(". ") for record in records)
    return [f"{sentence}." for sentence in dict.fromkeys(sentences) if sentence]


def compared(record: Record) -> str:
    """What the model was held against."""
    tested, count = record.never_trained, references(record)
    if record.verdict.basis == "retrained" and record.verdict.judged:
        return f"{count} models that were retrained without the forgotten."
    if tested is not None and tested.attacks:
        units = "persons’ records" if tested.unit == "group" else "records"
        grade = f"grade {tested.grade}: {GRADES[tested.grade].split(':')[0]}"
        return f"{tested.holdout:,} {units} that were never trained on ({grade})."
    return "Nothing: no retrained models, and no records that were never trained on that could serve."


def unchanged(record: Record) -> bool:
    """Whether the unlearned model's weights are the original's."""
    return record.verdict.label == "unchanged" or record.provenance.unchanged


def title(record: Record) -> str:
    """What the page is about."""
    question = "can a request harm others" if harm.alone(record) else "did it forget"
    return f"{record.method_title} on {record.scenario}: {question}?"


def harmful(record: Record) -> list[Answer]:
    """Whether the requests of attacks that make some of their own harm others, an answer an attack."""
    replies = [(report, *harm.reply(record, report)) for report in harm.reports(record)]
    return [_answer(f"Can a request harm others? {report.title}", word, text) for report, word, text in replies]


def answers(record: Record) -> list[Answer]:
    """The three questions: what it knows, whether anyone can tell who was in, and what else was damaged."""
    damaged = "What else did the scenario’s own request damage?" if harm.reports(record) else "What else was damaged?"
    questions = ("Does it still know?", "Can anyone tell they were in?", damaged)
    if unchanged(record):
        knowledge, recognition = _unchanged(record)
        damage = NOTHING_FOUND, "The weights are the original’s."
    elif record.verdict.basis == "never trained" and record.never_trained is not None:
        knowledge, recognition = _beside_never_trained(record, record.never_trained)
        damage = _damage(record, record.never_trained)
    else:
        knowledge, recognition = _beside_retrained(record)
        damage = _use(record)
    knowledge = knowledge[0], knowledge[1] + _verbatim(record)
    return [
        _answer(question, word, text)
        for question, (word, text) in zip(questions, (knowledge, recognition, damage), strict=True)
    ]


def _answer(question: str, word: str, text: str) -> Answer:
    good = word in (NOTHING_FOUND, NO) or word.startswith(f"{NO} ")
    unsure = word in (NOT_JUDGED, INCONCLUSIVE, NO_TRACE, LESS, AS_FAR) or word.startswith(SOME)
    return Answer(question, word, text, "good" if good else "open" if unsure else "bad")


def _unchanged(record: Record) -> tuple[Reply, Reply]:
    tested = record.never_trained
    before = tested.original if tested is not None else None
    word, _ = _word([m for m in _judged(record) if family(m) == "can be told"])
    if before is not None:
        word = YES if word == YES or before <= ALPHA else NO_TRACE
    recognised = INCONCLUSIVE if word in (NO, AS_FAR) else word
    recognition = _figures(record, RECOGNITION) or "how well it can be told was not measured"
    knowledge = _figures(record, KNOWLEDGE) or "what it knows was not measured"
    return (
        (YES, f"Nothing was removed: the weights are the original’s. {_capital(knowledge)}."),
        (recognised, f"As well or as badly as before: the weights are the original’s. {_capital(recognition)}."),
    )


UNSURE: Final = {
    "damaged": (INCONCLUSIVE, "The model knows so much less that it says little."),
    "can't be told": (NO_TRACE, "The original shows no trace of them that these attacks see."),
    "inconclusive": (INCONCLUSIVE, "Nothing was found, and too much could go unseen: see the verdict."),
    "not judged": (NOT_JUDGED, "See the verdict."),
}
"""What a label says to the first two questions where that is neither yes nor no, and why."""


def _beside_never_trained(record: Record, tested: NeverTrained) -> tuple[Reply, Reply]:
    """Whether it knows, and whether anyone can tell, by the test that forget looks like records never trained on."""
    knowledge, recognition = _figures(record, KNOWLEDGE), ""
    if tested.attacks:
        strongest, plain = min(tested.attacks, key=strength), tested.attacks[0]
        recognition = f"{_capital(after(strongest))}, {_significance(strongest)}. "
        if sum(test.p is not None for test in tested.attacks) > 1:
            recognition += f"Over all attacks p = {p(tested.leak)}. "
        recognition += _better_known(tested, plain)
        knowledge = f"{_left(strongest)}{_capital(knowledge)}."
    if tested.label == "leaks":
        return (YES, knowledge), (YES, recognition)
    if tested.label in SHARES_LEFT:
        share_left = f"Of what the original remembers, by these attacks. {knowledge}"
        return (tested.label.capitalize(), share_left), (NO, f"Not by these attacks. {recognition}")
    if tested.label == "stands out":
        worse = f"Recognised worse than records never trained on (p = {p(tested.strange)})"
        return (INCONCLUSIVE, f"It may be hidden. {knowledge}"), (YES, f"{worse}: whoever looks finds them by that.")
    word, reason = UNSURE.get(tested.label, UNSURE["not judged"])
    return (word, f"{reason} {knowledge}"), (word, f"{reason} {recognition}".strip())


def _left(test: AttackTest) -> str:
    """The share of memory that is left, in a sentence; empty where it can't be given."""
    if test.rho is None or test.rho_low is None or test.rho_high is None:
        return ""
    most = percent(max(test.rho_high, 0.0))
    if test.rho <= 0:
        return f"Of what the original shows of them none is left that this test can see (95 %: up to {most}). "
    bounds = f"{percent(max(test.rho_low, 0.0))} to {most}"
    return f"Of what the original shows of them {percent(test.rho)} is left (95 %: {bounds}). "


def _better_known(tested: NeverTrained, plain: AttackTest) -> str:
    """How well one attack tells the forgotten from the others; in words where they are one person's, or one record."""
    if tested.forget > 1:
        return f"AUC {after(plain)} {number(plain.auc)}, of the original {number(plain.auc_original)}."
    others = "persons" if tested.unit == "group" else "records"
    now, before = (f"{auc * tested.holdout:.3g}" for auc in (plain.auc, plain.auc_original))
    beside = f"those of {now} of the {tested.holdout} {others} never trained on; the original did so for {before}."
    return f"{_capital(after(plain))} the model knows the forgotten better than {beside}"


def _collapse(record: Record) -> str:
    """The doubt that the model was ruined rather than made to forget, where there is one."""
    return next((doubt.message for doubt in record.doubts if doubt.id == "collapse"), "")


def _damage(record: Record, tested: NeverTrained) -> Reply:
    """What the model gets less right than the original did."""
    figures = _figures(record, USEFUL)
    if not tested.damage and (ruined := _collapse(record)):
        return "Accuracy on retain", ruined
    if not tested.damage:
        return NOT_JUDGED, f"No rule judges it here. {_capital(figures)}." if figures else "Nothing was measured."
    changes = "; ".join(
        f"{d.split} {in_points(d.difference.value)}"
        + (
            f" ({in_points(d.difference.low)} to {in_points(d.difference.high)})"
            if d.difference.low is not None
            else ""
        )
        for d in tested.damage
    )
    by_recall = record.measurement("recall_10") and [d.split for d in tested.damage] == ["test"]
    measure = "recall at 10" if by_recall else "accuracy"  # of recommenders too, in records of all splits
    text = f"Change of {measure} since the original, in points: {changes}."
    damaged = [d.split for d in tested.damage if d.damaged]
    if damaged:
        return f"{_capital(measure)} on {_listed(damaged)}", text
    word, loss = _small(tested, _capital(measure))
    return word, f"{loss} {text}"


def _small(tested: NeverTrained, measure: str) -> Reply:
    """What was lost where no split is damaged: what chance doesn't explain, and how much more there could be."""
    points = f"{100 * MARGIN:.0f} points"
    unsure = [d.split for d in tested.damage if d.difference.low is None or d.difference.low < -MARGIN]
    fell = [d.split for d in tested.damage if d.difference.high is not None and d.difference.high < 0]
    more = f"A loss of {points} on {_listed(unsure)} can’t be excluded." if unsure else ""
    if small := [split for split in fell if split not in unsure]:
        more = f"{measure} on {_listed(small)} fell, by less than {points}. {more}".rstrip()
    if larger := [split for split in fell if split in unsure]:
        more = f"{measure} on {_listed(larger)} fell, and not by chance. {more}"
    if fell:
        return SOME if unsure else f"{SOME}, less than {points}", more
    return (INCONCLUSIVE, more) if unsure else (NOTHING_FOUND, f"A loss of {points} is ruled out.")


def _beside_retrained(record: Record) -> tuple[Reply, Reply]:
    rows = _judged(record)
    knowledge = [m for m in rows if family(m) == "still known" or m.name == "loss_left"]
    recognition = [m for m in rows if family(m) == "can be told"]
    low = [m for m in recognition if m.verdict == "over-forgets"]
    if low and not any(m.verdict == "leaks" for m in recognition):
        text = "Less than models that never saw them show: whoever looks finds them by that."
        return _of_rows(record, knowledge, KNOWLEDGE), (YES, f"{text} {'; '.join(map(_figure, low[:MOST]))}.")
    return _of_rows(record, knowledge, KNOWLEDGE), _of_rows(record, recognition, RECOGNITION)


def _of_rows(record: Record, rows: Sequence[Measurement], names: tuple[str, ...]) -> Reply:
    """What judged rows say together, with the figures of those that decide it."""
    word, deciding = _word(rows)
    first_named = [m for m in [record.measurement(names[0])] if m is not None and finite(m.unlearned.value) is not None]
    quoted = [*deciding[: MOST - 1], *(m for m in first_named if m not in deciding[: MOST - 1])]
    figures = "; ".join(map(_figure, quoted))
    figures = f" {_capital(figures)}." if figures else ""
    if word == YES:
        return word, f"More than models that never saw them show.{figures}"
    if word in (NO, AS_FAR):
        others = "It shows" if word == NO else f"{_untold(rows)} The other rows show"
        no_more = f"{others} no more than models that never saw them do; half or more of what the original shows"
        return word, f"{no_more} is ruled out.{figures}{_undecided(rows)}"
    reasons = [m.note.rpartition(WHY)[2].rstrip(".") for m in deciding if WHY in m.note]
    why = "; ".join(dict.fromkeys(reasons))
    return word, f"{_capital(why) or 'Nothing was judged that would tell'}.{figures}"


def _word(rows: Sequence[Measurement]) -> tuple[str, list[Measurement]]:
    """Yes where a row leaks; no where each group of rows that shows anything has one that doesn't; and those rows.

    No as far as can be told, where a row beside those can't tell even the original. Else why not: no retrained models
    to hold rows against, nothing to see on any, or all too unsure.
    """
    if leaks := [m for m in rows if m.verdict == "leaks"]:
        return YES, leaks
    decided = [m for m in rows if m.verdict in ("like retrained", "over-forgets")]
    open_rows = [m for m in rows if m not in decided and Reason.NOTHING_TO_SEE not in m.note]
    blocking = [m for m in open_rows if m.group not in {d.group for d in decided}]
    if decided and not blocking:
        return AS_FAR if any(map(says_nothing, rows)) else NO, decided
    unsure = blocking or [m for m in rows if m not in decided]
    if not any(len(reference_values(m)) >= 2 for m in unsure):
        return NOT_JUDGED, unsure
    return NO_TRACE if all(Reason.NOTHING_TO_SEE in m.note for m in unsure) else INCONCLUSIVE, unsure


def _undecided(rows: Sequence[Measurement]) -> str:
    """Names the rows that can't tell, beside a no that others give; those of `_untold` have a sentence of their own."""
    unsure = [
        m for m in rows if m.verdict == "inconclusive" and Reason.NOTHING_TO_SEE not in m.note and not says_nothing(m)
    ]
    return f" Can’t tell: {_listed([m.title for m in unsure[:MOST]])}." if unsure else ""


def _untold(rows: Sequence[Measurement]) -> str:
    """The rows that can't tell even the original from retrained models, with what another of these could show."""
    silent = [m for m in rows if says_nothing(m)]
    count = max((len(reference_values(m)) for m in silent), default=0)
    figures = "; ".join(_figure(m, another=True) for m in silent[:MOST])
    return f"{count} retrained models differ too much to tell: {figures}." if silent else ""


def _use(record: Record) -> Reply:
    """What it is still good for, beside retrained models."""
    rows = [m for m in _judged(record) if family(m) == "still useful"]
    less = [m for m in rows if m.verdict == "over-forgets"]
    lost = [m for m in less if not _kept(m)]
    figures = "; ".join(_figure(m) for m in (lost or less or rows)[:MOST]) or _figures(record, USEFUL)
    paid = next((matrices.paid(m) for m in record.matrices if matrices.roles(m)), "")
    text = f"{_capital(figures)}. {paid}".strip() if figures else paid or "Nothing was measured."
    if lost:
        return _listed([m.title for m in lost]), text
    if ruined := _collapse(record):
        return "Accuracy on retain", f"{ruined} {text}"
    if less:
        return LESS, f"No less than the original has. {text}"
    if not any(len(reference_values(m)) >= 2 for m in rows):
        return NOT_JUDGED, text
    unsure = [m for m in rows if m.verdict != "like retrained"]
    if fell := [m for m in unsure if _fell(m)]:
        return SOME, f"{_untold_loss(fell)} {text}"
    return (INCONCLUSIVE, f"A loss worth naming could go unseen. {text}") if unsure else (NOTHING_FOUND, text)


def _fell(m: Measurement) -> bool:
    """Whether the unlearned model has less than the original, by more than chance explains, and than retrained ones."""
    high, before = finite(m.unlearned.high), finite(m.original.low)
    value, reference = finite(m.unlearned.value), finite(m.reference)
    if high is None or before is None or value is None or reference is None:
        return False
    return high < before and value < reference


def _untold_loss(rows: Sequence[Measurement]) -> str:
    """By how much rows fell since the original, where retrained models can't tell whether that is usual."""
    falls = [(m.title, points(m, -(minus(m.unlearned.value, m.original.value) or 0.0))) for m in rows[:MOST]]
    count = min(len(reference_values(m)) for m in rows)
    many = "are too few" if count < ENOUGH else "differ too much among themselves"
    fell = _listed([f"{title} by {fall:.1f} points" for title, fall in falls])
    usual = f"{count} retrained models {many} to tell whether that is usual"
    return f"Fell since the original, and not by chance: {fell}; {usual}."


def _kept(m: Measurement) -> bool:
    """Whether the unlearned model has no less than the original."""
    change = minus(m.unlearned.value, m.original.value)
    return change is not None and change >= 0


def _verbatim(record: Record) -> str:
    """Of the texts that were read, how many the unlearned model writes word for word, and the original."""
    texts = [reading.verbatim for reading in record.readings if "unlearned" in reading.verbatim]
    if not texts:
        return ""
    own, before = (sum(written.get(role, False) for written in texts) for role in ("unlearned", "original"))
    return f" Of {len(texts)} texts of forget it writes {own} word for word, the original {before}."


def regulator(record: Record) -> list[Answer]:
    """Both questions of the EDPB; whoever holds the model can also query it."""
    return [
        _answer("Can they be extracted, by whoever holds the model?", *_by(record, asking=False)),
        _answer("Can they be obtained by queries?", *_by(record, asking=True)),
    ]


def _by(record: Record, *, asking: bool) -> Reply:
    """The answer by judged rows, or by the tests beside records never trained on; by all, or those that only ask."""
    shown = [m for m in record.measurements if family(m) != "still useful" and finite(m.unlearned.value) is not None]
    rows = [m for m in shown if m.group in ASKING or m.name.startswith(PERTURBED) or not asking]
    attacks = record.never_trained.attacks if record.never_trained and record.verdict.basis == "never trained" else []
    tests = [test for test in attacks if test.name == AS_IT_IS or not asking]
    if tests and record.never_trained is not None:
        strongest, tested = min(tests, key=strength), record.never_trained
        if strongest.p is None:
            figures = "; ".join(_figure(m) for m in [m for m in rows if m.name in KNOWLEDGE][:MOST])
            plainly = f" What it gives when it is asked: {figures}." if figures else ""
            return UNSURE["not judged"][0], f"The verdict rests on what comes back, not on the model as it is.{plainly}"
        recognised = strongest.p <= tested.level
        unsure, _ = UNSURE.get(tested.label, UNSURE["inconclusive"])
        word = RECOGNISED if recognised else tested.label.capitalize() if tested.label in SHARES_LEFT else unsure
        outcome = "they are recognised" if recognised else "they are not shown to be recognised"
        word, content = _content(record, word) if recognised else (word, "")
        return word, f"{_capital(after(strongest))}, {outcome} ({_significance(strongest)}).{content}"
    word, deciding = _word([m for m in rows if m.verdict != "not judged"])
    plain = [m for m in rows if m.name in KNOWLEDGE]
    quoted = "; ".join(map(_figure, (deciding or plain)[:MOST]))
    silent = _undecided(rows) if word in (NO, AS_FAR) else ""
    silent += f" {_untold(rows)}" if word == AS_FAR else ""
    if word == YES and all(family(m) == "can be told" for m in deciding):
        word, silent = RECOGNISED, f" {TOLD}"
    return word, f"{_capital(quoted)}.{silent}" if quoted else "No attack of this kind gave a value."


def unsaid() -> str:
    """What none of the answers says."""
    return (
        "Attacks that were not run may find what these did not; other records than these, and what other records share "
        "with them, were not asked about; copies of the original, backups and logs remember what they did. It is a "
        "measurement, not a certificate, and whether it satisfies a request is a question of law."
    )


def _content(record: Record, word: str) -> Reply:
    """The word for records that are recognised, and what comes out of them: of texts what the model writes."""
    written = _figures(record, WRITTEN)
    if not written:
        return word, f" {TOLD}"
    whole = any(reading.verbatim.get("unlearned") for reading in record.readings)
    return YES if whole else word, f" When it is asked: {written}.{_verbatim(record)}"


def _judged(record: Record) -> list[Measurement]:
    return [m for m in record.measurements if m.judged and m.verdict != "not judged"]


def _significance(test: AttackTest) -> str:
    """How clearly one attack tells the forgotten: its p, or its z where it is shown and not counted."""
    return f"z = {test.z:.1f}" if test.p is None else f"p = {p(test.p)}"


def _figures(record: Record, names: Sequence[str]) -> str:
    """The measurements of these names that have a value, in words."""
    rows = [m for m in map(record.measurement, names) if m is not None and finite(m.unlearned.value) is not None]
    holdout = record.measurement("holdout_accuracy")
    return "; ".join(_figure(m, holdout if m.name == "forget_accuracy" else None) for m in rows[:MOST])


def _figure(m: Measurement, unseen: Measurement | None = None, *, another: bool = False) -> str:
    """A measurement of the unlearned model beside the same of the others, and beside its own on `unseen` examples.

    `another`: also where one more retrained model would fall.
    """
    bounds = scales.bounds(m) if another else None
    beside = [f"original {number(m.original.value)}"] if finite(m.original.value) is not None else []
    beside += [f"retrained {number(m.reference)}"] if finite(m.reference) is not None else []
    beside += [f"another one {number(bounds[0])} to {number(bounds[1])}"] if bounds else []
    if unseen is not None and finite(unseen.unlearned.value) is not None:
        beside += [f"on holdout {number(unseen.unlearned.value)}"]
    return f"{m.title} {number(m.unlearned.value)}" + (f" ({', '.join(beside)})" if beside else "")


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
