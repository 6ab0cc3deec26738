"""What the suites hold, by the names under which a record shows it."""

from typing import Any

import pytest

from tests.worlds import COLOURS, caption_tokenizer, word_tokenizer
from unrecall import attacks
from unrecall.errors import BadInput
from unrecall.harness.finding import report_of
from unrecall.harness.suites import QUICK, STANDARD, Suite, judged_names, suite, suite_of
from unrecall.spec.catalog import entries
from unrecall.spec.lines import name_of
from unrecall.tasks import CausalLM, Classification, Contrastive
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Textual

TASKS = (Classification(), CausalLM(word_tokenizer()), Contrastive(caption_tokenizer(), classes=tuple(COLOURS)))


def names(chosen: Suite, task: Task) -> list[str]:
    return [report_of(attack).name for attack in chosen.suiting(task)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_no_two_attacks_of_a_suite_share_a_name(task: Task) -> None:
    for name in ("standard", "quick"):
        held = names(suite(name), task)
        assert len(held) == len(set(held)) > 4
    assert len(names(suite("quick"), task)) < len(names(suite("standard"), task))


def test_layers_are_held_against_the_original_and_against_retrained_models() -> None:
    for task in TASKS:
        held = [name for name in names(suite("standard"), task) if name.startswith("cka")]
        assert held == ([] if isinstance(task, CausalLM) else ["cka", "cka_retrained"])


def test_a_list_of_ones_own_takes_their_place() -> None:
    loss, relearn = attacks.Loss(), attacks.Relearn(steps=(2,))
    own = suite(loss, relearn)
    assert all(own.suiting(task) == (loss, relearn) for task in TASKS)
    assert suite("loss", "relearn:steps=2").suiting(TASKS[0]) == (loss, relearn)
    assert suite("loss", "relearn:steps=2").name == "loss relearn:steps=2"


def test_attacks_are_run_in_the_order_of_the_suite() -> None:
    assert suite(attacks.RMIA(), attacks.Loss()).suiting(TASKS[0]) == (attacks.RMIA(), attacks.Loss())
    for name, whole in (("standard", STANDARD), ("quick", QUICK)):
        for task in TASKS:
            order = [id(attack) for _, attack in whole]
            places = [order.index(id(attack)) for attack in suite(name).suiting(task)]
            assert places == sorted(places)


def test_all_is_every_attack_of_the_catalog() -> None:
    catalog = [entry.name for entry in entries("attacks")]
    for task in TASKS:
        assert [name_of(attack) for attack in suite("all").suiting(task)] == catalog
    assert {name_of(attack) for _, attack in STANDARD} < set(catalog)
    assert suite("all").name == "all"


def test_a_suite_none_of_whose_attacks_can_run_names_what_is_missing() -> None:
    texts = Suite("texts", tuple((protocol, attack) for protocol, attack in STANDARD if protocol is Textual))
    with pytest.raises(BadInput, match=r"suite texts: expected a task that is one of Textual, got Classification, on"):
        texts.suiting(Classification())
    with pytest.raises(BadInput, match="suite: expected attacks, got none"):
        suite()


def test_a_misspelt_attack_is_refused() -> None:
    with pytest.raises(BadInput, match="relearn"):
        suite("relern")


def test_what_is_judged_is_declared_with_its_side() -> None:
    judged: dict[str, Any] = dict(judged_names())
    assert {"retain_accuracy", "forget_accuracy", "relearn_mean", "loss_left", "residual_knowledge_sums"} <= set(judged)
    assert judged["forget_accuracy"] == judged["relearn_mean"] == "above"
    assert judged["retain_accuracy"] is None
    assert "relearn_benign_mean" not in judged, "a variant of a judged attack"


def test_an_attack_that_stands_twice_is_refused_before_anything_is_done() -> None:
    with pytest.raises(BadInput, match="expected each attack once, got two called 'loss'"):
        suite("loss", "loss").suiting(Classification())


@pytest.mark.parametrize("wrong", [None, 3, ["loss"]])
def test_what_is_no_attack_is_no_suite(wrong: Any) -> None:
    with pytest.raises(BadInput, match="suite: expected attacks, or names of some, got"):
        suite(wrong)


def test_attacks_are_taken_as_people_write_them() -> None:
    quick = suite("quick")
    assert suite_of(quick) is quick
    assert suite_of("quick") == quick
    assert suite_of(None) == suite("standard")
    two = [("loss", "rmia"), ["loss", "rmia"], "loss rmia", [attacks.Loss(), "rmia"]]
    assert [[type(attack).__name__ for _, attack in suite_of(part).entries] for part in two] == [["Loss", "RMIA"]] * 4  # type: ignore[arg-type]
    assert suite_of(attacks.Loss()).entries == suite("loss").entries
    with pytest.raises(BadInput, match="attacks: expected a suite, names or attacks, got 3"):
        suite_of(3)  # type: ignore[arg-type]
