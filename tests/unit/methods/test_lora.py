"""LoRA: what it adds is the low-rank change, the weights are never copied on the way, and any base can be inside."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.laws.test_methods import same, storages
from tests.worlds import CPU, World, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod, Null
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.lora import LoRA
from unrecall.methods.npo import NPO
from unrecall.methods.rmu import RMU
from unrecall.methods.salun import SalUn
from unrecall.methods.ssiuu import SSIUU
from unrecall.nn.hooks import batchnorms
from unrecall.spec.lines import parse, show
from unrecall.tasks import CausalLM, Classification
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase
from unrecall.training.randomness import seeded

Look = Callable[[nn.Module, nn.Module], None]


@dataclass(frozen=True)
class Watching(GradientMethod):
    """Fine-tunes on forget, one step or more, and shows the student and the reference to whoever looks."""

    title: ClassVar[str] = "Watching"

    look: Any = None
    fit: Fit = Fit(optimizer="adamw", lr=1e-2, weight_decay=0.0, batch_size=8, epochs=1, steps=3)

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        request, task = job.request, job.task

        def loss(model: nn.Module, batches: Batches) -> torch.Tensor:
            if self.look is not None:
                self.look(model, original)
            return task.rows(model, batches["forget"]).losses().mean()

        return [Phase(loss, {"forget": request.forget}, self.fit)]


def unlearned(world: World, method: LoRA, seed: int = 0) -> nn.Module:
    return method.unlearn(world.original, Job(world.request, world.task, seeded(seed), CPU))


def watched(world: World, look: Look, **parameters: Any) -> nn.Module:
    return unlearned(world, LoRA(r=4, base=Watching(look=look), **parameters))


def body(model: nn.Module) -> set[str]:
    return {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name != "lm_head"}


def test_adds_alpha_over_r_times_b_a_and_nothing_else(text_world: World) -> None:
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(model: nn.Module, _: nn.Module) -> None:
        for name, layer in model.named_modules():
            if hasattr(layer, "lora_A"):
                kept[name] = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # type: ignore[index]

    result = watched(text_world, look, alpha=6.0)
    assert kept.keys() == body(text_world.original)
    before = text_world.original.state_dict()
    for key, after in result.state_dict().items():
        layer = key.removesuffix(".weight")
        if layer in kept:
            a, b = kept[layer]
            assert a.shape[0] == b.shape[1] == 4
            torch.testing.assert_close(after - before[key], 6.0 / 4 * (b @ a).detach(), atol=1e-6, rtol=1e-4)
            assert torch.linalg.matrix_rank((after - before[key]).double(), rtol=1e-4) <= 4
            assert not torch.equal(after, before[key])
        else:
            assert torch.equal(after, before[key])


def test_student_and_reference_are_the_input_s_own_memory_and_the_reference_stands_still(text_world: World) -> None:
    own, steps = storages(text_world.original), []

    def look(model: nn.Module, original: nn.Module) -> None:
        steps.append(1)
        for one in (model, original):
            weights = {name: p for name, p in one.named_parameters() if "lora_" not in name}
            assert {p.data_ptr() for p in weights.values()} == {p.data_ptr() for p in text_world.original.parameters()}
            assert not any(p.requires_grad for p in weights.values())
        changes = {p.data_ptr() for name, p in model.named_parameters() if "lora_" in name}
        assert not changes & storages(original)
        assert not any(p.requires_grad for p in original.parameters())
        assert not any(module.training for module in original.modules())
        batch = text_world.task.collate([text_world.request.forget[i] for i in range(4)])
        with torch.no_grad():
            answers = [text_world.task.rows(one, batch).logits for one in (original, text_world.original)]
        assert torch.equal(*answers), "the reference is the model without the change"

    result = watched(text_world, look)
    assert len(steps) == 2, "ten examples are two batches"
    assert not own & storages(result)


def test_the_input_keeps_weights_flags_and_modes(text_world: World) -> None:
    model = copy.deepcopy(text_world.original).train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    before, flags = copy.deepcopy(model), [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    w = text_world
    result = LoRA(base=Watching()).unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    assert same(model, before)
    assert [p.requires_grad for p in model.parameters()] == flags == [p.requires_grad for p in result.parameters()]
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not hasattr(result, "peft_config")
    assert type(result) is type(model)
    assert result.lm_head.weight is result.model.embed_tokens.weight, "what was tied stays tied"  # type: ignore[union-attr]
    assert not same(result, before)


@pytest.mark.parametrize("kind", ["samples", "text"])
def test_null_moves_nothing_statistics_neither(kind: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(f"{kind}_world")
    assert same(unlearned(world, LoRA(base=Null(NPO()))), world.original)
    if kind == "samples":
        assert batchnorms(world.original)


def test_the_same_seed_gives_the_same_change_and_another_another(text_world: World) -> None:
    method = LoRA(dropout=0.2, base=Watching())
    first = unlearned(text_world, method)
    with torch.random.fork_rng():
        torch.manual_seed(77)
        assert same(first, unlearned(text_world, method))
    assert not same(first, unlearned(text_world, method, seed=1))
    assert not same(first, unlearned(text_world, replace(method, dropout=0.0)))


def world_of(model: nn.Module, text_world: World) -> World:
    return World(text_world.request, text_world.task, model, ())


def test_weights_in_bfloat16_with_changes_in_float32(text_world: World) -> None:
    model = copy.deepcopy(text_world.original).to(torch.bfloat16)

    def look(student: nn.Module, _: nn.Module) -> None:
        for name, p in student.named_parameters():
            assert p.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)

    result = watched(world_of(model, text_world), look)
    assert {p.dtype for p in result.parameters()} == {torch.bfloat16}
    assert all(bool(torch.isfinite(p).all()) for p in result.parameters())
    assert not same(result, model)


def checkpointed(model: nn.Module) -> int:
    return sum(getattr(layer, "gradient_checkpointing", False) for layer in model.model.layers)  # type: ignore


def test_checkpointing_gives_the_same_weights_and_is_the_student_s_alone(text_world: World) -> None:
    seen = []

    def look(student: nn.Module, original: nn.Module) -> None:
        seen.append((checkpointed(student), checkpointed(original)))

    plain, spared = watched(text_world, look), watched(text_world, look, checkpointing=True)
    assert same(plain, spared)
    assert seen == [(0, 0)] * 2 + [(2, 0)] * 2, "two layers of the student's, none of the reference's"
    assert checkpointed(text_world.original) == checkpointed(spared) == 0


def test_target_is_names_or_how_they_end(text_world: World) -> None:
    before = model.state_dict()
    changed = {name.rsplit(".", 2)[-2] for name in before if not torch.equal(before[name], after[name])}
    assert "in_proj" in changed
    assert "out_proj" not in changed
    with pytest.raises(BadInput, match="got 'out_proj'"):
        replace(method, target=("out_proj",)).unlearn(model, Job(text_world.request, text_world.task, seeded(0), CPU))
