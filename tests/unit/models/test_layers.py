"""One vector an example, by hand; mixtures of experts, most of whose weights are in no layer."""

import copy

import pytest
import torch

from tests.worlds import CPU, World, small_mixtures
from unrecall.errors import NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.audit import finding_of
from unrecall.models.layers import pooled
from unrecall.spec.lines import parse
from unrecall.training.job import Job
from unrecall.training.randomness import seeded


def test_a_sequence_is_the_mean_over_positions_that_hold_input() -> None:
    h = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    held = torch.tensor([[True, True, False]])
    assert pooled(h, held).tolist() == [[2, 4]]
    assert torch.allclose(pooled(h), torch.tensor([[13 / 3, 17 / 3]]))
    assert torch.equal(pooled(h, held[:, :2]), pooled(h)), "a mask of another length says nothing"
    assert pooled(h, torch.zeros_like(held)).tolist() == [[0, 0]]


def test_a_map_is_the_mean_over_places_and_a_vector_stays() -> None:
    assert pooled(torch.arange(8.0).view(1, 2, 2, 2)).tolist() == [[1.5, 5.5]]
    assert pooled(torch.tensor([[1, 2]], dtype=torch.float16)).dtype == torch.float32


@pytest.mark.parametrize("line", ["repselect", "cir", "mudman", "pgu"])
def test_methods_that_know_layers_alone_refuse_a_mixture(line: str, text_world: World) -> None:
    w, method = text_world, parse(line, "methods")
    for model in small_mixtures(len(w.task.tokenizer)):  # type: ignore[attr-defined]
        with pytest.raises(NotSupported, match="got a mixture whose experts are stacked"):
            method.unlearn(model, Job(w.request, w.task, seeded(0), CPU))


def test_layers_of_a_mixture_that_are_named_are_changed(text_world: World) -> None:
    w, method = text_world, parse("mudman:target=q_proj,fit.steps=1", "methods")
    for model in small_mixtures(len(w.task.tokenizer)):  # type: ignore[attr-defined]
        after = dict(method.unlearn(model, Job(w.request, w.task, seeded(0), CPU)).named_parameters())
        moved = [name for name, before in model.named_parameters() if not torch.equal(after[name], before)]
        assert [name.split(".")[-2] for name in moved] == ["q_proj", "q_proj"]


@pytest.mark.parametrize("line", ["quantise", "prune", "weight_noise"])
def test_attacks_on_matrices_are_not_run_on_part_of_a_mixture(line: str, text_world: World) -> None:
    w, attack = text_world, parse(line, "attacks")
    for model in small_mixtures(len(w.task.tokenizer)):  # type: ignore[attr-defined]
        finding = finding_of(attack, Setting(Models(model, copy.deepcopy(model)), w.request, w.task, session=CPU))
        assert all(row.unlearned.value is None for row in finding.measurements)
