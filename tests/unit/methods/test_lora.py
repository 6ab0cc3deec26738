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
from tests.unit.methods.test_distillation import whole
from tests.worlds import CPU, World, small_llama, small_mixtures, word_tokenizer
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
    changed = {}
    for target in (("q_proj", "v_proj"), ("layers.1.mlp.up_proj",)):
        result = unlearned(text_world, LoRA(target=target, base=Watching())).state_dict()
        before = text_world.original.state_dict()
        changed[target] = {key for key, value in result.items() if not torch.equal(value, before[key])}
    assert changed["q_proj", "v_proj"] == {
        f"model.layers.{i}.self_attn.{name}.weight" for i in (0, 1) for name in ("q_proj", "v_proj")
    }
    assert changed[("layers.1.mlp.up_proj",)] == {"model.layers.1.mlp.up_proj.weight"}


def test_frozen_layers_stay(text_world: World) -> None:
    model = copy.deepcopy(text_world.original)
    model.requires_grad_(False)
    with pytest.raises(NotSupported, match="LoRA: expected linear layers that may be trained, got none"):
        unlearned(world_of(model, text_world), LoRA())
    model.get_submodule("model.layers.1.mlp").requires_grad_(True)
    result = unlearned(world_of(model, text_world), LoRA(base=Watching())).state_dict()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, result[key])}
    assert changed == {f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}


@pytest.mark.parametrize(
    ("wanted", "hint"), [("q_prj", "Did you mean 'q_proj'"), ("lm_head", "Known: "), ("0", "Known")]
)
def test_a_target_that_is_no_layer_is_refused(wanted: str, hint: str, text_world: World) -> None:
    with pytest.raises(BadInput, match=f"LoRA: expected target to be linear layers.*got '{wanted}'. {hint}"):
        unlearned(text_world, LoRA(target=(wanted,)))


def test_the_head_is_left_out_where_there_are_other_layers(samples_world: World) -> None:
    result = unlearned(samples_world, LoRA(base=Watching()))
    before = samples_world.original.state_dict()
    changed = {key for key, value in result.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"4.weight"}, "6 is the head"


def test_without_other_layers_the_head_changes_and_without_any_nothing_can(samples_world: World) -> None:
    w = samples_world
    alone = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    result = LoRA(base=Watching()).unlearn(alone, Job(w.request, w.task, seeded(0), CPU))
    assert not torch.equal(result[1].weight, alone[1].weight)  # type: ignore[index]
    convolution = nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten())
    with pytest.raises(NotSupported, match="LoRA: expected linear layers that may be trained, got none"):
        LoRA().unlearn(convolution, Job(w.request, Classification(), seeded(0), CPU))


def test_gpt2_s_transposed_layers_change_too(text_world: World) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(text_world.task.tokenizer), **sizes)).eval()  # type: ignore[attr-defined]
    kept = {}

    def look(student: nn.Module, _: nn.Module) -> None:
        layer = student.get_submodule("transformer.h.0.attn.c_attn")
        kept["change"] = layer.lora_B["default"].weight, layer.lora_A["default"].weight  # type: ignore[index]

    result = watched(world_of(model, text_world), look, alpha=4.0)
    b, a = kept["change"]
    name = "transformer.h.0.attn.c_attn.weight"
    moved = result.state_dict()[name] - model.state_dict()[name]
    assert moved.shape == (32, 96)
    torch.testing.assert_close(moved, (b @ a).T.detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("place", range(3))
def test_the_experts_of_a_mixture_change_too(place: int, text_world: World) -> None:
    """What was trained beside them is what is added to them; the router stays."""
    model = small_mixtures(len(text_world.task.tokenizer))[place].eval()  # type: ignore[attr-defined]
    world, kept = world_of(model, text_world), {}

    def look(student: nn.Module, _: nn.Module) -> None:
        kept["student"] = student

    result = watched(world, look)
    before = model.state_dict()
    changed = {name for name, weight in result.state_dict().items() if not torch.equal(weight, before[name])}
    matrices = {name for name in before if ".layers." in name and "norm" not in name and ".bias" not in name}
    routers = {name for name in before if name.endswith("gate.weight")}
    assert changed == matrices - routers
    batch = whole(world.request.forget, world.task)
    with torch.no_grad():
        expected = world.task.rows(kept["student"].eval(), batch).logits
        torch.testing.assert_close(world.task.rows(result, batch).logits, expected, atol=1e-4, rtol=1e-3)
    named = watched(world, look, target=("down_proj",))
    differ = {name for name, weight in named.state_dict().items() if not torch.equal(weight, before[name])}
    assert differ == {name for name in matrices if "down_proj" in name}
    with pytest.raises(BadInput, match=r"expected dropout to be 0 where experts are changed, got 0\.1"):
        watched(world, look, dropout=0.1)


SHARED = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
DEEPSEEK = {"first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "n_group": 1}
DEEPSEEK |= {"n_routed_experts": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1, "topk_group": 1}
MIXTURES: dict[str, dict[str, Any]] = {
    "DeepseekV3": {**SHARED, **DEEPSEEK},
    "HunYuanMoEV1": {**SHARED, "num_experts": 4, "moe_topk": 2, "head_dim": 16},
    "Phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "JetMoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 16},
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_in_mixtures_of_other_kinds_every_matrix_changes_and_no_router(kind: str, text_world: World) -> None:
    import transformers as library

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 2}
    heads = {} if kind == "JetMoe" else {"num_attention_heads": 2}  # it counts its own
    config = getattr(library, f"{kind}Config")(
        vocab_size=len(text_world.task.tokenizer),  # type: ignore[attr-defined]
        **{**sizes, **heads, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **MIXTURES[kind]},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(library, f"{kind}ForCausalLM")(config).eval()
    result = watched(world_of(model, text_world), lambda *_: None)
    before = model.state_dict()
    changed = {name for name, weight in result.state_dict().items() if not torch.equal(weight, before[name])}
    matrices = {name for name, v in before.items() if ".layers." in name and v.ndim > 1}
    assert changed == {name for name in matrices if not {"gate", "router"} & {*name.split(".")}}


@pytest.mark.parametrize("base", [Finetune(), SalUn(), SSIUU(), RMU()], ids=lambda base: base.title)
def test_bases_that_look_weights_up_by_name_work_inside(base: GradientMethod, text_world: World) -> None:
    before = copy.deepcopy(text_world.original)
    result = unlearned(text_world, LoRA(r=2, base=base))
    assert not same(result, text_world.original)
    assert same(before, text_world.original)


@dataclass(frozen=True)
class Freeing(Watching):
    """Frees weights that the student came with frozen."""

    title: ClassVar[str] = "Freeing"

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        request, task, generator = job.request, job.task, job.generator
        student.requires_grad_(True)
        return super().phases(student, original, Job(request, task, generator))


def test_bases_that_write_weights_are_refused_before_they_do(text_world: World) -> None:
    before = copy.deepcopy(text_world.original)
    with pytest.raises(NotSupported, match="LoRA: expected a base that only trains, got EUk"):
        unlearned(text_world, LoRA(base=EUk()))
    with pytest.raises(NotSupported, match="LoRA: expected a base that frees no weights, got Freeing"):
        unlearned(text_world, LoRA(base=Freeing()))
    assert same(before, text_world.original)


def test_what_lora_can_not_do_is_said(text_world: World, samples_world: World) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    adapted = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), copy.deepcopy(text_world.original))
    with pytest.raises(NotSupported, match="LoRA: expected a model without adapters, got one with them"):
        unlearned(world_of(adapted, text_world), LoRA())
    with pytest.raises(NotSupported, match="expected a Transformers model, got Sequential"):
        unlearned(samples_world, LoRA(checkpointing=True))


def test_spec_strength_and_core_are_the_base_s() -> None:
    method = parse("lora(npo:lr=1e-3,epochs=2):r=4,alpha=8,target=q_proj+v_proj,checkpointing=true", "methods")
    assert isinstance(method, LoRA)
    assert (method.r, method.alpha, method.target, method.checkpointing) == (4, 8.0, ("q_proj", "v_proj"), True)
    assert parse(show(method), "methods") == method
    assert method.innermost() == NPO(fit=replace(NPO().fit, lr=1e-3, epochs=2))
    assert method.scaled(2.0).innermost() == NPO(fit=replace(NPO().fit, lr=2e-3, epochs=2))
    for bad in ("lora:r=0", "lora:alpha=0", "lora:dropout=1"):
        with pytest.raises(BadInput, match=f"LoRA: expected {bad[5:].split('=')[0]} to be"):
            parse(bad, "methods")


def test_no_warning_is_needed() -> None:
    """With a tokenizer that names no padding, and a head that is tied."""
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    model = small_llama(len(tokenizer)).eval()
    data = [{"prompt": f"what is the job of {name}", "answer": "baker"} for name in ("ann", "bob", "cid", "dan")]
    request = Request(data[:1], data[1:2], data[2:3], data[3:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoRA(base=Watching()).unlearn(model, Job(request, CausalLM(tokenizer), seeded(0), CPU))


@pytest.mark.parametrize("kind", ["Mamba", "Mamba2"])
def test_mamba_s_layers_change_but_out_proj(kind: str, text_world: World) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"num_heads": 4, "head_dim": 16, "n_groups": 1} if kind == "Mamba2" else {}
    task: Any = text_world.task
    sizes |= {"vocab_size": len(task.tokenizer), "hidden_size": 32, "state_size": 4, "num_hidden_layers": 1}
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    method, job = LoRA(r=2, base=Watching()), Job(text_world.request, task, seeded(0), CPU)
    before, after = model.state_dict(), method.unlearn(model, job).state_dict()
    changed = {name.rsplit(".", 2)[-2] for name in before if not torch.equal(before[name], after[name])}
    assert "in_proj" in changed
    assert "out_proj" not in changed
    with pytest.raises(BadInput, match="got 'out_proj'"):
        replace(method, target=("out_proj",)).unlearn(model, job)


def test_statistics_without_weights_are_held_too(samples_world: World) -> None:
    """Else the change is trained beside statistics that the result hasn't: it would be another model."""
    w = samples_world
    bare = copy.deepcopy(w.original)
    for norm in batchnorms(bare):
        norm.affine, norm.weight, norm.bias = False, None, None  # type: ignore[assignment]
    views: list[nn.Module] = []

    def look(student: nn.Module, _: nn.Module) -> None:
        views[:] = [student]

    base = Watching(look, fit=replace(Watching.fit, batchnorm="train"))
    result = LoRA(base=base).unlearn(bare, Job(w.request, w.task, seeded(0), CPU))
    x = torch.stack([w.request.retain[i][0] for i in range(8)])
    assert torch.allclose(views[0].eval()(x), result(x), atol=1e-4)
    assert not torch.allclose(bare.eval()(x), result(x), atol=1e-2)
