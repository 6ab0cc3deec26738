"""What the presets hold, by the names under which a record shows it."""

from __future__ import annotations

import pytest

from tests.worlds import COLOURS, caption_tokenizer, word_tokenizer
from unrecall.harness.findings import report_of
from unrecall.harness.suites import Audit
from unrecall.tasks import CausalLM, Classification, Contrastive
from unrecall.tasks.base import Task

TASKS = (Classification(), CausalLM(word_tokenizer()), Contrastive(caption_tokenizer(), classes=tuple(COLOURS)))


def names(audit: Audit, task: Task) -> list[str]:
    return [report_of(attack).name for attack in audit.of(task)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.modality)
def test_no_two_attacks_of_a_preset_share_a_name(task: Task) -> None:
    for audit in (Audit.standard(), Audit.quick()):
        found = names(audit, task)
        assert len(found) == len(set(found)) > 4
    assert len(names(Audit.quick(), task)) < len(names(Audit.standard(), task))


def test_layers_are_held_against_the_original_and_against_retrained_models() -> None:
    for task in TASKS:
        held = [name for name in names(Audit.standard(), task) if name.startswith("cka")]
        assert held == ([] if isinstance(task, CausalLM) else ["cka", "cka_retrained"])


def test_a_list_of_ones_own_takes_their_place() -> None:
    quick = Audit.quick().of(TASKS[0])
    own = Audit(attacks=quick[:1], by_modality=Audit.standard().by_modality)
    assert all(own.of(task) == quick[:1] for task in TASKS)
    assert Audit().of(TASKS[0]) == ()
