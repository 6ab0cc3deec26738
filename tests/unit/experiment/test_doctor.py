"""A case looked at before it is run."""

import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import unrecall as ur
from tests.worlds import CPU, World, blobs, network
from unrecall.attacks.relearn import Relearn
from unrecall.data.examples import Absent
from unrecall.errors import BadInput
from unrecall.evidence.pool import Pool
from unrecall.evidence.scores import Scores
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.experiment import audit_timing, timing
from unrecall.experiment.against import Against
from unrecall.experiment.audit_timing import auditing_times, smallest
from unrecall.experiment.case import Case
from unrecall.experiment.clock import Spent, at_most, clock, within
from unrecall.experiment.doctor import beforehand, doctor, memory
from unrecall.experiment.timing import Line, Samples, Timed, between, unlearning_times
from unrecall.methods.base import GradientMethod
from unrecall.scenarios.base import Scenario
from unrecall.spec.lines import parse
from unrecall.training.loop import Fit


def scenario_of(world: World) -> Scenario:
    return Scenario(
        "case",
        "a case",
        world.task,
        world.request,
        lambda seed, session: network(seed=seed),
        Fit(epochs=20, batch_size=32),
    )


def look(
    scenario: Scenario, method: str = "grad_diff", attacks: str = "loss", *, tuned: bool | Against = False
) -> list[Line]:
    suiting = ur.suite(*attacks.split()).suiting(scenario.task)
    return list(doctor(Case(scenario, parse(method, "methods"), suiting, CPU, tuned)))


def said(lines: list[Line], subject: str) -> str:
    return "; ".join(line.text for line in lines if line.subject == subject)


def test_everything_is_tried_and_counted(samples_world: World) -> None:
    lines = look(scenario_of(samples_world), attacks="loss relearn:steps=1,learning_rates=0.01")
    assert said(lines, "data") == "forget 20, retain 140, holdout 40, test 200"
    # 160 examples in batches of 32, 20 times; 5 models on 140, whose last batch holds 12; forget in one, ten times.
    assert said(lines, "original").startswith(
        "is trained by the recipe, so what it knows is not known yet; 100 steps of"
    )
    assert said(lines, "retrained").startswith("5 x 100 steps of")
    assert said(lines, "grad_diff").startswith("2 x 10 steps of"), "the null too, as there is BatchNorm"
    assert said(lines, "attacks").startswith("2 tried on 116 examples; on all 400 and 7 models ")
    assert said(lines, "verdict").startswith("beside 5 retrained models")
    assert said(lines, "tuning").startswith(
        "--tune searches fit.lr on forget and 20 examples that were never trained on and that the audit would do "
        "without, up to"
    )
    assert said(lines, "in all").endswith("on cpu")


def test_a_class_is_tuned_on_forget_alone(class_world: World) -> None:
    assert class_world.request.validation is None
    tuning = said(look(scenario_of(class_world)), "tuning")
    assert tuning.startswith("--tune searches fit.lr on forget alone, up to"), tuning


def test_a_given_original_is_asked_what_it_knows(samples_world: World) -> None:
    w = samples_world
    given = replace(scenario_of(w), original=w.original, build=None, recipe=None, retrained=())
    built = replace(scenario_of(w), recipe=None, retrained=())  # as audit's --original is loaded into it
    assert said(look(built, "ssd"), "original").startswith("is given by --original of audit")
    lines = look(given, "ssd")
    assert "100 % of forget right" in said(lines, "original")
    assert "knows forget beyond the holdout by z = " in said(lines, "original")
    assert "with 20 of forget" in said(lines, "ssd")
    assert said(lines, "verdict").startswith(
        "beside 40 records never trained on it can be: leaks (wrongly in at most 4 of 100), stands out, damaged"
    )


def test_what_tuning_takes_is_counted_as_the_run_counts_it(samples_world: World) -> None:
    w = samples_world
    given = replace(scenario_of(w), original=w.original, build=None, recipe=None, retrained=())
    lines = look(given, tuned=True)
    assert said(lines, "data") == "forget 20, retain 140, holdout 20, test 200, validation 20"
    assert said(lines, "verdict").startswith(
        "beside 20 records never trained on it can be: leaks (wrongly in at most 4 of 100), stands out, damaged"
    )
    assert "20 examples that were never trained on and that the audit does without" in said(lines, "tuning")
    against = said(look(given, tuned=Against("relearn")), "tuning")
    assert "--against relearn searches fit.lr on forget and 20 examples" in against
    assert "up to 6 times the method's own time and that of the attack; it ends there where" in against


@pytest.mark.parametrize("samples", [False, True])
def test_what_is_told_of_a_tuned_method_is_what_its_training_does(
    samples_world: World, samples: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its phases on forget take 100 steps; it looks at what is forgotten after each epoch, and when a trial is judged.

    It is told from the phases as they are and, where these aren't ready soon, from samples.
    """
    if samples:
        monkeypatch.setattr(timing, "_as_they_are", lambda *_: None)
    case = Case(scenario_of(samples_world), parse("scrub", "methods").scaled(0.01), [], CPU, tuned=True)
    told = [timed.line.text for timed in unlearning_times(case, samples_world.original)]
    looked, job = list[int](), case.job
    case.method.unlearn(samples_world.original, job.until(lambda model: bool(looked.append(0))))
    assert [int(text.split("2 x ")[1].split()[0]) for text in told[1:-1]] == [
        effort.steps for effort in CPU.efforts[-5:]
    ]
    assert told[0].startswith(f"{len(looked) + 1} checks of ")
    assert told[-1].startswith("6 x ")


def test_tuning_is_a_part_of_all(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second and so does a look: 101 looks, 100 steps, and 100 of the null; six trials have none."""
    monkeypatch.setattr(timing, "_timed", lambda name, *_: Timed(Line(name, ""), _[-1].times * _[-1].steps))
    monkeypatch.setattr(timing, "clock", lambda work: (Spent(1.0, 0), work()))
    for of in ("training_times", "auditing_times"):
        monkeypatch.setattr(f"unrecall.experiment.doctor.{of}", lambda *_: [])
    tuned = look(scenario_of(samples_world), tuned=True)
    assert said(tuned, "in all") == f"{between(301 + 6 * 201, 301 + 6 * 201)} on cpu"
    assert said(look(scenario_of(samples_world), tuned=Against()), "in all") == "about 80 s on cpu"
    assert said(look(scenario_of(samples_world)), "in all") == "about 20 s on cpu"


def test_a_method_whose_steps_can_not_be_told_counts_as_where_it_does_not_end_by_itself(
    samples_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second on a sample, and a hundred where training waits until enough is forgotten, which it never is."""
    now = 0.0

    def unlearn(method: object, model: nn.Module, job: ur.Job) -> nn.Module:
        nonlocal now
        now += 100.0 if job.enough and not job.enough(nn.Sequential(nn.Flatten(), nn.Linear(16, 3))) else 1.0
        return model

    monkeypatch.setattr("unrecall.experiment.clock.time.perf_counter", lambda: now)
    monkeypatch.setattr("unrecall.methods.task_vector.TaskVector.unlearn", unlearn)
    monkeypatch.setattr("unrecall.experiment.goal.Goal.gap", lambda *_: 0.0)
    case = Case(scenario_of(samples_world), parse("task_vector", "methods"), [], CPU)
    assert [timed.seconds for timed in unlearning_times(case, samples_world.original)] == [1]
    assert [timed.seconds for timed in unlearning_times(replace(case, tuned=True), samples_world.original)] == [
        100,
        600,
    ]


def test_the_attack_of_a_search_is_run_on_the_original_and_six_others(samples_world: World) -> None:
    """At its smallest on four models in a trial; it has three budgets."""
    case = Case(scenario_of(samples_world), parse("grad_diff", "methods"), [], CPU, tuned=Against())
    assert audit_timing._search(case, Against()).weight == pytest.approx(3 * 7 / 4)
    tuning = next(timed for timed in auditing_times(case, samples_world.original) if timed.line.subject == "tuning")
    assert tuning.line.text.startswith("relearn on the original and up to 6 others ")


def test_where_tuning_lacks_examples_the_rest_is_still_said(samples_world: World) -> None:
    given = scenario_of(samples_world)
    absent = Absent("none was held out")
    lines = look(replace(given, request=given.request.with_own(holdout=absent, test=absent)), tuned=True)
    assert "expected a validation set or at least 4 holdout examples, got 0" in said(lines, "tuning")
    assert said(lines, "verdict")


def test_persons_are_counted_as_such(samples_world: World) -> None:
    w = samples_world
    names = {"forget": ["ann"] * 20, "holdout": [f"p{i // 2}" for i in range(40)]}
    request = ur.Request(w.request.forget, w.request.retain, w.request.holdout, groups=names)
    lines = look(Scenario("case", "", w.task, request, original=w.original), "retrain")
    assert said(lines, "verdict").startswith(
        "beside 20 persons never trained on it can be: leaks (wrongly in at most 5 of 100), damaged"
    )
    assert "no test set was given" in said(lines, "data")
    assert said(lines, "tuning") == "retrain has no strength to tune"


@pytest.mark.parametrize("persons", [False, True])
def test_what_the_original_remembers_is_what_the_audit_will_say(samples_world: World, persons: bool) -> None:
    w = samples_world
    names = {"forget": ["ann"] * 20, "holdout": [f"p{i // 2}" for i in range(40)]} if persons else None
    request = ur.Request(w.request.forget, w.request.retain, w.request.holdout, groups=names)
    record = ur.audit(
        original=w.original, unlearned=w.retrained[0], request=request, task=w.task, attacks="loss", session=CPU
    )
    assert record.never_trained is not None
    z = record.never_trained.attacks[0].z_original
    given = Scenario("case", "", w.task, request, original=w.original)
    assert f"z = {z:.1f} standard deviations, as it is" in said(look(given, "ssd"), "original")


def test_a_case_that_cannot_run_says_why(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(BadInput, match=r"expected a label in 0\.\.2"):
        look(replace(scenario_of(w), build=lambda seed, session: network(3)))


def test_an_attack_is_tried_at_its_smallest() -> None:
    small, times = smallest(ur.attacks.Relearn(steps=(2, 8, 20), learning_rates=(0.01, 0.1)))
    assert (small.steps, small.learning_rates, times) == ((2,), (0.01,), 6)  # type: ignore[attr-defined]
    assert smallest(ur.attacks.ReaClass(learning_rates=(0.1, 0.2)))[1] == 2, "its steps are a number"
    assert smallest(ur.attacks.Loss()) == (ur.attacks.Loss(), 1)


def test_work_ends_when_its_time_is_over() -> None:
    steps = list[int]()
    with at_most(0.05):
        while True:
            steps.append(0)
    assert steps
    with at_most(60):
        steps.clear()
    assert not steps
    assert (within(60, lambda: 1, 2), within(0.05, lambda: time.sleep(60), 2)) == (1, 2)


def test_an_attack_that_takes_too_long_is_left(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w = samples_world
    monkeypatch.setattr("unrecall.experiment.audit_timing.PATIENCE", 0.001)
    lines = look(Scenario("case", "", w.task, w.request, original=w.original), "retrain")
    assert "Loss threshold takes over" in said(lines, "attacks")
    assert said(lines, "in all").startswith("over ")


def test_tests_beside_never_trained_records_are_priced_by_their_steps(
    samples_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second and nothing else takes any: 20 steps, and 1 to 20 of a taught half, of two models."""
    w = samples_world
    monkeypatch.setattr("unrecall.experiment.audit_timing._seconds", lambda *_: (0.0, 0.0))
    monkeypatch.setattr("unrecall.experiment.audit_timing._step_seconds", lambda *_: 1.0)
    case = Case(Scenario("case", "", w.task, w.request, original=w.original), parse("retrain", "methods"), [], CPU)
    halves = 2 if len(w.request.forget) >= 40 else 1
    tests = next(timed for timed in auditing_times(case, w.original) if timed.line.subject == "tests")
    assert (tests.seconds, tests.most) == (2 * (20 + halves), 2 * (20 + 20 * halves))
    assert [line.subject for line in look(case.scenario, "retrain")].count("tests") == 1
    monkeypatch.setattr("unrecall.experiment.audit_timing.judgeable", lambda request: False)
    assert "tests" not in [line.subject for line in look(case.scenario, "retrain")], "there are none"


def test_steps_are_timed_on_whole_batches(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 of retain a step, beside as many that guard what the model is of use for."""
    w, sizes = samples_world, list[int]()
    true = audit_timing._step_seconds

    def counted(attack: Relearn, setting: Setting) -> float:
        sizes.append(min(attack.fit.batch_size, len(setting.request.retain) // 2))
        return true(attack, setting)

    monkeypatch.setattr(audit_timing, "_step_seconds", counted)
    case = Case(Scenario("case", "", w.task, w.request, original=w.original), parse("retrain", "methods"), [], CPU)
    assert all(timed.seconds >= 0 for timed in auditing_times(case, w.original))
    assert sizes == [64]


def test_a_step_that_can_not_be_taken_costs_nothing(samples_world: World) -> None:
    w = samples_world
    one = Setting(Models(w.original, w.original), w.request.with_own(retain=w.request.retain[:1]), w.task, session=CPU)
    assert audit_timing._step_seconds(Relearn(data="benign", steps=(1,)), one) == 0.0


def test_a_slow_step_is_timed_once(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrecall.experiment.timing.SLOW", 0.0)
    case = Case(scenario_of(samples_world), parse("finetune", "methods"), [], CPU)
    steps = list[int]()
    monkeypatch.setattr(
        "unrecall.experiment.timing.fit_by_step", lambda *_: iter(steps.append(1) or i for i in range(3))
    )
    assert all(timed.seconds > 0 for timed in unlearning_times(case, samples_world.original))
    assert len(steps) == 1


def test_every_model_of_a_trial_is_attacked(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that were alike would have the original's scores, and a model would be told to take a quarter."""
    attacked, scores = list[str](), Relearn.scores

    def counted(attack: Relearn, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        attacked.append(subject.role)
        return scores(attack, subject, pool, setting)

    monkeypatch.setattr(Relearn, "scores", counted)
    case = Case(scenario_of(samples_world), parse("retrain", "methods"), [Relearn()], CPU)
    audit_timing.prices(case, samples_world.original, 600)
    assert {*attacked} == {"original", "unlearned", "retrained 0", "retrained 1", "hidden"}


def test_two_durations_are_one_where_they_are_nearly_the_same() -> None:
    assert between(4.0, 5.0) == "about 5.0 s"
    assert between(4.0, 400.0) == "4.0 s to 7 min"
    assert between(4.0, math.inf) == "over 4.0 s"


def test_memory_is_models_and_what_they_say(samples_world: World) -> None:
    w = samples_world
    case = Case(replace(scenario_of(w), references=2), parse("grad_diff", "methods"), [], CPU)
    text = memory(case, w.original).text
    weights = sum(t.numel() * 4 for t in w.original.parameters())
    weights += sum(t.numel() * t.element_size() for t in w.original.buffers())
    assert weights < 100_000, "less than 0.1 MB, so that what they say decides"
    # original, unlearned, null (there is BatchNorm), 2 retrained; forget 20, retain 140, holdout 40, test 200
    assert "5 models of 0.0 MB, 4 as large while one is trained" in text
    assert "of what they say of 400 examples" in text


def test_a_run_says_what_comes_before_attacks_and_changes_nothing(
    samples_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path))
    scenario = replace(scenario_of(samples_world), references=2)
    case = Case(scenario, parse("grad_diff", "methods"), [], CPU)
    state = torch.get_rng_state()
    time, size = beforehand(case)
    assert time.startswith("before attacks about ") and size.startswith("memory: about ")
    assert "original: 100 steps of" in time and "retrained: 2 x 100 steps of" in time and "grad_diff: 2 x 10" in time
    assert torch.equal(state, torch.get_rng_state())
    scenario.train_retrained(1, CPU)
    time, _ = beforehand(case)
    assert "retrained: 100 steps of" in time, "the cache holds the other"
    scenario.train_original(0, CPU)
    assert "original" not in next(iter(beforehand(case)))
    assert "original: 100 steps of" in next(iter(beforehand(replace(case, seed=1)))), "another seed's isn't there"
    assert "tuning: 6 x " in next(iter(beforehand(replace(case, tuned=True))))
    time, _ = beforehand(replace(case, method=parse("lora(grad_diff)", "methods")))
    assert "lora(grad_diff): 10" in time, "the steps of what it wraps, once: it holds the statistics, and has no null"
    time, _ = beforehand(replace(case, method=parse("repselect", "methods")))
    assert "unlearning: not counted, as the steps of RepSelect can't be told" in time


def test_a_model_whose_copies_fill_the_memory_is_not_tried(
    samples_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=50_000))
    case = Case(scenario_of(samples_world), parse("grad_diff", "methods"), [], CPU)
    (line,) = beforehand(case)
    assert line.startswith("memory: about ") and line.endswith("no step was timed, as 0.1 MB are free here")


def test_what_can_not_be_said_before_a_run_is_left_to_the_run(samples_world: World) -> None:
    def build(seed: int, session: object) -> object:
        raise SystemExit(3)

    case = Case(replace(scenario_of(samples_world), build=build), parse("grad_diff", "methods"), [], CPU)
    assert list(beforehand(case)) == []


def test_numbers_that_go_into_layers_are_counted() -> None:
    """6 x 5 into the first and 6 x 4 into the second, whatever holds them; under `vmap` all examples of a batch."""
    model, inputs = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.Linear(4, 3))), torch.randn(6, 5)
    spent, outputs = clock(lambda: model(inputs))
    assert (spent.numbers, outputs.shape, spent.seconds > 0) == (54, (6, 3), True)
    assert clock(lambda: torch.func.vmap(model)(inputs))[0].numbers == 54
    with pytest.raises(ZeroDivisionError):
        clock(lambda: 1 / 0)
    assert clock(lambda: None)[0].numbers == 0, "nothing is counted outside, nor twice"


def test_what_the_machine_did_meanwhile_is_no_growth() -> None:
    """Numbers that stay the same, and seconds that differ: nothing grows. Without numbers seconds alone tell it."""
    few, many = (ur.Request(list(range(n)), list(range(-n, 0)), Absent("none"), Absent("none")) for n in (100, 10_000))
    less = ur.Request(list(range(50)), list(range(-100, 0)), Absent("none"), Absent("none"))
    samples = Samples(less, few, few, many)
    assert samples.seconds([Spent(4.0, 7), Spent(5.0, 7), Spent(5.0, 7)]) == 5.0
    assert samples.seconds([Spent(4.0, 0), Spent(5.0, 0), Spent(5.0, 0)]) == pytest.approx(5 + 9_900 / 50)
    grown = samples.seconds([Spent(4.0, 6), Spent(5.0, 7), Spent(5.0, 7)])
    assert grown == pytest.approx(5 * (7 + 9_900 / 50) / 7), "less than by seconds"
    assert samples.seconds([Spent(4.99, 6), Spent(5.0, 7), Spent(5.0, 7)]) == pytest.approx(5 + 0.01 * 198)


def test_what_grows_with_the_examples_is_told_from_what_does_not() -> None:
    """Two seconds whatever there is, a hundredth for each of forget, and a thousandth for each of retain."""
    sizes = ((50, 200), (200, 50), (200, 200), (1000, 9000))
    samples = Samples(
        *(
            ur.Request(list(range(forget)), list(range(-retain, 0)), Absent("none"), Absent("none"))
            for forget, retain in sizes
        )
    )
    assert samples.of_all([2.7, 4.05, 4.2]) == pytest.approx(2 + 10 + 9)
    assert samples.of_all([2.0, 2.0, 2.0]) == 2.0
    assert samples.of_all([2.1, 2.0, 2.0]) == 2.0, "less takes no longer"
    assert samples._replace(less_forget=samples.more).of_all([4.2, 4.05, 4.2]) == pytest.approx(4.2 + 0.001 * 8800)


def test_a_method_whose_data_are_its_own_is_counted_on_all_of_them(samples_world: World) -> None:
    """UNSIR reads a fifth of 140 of retain, 28, and noise .64 times as often, 18: two batches of 32, then one of 28."""
    method = "unsir:noises=4,shape.epochs=1,impair.batch_size=32,repair.batch_size=32"
    lines = [line for line in look(scenario_of(samples_world), method=method) if line.subject.startswith("unsir")]
    assert [line.text.split(" steps")[0] for line in lines] == ["2 x 2", "2 x 1"]


def test_what_work_takes_with_all_examples_is_told_from_two_trials(
    samples_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds, and a hundredth for each example: 116 of 32 of each set, 32 of 8 of each, 400 in all."""
    now = 0.0

    def work(setting: Setting) -> None:
        nonlocal now
        now += 2 + 0.01 * sum(len(examples) for examples in setting.request.sets.values())

    monkeypatch.setattr("unrecall.experiment.clock.time.perf_counter", lambda: now)
    monkeypatch.setattr("unrecall.experiment.audit_timing.measure_all", work)
    case = Case(scenario_of(samples_world), parse("retrain", "methods"), [], CPU)
    measuring = next(iter(auditing_times(case, case.start())))
    assert (measuring.seconds, measuring.most) == pytest.approx((1.75 * (2 + 1.16), 1.75 * (2 + 4.0))), (
        "7 models, not 4"
    )


@pytest.mark.parametrize("name", ["kookmin", "fanchuan"])
def test_steps_that_follow_from_forget_s_size_are_told_from_samples(name: str) -> None:
    """Both draw 32 of retain for each of forget: 300 of forget, 32 * 300 / 128 = 75 steps each time."""
    data, method = blobs(2300, 4, 1), parse(name, "methods")
    request = ur.Request(data[:300], data[300:], blobs(100, 4, 2), blobs(100, 4, 3))
    scenario = Scenario("world", "a world", ur.tasks.Classification(), request, original=network())
    assert isinstance(method, GradientMethod)
    _, amounts = timing._from_samples(Case(scenario, method, [], CPU), method, network())
    rounds = 1 if name == "kookmin" else method.as_dict()["rounds"]
    assert [amount.steps for amount in amounts].count(75) == rounds
