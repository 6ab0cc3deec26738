"""Metrics of models that write text: by hand on three rows, against SciPy, and asked of a small model."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.worlds import CPU, World, facts, network, small_llama
from unrecall.data.examples import Absent, iterate
from unrecall.data.request import Request
from unrecall.data.signals import Signals
from unrecall.errors import BadInput, MissingDependency, NotSupported
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.methods.grad_diff import GradDiff
from unrecall.metrics import METRICS
from unrecall.metrics import answers as reading
from unrecall.metrics import lm_evaluation as harness
from unrecall.metrics import truth as text
from unrecall.metrics.base import Measured
from unrecall.record import stats as estimates
from unrecall.record.schema import Measurement
from unrecall.record.verdict import judge
from unrecall.tasks import Classification
from unrecall.tasks.protocols import Textual
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

REQUEST = Request([0], [1], [2], [3])


def signals(examples: Sequence[Sequence[tuple[float, bool]]]) -> Signals:
    """Rows given as the target's probability, and whether it was predicted."""
    rows = [row for example in examples for row in example]
    loss = np.array([-np.mean([np.log(p) for p, _ in example]) for example in examples])
    zero = np.zeros(len(rows))
    return Signals(
        loss=loss,
        confidence=np.exp(-loss),
        correct=np.array([np.mean([right for _, right in example]) for example in examples]),
        features=np.zeros((len(examples), 1)),
        prediction=np.array([int(right) for _, right in rows]),
        target=np.ones(len(rows), dtype=int),
        example=np.repeat(np.arange(len(examples)), [len(example) for example in examples]),
        log_prob=np.log([p for p, _ in rows]),
        expected=zero,
        deviation=zero,
    )


def shown(examples: Sequence[Sequence[tuple[float, bool]]]) -> Evidence:
    one = signals(examples)
    return Evidence(REQUEST, {"forget": one, "retain": one}, (), {})


def test_probability_is_normalised_by_length() -> None:
    seen = shown([[(0.5, True), (0.25, True), (0.125, True)], [(0.09, True)]])
    assert text.forget_probability(seen).value == pytest.approx((0.25 + 0.09) / 2)  # (1/64)^(1/3) = 1/4
    assert text.retain_probability(seen) == text.forget_probability(seen)


@pytest.mark.parametrize(
    ("right", "strength"), [("111", 1), ("011", 2 / 3), ("101", 1 / 3), ("001", 1 / 3), ("110", 0), ("000", 0)]
)
def test_extraction_strength_counts_what_need_not_be_shown(right: str, strength: float) -> None:
    seen = shown([[(0.5, mark == "1") for mark in right]])
    assert text.extraction_strength(seen).value == pytest.approx(strength)


def test_exact_memorisation_is_the_accuracy_on_rows_that_there_is_already() -> None:
    assert shown([[(0.5, True), (0.5, False), (0.5, True)]]).signals["forget"].correct.tolist() == [2 / 3]


def test_options_share_one_probability_and_a_tie_is_a_miss() -> None:
    answer = -np.log([0.5, 0.2, 0.3])
    wrong = [-np.log([0.25, 0.25]), -np.log([0.2]), -np.log([0.1, 0.6, 0.5])]
    assert text.option_probability(answer, wrong) == pytest.approx([0.5, 0.5, 0.2])
    assert text.multiple_choice(answer, wrong).tolist() == [1, 0, 0]


def test_truth_ratio_is_the_mean_over_wrong_answers_by_the_restated_one() -> None:
    restated, wrong = -np.log([0.5, 0.1]), [-np.log([0.25, 0.125]), -np.log([0.2])]
    ratio = text.truth_ratio(restated, wrong)
    assert np.exp(ratio) == pytest.approx([0.375, 2])
    assert text.truth_preference(ratio) == pytest.approx([1 / 1.375, 1 / 3])
    assert text.forget_truth_ratio(ratio) == pytest.approx([0.375, 0.5])
    assert text.retain_truth_ratio(ratio) == pytest.approx([0.625, 0])


def test_truth_ratio_survives_models_that_have_diverged() -> None:
    ratio = text.truth_ratio(np.array([5000.0, 1.0]), [np.array([2.0]), np.array([5000.0, 4000.0])])
    assert text.truth_preference(ratio) == pytest.approx([0, 1])
    assert text.forget_truth_ratio(ratio).tolist() == [0, 0]
    assert text.retain_truth_ratio(ratio).tolist() == [0, 1]


def test_only_the_preference_tells_one_that_knows_from_one_that_prefers_falsehood() -> None:
    """log R: references about 0.4; one model knows the truth (-2), another has been driven away from it (+2)."""

    def labels(log_ratio: float) -> list[str]:
        rows = []
        for row, compute in reading.RATIOS["forget"].items():
            roles = {"original": -3.0, "unlearned": log_ratio} | {f"retrained {i}": 0.38 + 0.01 * i for i in range(5)}
            values = {role: estimates.mean(compute(np.full(50, ratio))) for role, ratio in roles.items()}
            rows.append(row.measured(values))
        return [row.verdict for row in judge(rows)[0]]

    assert labels(-2.0) == ["leaks", "not judged"]
    assert labels(0.4) == ["like retrained", "not judged"]
    assert labels(2.0) == ["over-forgets", "not judged"]


def test_forget_quality_is_the_median_ks_p_value() -> None:
    own, apart = np.array([0.1, 0.2, 0.3]), np.array([1.1, 1.2, 1.3])
    assert text.forget_quality(own, [apart]).value == pytest.approx(2 / 20)  # 2 of the C(6, 3) orders are as extreme
    assert text.forget_quality(own, [apart, own, own]).value == pytest.approx(1)
    first, second = np.random.default_rng(0).normal(size=(2, 40)) + np.array([[0], [0.5]])
    assert text.forget_quality(first, [second]).value == pytest.approx(stats.ks_2samp(first, second).pvalue)
    assert text.forget_quality(np.exp(first), [np.exp(second)]) == text.forget_quality(first, [second])
    assert (
        text.forget_quality(first, [second]).note == f"log10 p = {np.log10(stats.ks_2samp(first, second).pvalue):.1f}"
    )


def test_forget_quality_needs_another_retrained_model() -> None:
    alone = text.forget_quality(np.zeros(3), [])
    assert alone.value is None
    assert "retrained" in alone.note


def test_model_utility_is_the_harmonic_mean_of_nine_numbers() -> None:
    sets = {name: np.random.default_rng(i).uniform(0.1, 1, (3, 7 + i)) for i, name in enumerate("abc")}
    found = text.model_utility(sets)
    assert found.value == pytest.approx(stats.hmean([m for values in sets.values() for m in values.mean(1)]))
    assert found.n == 7 + 8 + 9
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert found.note.count("truth ratio") == 3


def test_model_utility_of_one_number_has_the_interval_of_a_mean() -> None:
    values = np.array([[0.2, 0.4, 0.9, 0.5]])
    found, mean = text.model_utility({"retain": values}), estimates.mean(values[0], share=True)
    assert (found.value, found.low, found.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_model_utility_keeps_the_numbers_of_one_example_together() -> None:
    """Two numbers that mirror each other all but cancel to first order; as strangers they would not."""
    x = np.tile([0.4, 0.6, 0.45, 0.55], 5)
    found = text.model_utility({"retain": np.stack([x, 1 - x + 0.01 * (x > 0.5)])})
    apart = text.model_utility({"retain": np.stack([x, x])})
    assert found.low is not None and found.high is not None and apart.low is not None and apart.high is not None
    assert 0 < found.high - found.low < (apart.high - apart.low) / 5
    alike = text.model_utility({"retain": np.stack([x, 1 - x])})
    assert (alike.low, alike.high) == (None, None)
    assert alike.note.endswith(estimates.ALIKE)


@pytest.mark.parametrize(
    "sets",
    [((10, 2, 2), (10, 2, 2)), ((20, 0.2, 2), (20, 0.2, 2)), ((10, 0.2, 3), (500, 5, 5)), ((20, 20, 0.5), (50, 2, 2))],
)
def test_the_interval_of_model_utility_covers(sets: tuple[tuple[int, float, float], ...]) -> None:
    """Of two numbers in each set: examples, and the Beta distribution that both are drawn from."""
    rng, runs = np.random.default_rng(0), 300
    truth = stats.hmean([a / (a + b) for _, a, b in sets])

    def covers() -> bool:
        found = text.model_utility({f"{i}": rng.beta(a, b, (2, n)) for i, (n, a, b) in enumerate(sets)})
        assert found.low is not None and found.high is not None
        return bool(found.low <= truth <= found.high)

    assert np.mean([covers() for _ in range(runs)]) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


def test_model_utility_is_nothing_once_one_number_is() -> None:
    assert text.model_utility({"retain": np.array([[0.5, 0.7], [0.0, 0.0]])}).value == 0
    assert text.model_utility({}).value is None


def setting_of(world: World, models: Models, request: Request | None = None, session: Session = CPU) -> Setting:
    return Setting(models, request or world.request, world.task, 0, session)


def read(world: World, models: Models, request: Request | None = None, most: int = reading.MOST) -> Measured:
    """What all metrics that need text measure, and what models wrote."""
    setting = setting_of(world, models, request)
    numbers = [
        row
        for metric in METRICS
        if metric.needs == (Textual,) and metric is not reading.ANSWERS
        for row in metric.measure(setting).measurements
    ]
    measured = reading.measure(setting, most)
    return measured._replace(measurements=numbers + measured.measurements)


@pytest.fixture(scope="module")
def models(text_world: World) -> Models:
    fit = Fit(optimizer="adamw", lr=2e-3, weight_decay=0.0, batch_size=5, epochs=20)
    world = text_world
    unlearned = GradDiff(fit=fit).unlearn(world.original, Job(world.request, world.task, seeded(3), CPU))
    return Models(world.original, unlearned, world.retrained)


@pytest.fixture(scope="module")
def found(text_world: World, models: Models) -> Measured:
    return read(text_world, models)


def rows(found: Measured) -> dict[str, Measurement]:
    return {row.name: row for row in found.measurements}


def test_every_row_is_there_once_with_a_value_for_every_model(found: Measured) -> None:
    names = {
        *("forget_probability", "forget_rouge", "forget_quality", "forget_mcq"),
        *("forget_truth_preference", "forget_truth_ratio"),
        *("retain_probability", "retain_rouge", "retain_truth_ratio", "retain_mcq", "extraction_strength"),
        *("holdout_rouge", "holdout_mcq", "test_mcq", "model_utility"),
    }
    assert rows(found).keys() == names
    assert len(found.measurements) == len(names)
    for row in found.measurements:
        assert row.group in ("forgetting", "utility")
        for one in (row.original, row.unlearned, *row.references):
            assert one.value is not None and 0 <= one.value <= 1, row.name


def test_the_original_gives_its_answers_and_retrained_models_can_not(found: Measured) -> None:
    row = rows(found)
    assert row["forget_rouge"].original.value == 1
    assert row["retain_rouge"].original.value == 1
    assert row["forget_rouge"].reference is not None and row["forget_rouge"].reference < 0.6
    assert row["extraction_strength"].original.value == 1
    assert row["extraction_strength"].leak == row["forget_rouge"].leak == row["forget_probability"].leak == "above"
    for name in ("forget_rouge", "forget_probability", "extraction_strength"):
        assert row[name].unlearned.value < row[name].original.value  # type: ignore[operator]


def test_forget_quality_tells_the_original_from_retrained_models(found: Measured) -> None:
    row = rows(found)["forget_quality"]
    assert row.leak == "below"
    assert row.original.value is not None and row.reference is not None
    assert row.original.value < 0.05 < row.reference
    assert row.references[0].value == row.references[1].value  # each is held against the other


def test_readings_hold_each_piece_and_what_each_model_wrote(found: Measured, text_world: World) -> None:
    truth = {item["prompt"]: item for item in text_world.request.forget}  # type: ignore[attr-defined]
    assert len(found.readings) == len({one.prompt for one in found.readings}) == 8
    for one in found.readings:
        assert one.answer == truth[one.prompt]["answer"]
        assert one.written["original"] == one.answer
        assert one.written.keys() == {"original", "unlearned", "retrained 0"}
        assert "".join(piece.text for piece in one.pieces).startswith(one.answer)
        assert all(piece.probability.keys() == one.written.keys() for piece in one.pieces)


def test_readings_begin_with_what_the_unlearned_model_still_knows(
    found: Measured, text_world: World, models: Models
) -> None:
    seen = setting_of(text_world, models).evidence["unlearned"]
    beyond = seen.signals["forget"].confidence - np.mean([one["forget"].confidence for one in seen.references], axis=0)
    first = text_world.request.forget[int(beyond.argmax())]
    assert found.readings[0].prompt == first["prompt"]
    rows = seen.signals["forget"].of_rows(seen.signals["forget"].log_prob)[int(beyond.argmax())]
    told = [piece.probability["unlearned"] for piece in found.readings[0].pieces]
    assert told == pytest.approx(np.exp(rows).tolist())


def test_a_model_that_is_there_twice_is_asked_once_and_answers_are_kept(
    text_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    answer, asked = reading._answer, []

    def counted(subject: Subject, questions: reading.QuestionSet, setting: Setting) -> Any:
        asked.append(questions.name)
        return answer(subject, questions, setting)

    monkeypatch.setattr(reading, "_answer", counted)
    request = replace(text_world.request, holdout=Absent("no holdout"), test=Absent("no test"))
    models = Models(text_world.original, text_world.original, null=text_world.original)

    def measured(most: int) -> Measured:
        return reading.measure(setting_of(text_world, models, request, Session(folder=tmp_path, device="cpu")), most)

    first = measured(4)
    assert asked == ["forget", "retain", "holdout", "test"]
    assert measured(4) == first
    assert len(asked) == 4
    assert measured(3) != first


def test_what_a_request_lacks_is_a_row_with_the_reason(text_world: World) -> None:
    """A user's own plain text: no prompts, no wrong answers, nothing held out, no retrained model."""
    texts = [{"prompt": "", "answer": f"{one['prompt']} {one['answer']}"} for one in facts()[:14]]
    request = Request(texts[:10], texts[10:], Absent("nothing was held out"), Absent("no test file"))
    found = read(text_world, Models(text_world.original, text_world.original), request, most=3)
    row = rows(found)
    ratios = [ratio.name for by_row in reading.RATIOS.values() for ratio in by_row]
    assert len(ratios) == 3
    for name in (*ratios, "forget_mcq", "retain_mcq", "forget_quality"):
        assert row[name].unlearned.value is None
        assert "wrong answers" in row[name].note
    assert row["holdout_rouge"].note == row["holdout_mcq"].note == "nothing was held out"
    assert row["test_mcq"].note == "no test file"
    assert row["forget_rouge"].note == (
        "3 of 10 examples, evenly spread; 3 examples have no prompt: the first half of the text is shown"
    )
    assert "test is left out: no test file" in row["model_utility"].note
    assert "no truth ratio" in row["model_utility"].note
    probability, rouge = row["model_utility"].unlearned.note.partition(": ")[2].split(", ")
    assert probability.startswith("probability") and rouge.startswith("ROUGE-L")
    assert {one.answer for one in found.readings} == {texts[i]["answer"] for i in (0, 4, 9)}  # 4.5 rounds to even
    task: Any = text_world.task
    asked = [texts[i] for i in (0, 4, 9)]
    written = task.generate(text_world.original, asked, shown=0.5)
    truth = rouge_l_recall([task.left(text, 0.5) for text in asked], written)
    assert row["forget_rouge"].original.value == pytest.approx(truth.mean())
    assert {one.written["original"] for one in found.readings} == {f"... {one}" for one in written}


def test_sources_of_test_are_judged_apart_and_only_where_answers_are_wrong(text_world: World) -> None:
    items: list[dict[str, Any]] = [dict(one) for one in facts()]
    for one in items[40:44]:
        one["source"] = "real authors"
    for one in items[44:48]:
        one["source"] = "world facts"
    for one in items[12:16]:
        del one["wrong"], one["restated"]
    request = Request(items[:10], items[10:16], items[48:], items[40:48])
    found = read(text_world, Models(text_world.original, text_world.original), request)
    row = rows(found)
    assert row["test_real_authors_mcq"].unlearned.n == row["test_world_facts_mcq"].unlearned.n == 4
    assert row["retain_mcq"].unlearned.n == row["retain_truth_ratio"].unlearned.n == 2
    assert row["retain_rouge"].note == "2 of 6 examples, evenly spread over those with wrong answers"
    assert row["retain_probability"].unlearned.n == 6
    assert row["model_utility"].unlearned.n == 2 + 4 + 4
    assert [part.split(":")[0] for part in row["model_utility"].unlearned.note.split("; ")] == [
        "retain",
        "real authors",
        "world facts",
    ]


@pytest.mark.parametrize("wrong", [["yes", 7], [""], 7, {"a": "b"}])
def test_wrong_answers_must_be_texts(text_world: World, wrong: object) -> None:
    items = facts()
    items[1]["wrong"] = wrong
    request = Request(items[:10], items[10:16], items[40:48], items[48:])
    models = Models(text_world.original, text_world.original)
    with pytest.raises(BadInput, match=r"forget\[1\].*wrong"):
        reading.measure(setting_of(text_world, models, request))


def test_only_tasks_that_write_text_can_be_read() -> None:
    with pytest.raises(NotSupported, match="Classification"):
        reading.measure(Setting(Models(network(), network()), REQUEST, Classification(), 0, CPU))


def test_the_harness_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(MissingDependency, match=r"lm-eval: .*pip install -e '\.\[eval\]'"):
        harness.evaluate(network(), None, ["people"])


TASK = """task: people
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.filterwarnings("ignore")
def test_the_harness_scores_a_task_of_ones_own_offline(
    text_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "people.jsonl"
    # Every third label is wrong, so that a model that knows all answers is right on two thirds.
    asked = [
        {"question": one["prompt"], "choices": [one["answer"], *one["wrong"]], "label": int(i % 3 == 0)}  # type: ignore[misc]
        for i, one in enumerate(facts()[:12])
    ]
    data.write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    (tmp_path / "people.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    before = random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    tokenizer = text_world.task.tokenizer  # type: ignore[attr-defined]
    found = harness.evaluate(text_world.original, tokenizer, ["people"], folder=tmp_path)
    assert before == (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index, union-attr]
    score = found["people acc"]
    half = 1.959964 * np.sqrt((2 / 3) * (1 / 3) / 11)
    assert (score.value, score.low, score.high) == pytest.approx((2 / 3, 2 / 3 - half, 2 / 3 + half), abs=1e-6)
    assert score.n == 12
    assert harness.evaluate(text_world.original, tokenizer, ["people"], folder=tmp_path, limit=3)["people acc"].n == 3


def test_the_harness_says_what_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(BadInput, match="folder"):
        harness.evaluate(small_llama(4), None, ["people"], folder=tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"expected tasks that the harness knows, got 'arc_hasty'.*arc_easy"):
        harness.evaluate(small_llama(4), None, ["arc_hasty"], folder=tmp_path)


def test_other_answers_that_the_context_does_not_hold_are_left_out(text_world: World) -> None:
    """They ended the audit; an example of which none is left has no choice."""
    w = text_world
    long = " ".join(["cook"] * 200)
    forget = [{**item, "wrong": [long, "guard"] if i else [long]} for i, item in enumerate(iterate(w.request.forget))]
    setting = Setting(
        Models(w.original, w.original, w.retrained), replace(w.request, forget=forget), w.task, session=CPU
    )
    rows = {row.name: row for row in reading.measure(setting).measurements}
    assert rows["forget_truth_ratio"].unlearned.n == len(forget) - 1
