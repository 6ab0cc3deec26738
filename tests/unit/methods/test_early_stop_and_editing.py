"""By hand and by law: passes that end early, RMU, task vectors and WHP."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.worlds import CPU, World, small_mixtures, without_retain
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod, Method
from unrecall.methods.rmu import RMU, last_matrices, unit_vector
from unrecall.methods.task_vector import TaskVector
from unrecall.methods.whp import WHP, generic
from unrecall.models.chosen_layers import layers
from unrecall.models.observe import accuracy, batches, observe
from unrecall.nn.hooks import batchnorms, until
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

QUICK = Fit(optimizer="adamw", lr=1e-3, weight_decay=0.0, batch_size=4, epochs=2)


def whole(examples: Examples, task: Task) -> Batch:
    return next(batches(examples, task, len(examples)))


def nudged(model: nn.Module, by: float = 0.02) -> nn.Module:
    """A copy with every weight a little elsewhere."""
    student, generator = copy.deepcopy(model), seeded(5)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=by)
    return student.eval()


def only(method: GradientMethod, world: World, student: nn.Module) -> Phase:
    (phase,) = method.phases(student, frozen_copy(world.original), Job(world.request, world.task, seeded(0)))
    return phase


def run(method: Method, world: World, model: nn.Module | None = None) -> nn.Module:
    return method.unlearn(model or world.original, Job(world.request, world.task, seeded(0), CPU))


def moved(before: nn.Module, after: nn.Module) -> list[str]:
    old = dict(before.named_parameters())
    return [name for name, p in after.named_parameters() if not torch.equal(p, old[name])]


def confidence(model: nn.Module, world: World) -> float:
    return float(observe(model, world.task, world.request.forget).confidence.mean())


def share_right(model: nn.Module, world: World) -> float:
    return float(accuracy(model, world.task, world.request.retain).mean())


def llama(count: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"vocab_size": 66, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**sizes, **ends, num_hidden_layers=count))  # type: ignore[no-any-return]


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """How often a module is called."""
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    handle = module.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def hidden_states(model: Any, inputs: Tensor) -> Tensor:
    """What the first layer of a Transformers model gives out, by its own account."""
    found: Tensor = model(input_ids=inputs, output_hidden_states=True).hidden_states[1]
    return found


def how_many_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


# A pass that ends early.


def test_a_pass_ends_after_the_module(text_world: World) -> None:
    """Its output and gradients are the whole pass's; what comes after it is never called, and no hook is left."""
    model: Any = copy.deepcopy(text_world.original).train()
    batch = whole(text_world.request.forget, text_world.task)
    first, second = model.model.layers
    truth = hidden_states(model, batch["tokens"])
    hooks = how_many_hooks(model)
    truth.square().sum().backward()
    wished = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with counted(first) as reached, counted(second) as beyond, counted(model.lm_head) as head:
        found = until(first, lambda: text_world.task.rows(model, batch))
    assert (reached, beyond, head) == ([1], [0], [0])
    assert found is not None
    assert torch.equal(found, truth)
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == wished.keys()
    assert all(torch.equal(p.grad, wished[name]) for name, p in model.named_parameters() if name in wished)
    assert how_many_hooks(model) == hooks
    assert model.training


def test_a_pass_that_breaks_or_never_comes_by_leaves_no_hook() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="mat1"):
        until(model[1], lambda: model(torch.ones(1, 2)))
    assert until(model[1], lambda: model[0](torch.ones(1, 2))) is None
    assert how_many_hooks(model) == 0


def test_passes_within_passes_end_where_they_were_asked_to() -> None:
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), torch.ones(1, 2)
    inner: list[Tensor | None] = []

    def both() -> None:
        inner.append(until(model[2], lambda: model(x)))
        raise AssertionError("the outer module comes first")

    outer = until(model[0], both)
    assert not inner
    assert outer is not None
    assert torch.equal(outer, model[0](x))


class Checkpointed(nn.Module):
    """Two blocks, each called inside a checkpoint, so that its hooks run there too."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)) for _ in range(2))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


def test_inside_a_checkpoint_gradients_are_the_same_or_there_are_none() -> None:
    model, x = Checkpointed(reentrant=False), torch.rand(4, 3, generator=seeded(0))
    model.blocks[1](model.blocks[0](x)).square().sum().backward()
    wished = [p.grad for p in model.parameters()]
    model.zero_grad()
    found = until(model.blocks[1], lambda: model(x))
    assert found is not None
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(p.grad, w) for p, w in zip(model.parameters(), wished, strict=True))  # type: ignore[arg-type]
    reentrant = Checkpointed(reentrant=True)
    found = until(reentrant.blocks[1], lambda: reentrant(x.requires_grad_()))
    assert found is not None
    assert not found.requires_grad


# RMU.


def test_rmu_vector() -> None:
    """Of length 1, no entry negative, the same for the same seed: by hand for two entries."""
    u = unit_vector(2, seeded(3))
    a, b = torch.rand(2, generator=seeded(3)).tolist()
    assert u.tolist() == pytest.approx([a / (a * a + b * b) ** 0.5, b / (a * a + b * b) ** 0.5])
    big = unit_vector(512, seeded(0))
    assert big.norm().item() == pytest.approx(1, rel=1e-5)
    assert bool((big >= 0).all())
    assert torch.equal(big, unit_vector(512, seeded(0)))
    assert not torch.equal(big, unit_vector(512, seeded(1)))


def test_rmu_by_hand_on_text(text_world: World) -> None:
    """Example by example from the model's own hidden states: all that it was given, and none of much padding."""
    w = text_world
    few = {"forget": [w.request.forget[i] for i in range(4)], "retain": [w.request.retain[i] for i in range(4)]}
    batch = {name: w.task.collate(items) for name, items in few.items()}
    for part in batch.values():
        part["tokens"], part["targets"] = (
            F.pad(part["tokens"], (0, 9), value=7),
            F.pad(part["targets"], (0, 9), value=-100),
        )
    u = torch.rand(32, generator=seeded(0))
    wished = 20 * u / u.norm()

    @torch.no_grad()
    def states(model: nn.Module, name: str) -> Tensor:
        return torch.cat([hidden_states(model, w.task.collate([item])["tokens"])[0] for item in few[name]])

    for student in (nudged(w.original), copy.deepcopy(w.original).eval()):
        forget = (states(student, "forget") - wished).square().mean()
        retain = (states(student, "retain") - states(w.original, "retain")).square().mean()
        loss = only(RMU(alpha=300.0), w, student).loss(student, batch)
        assert loss.item() == pytest.approx(float(forget + 300 * retain), rel=1e-4)
    assert retain.item() == 0, "nothing is paid for where the model has not moved"


def test_rmu_by_hand_on_pictures(samples_world: World) -> None:
    """Channels are the d of [n, c, h, w], and a block's norm belongs to it."""
    w = samples_world
    batch = {"forget": whole(w.request.forget, w.task), "retain": whole(w.request.retain, w.task)}
    for layer, end, u in (
        (0, 2, torch.rand(8, 1, 1, generator=seeded(0))),
        (1, 5, torch.rand(32, generator=seeded(0))),
    ):
        student: Any = nudged(w.original)
        before: Any = w.original
        with torch.no_grad():
            forget = (student[:end](batch["forget"]["inputs"]) - 5 * u / u.norm()).square().mean()
            kept = batch["retain"]["inputs"]
            retain = (student[:end](kept) - before[:end](kept)).square().mean()
        loss = only(RMU(layer=layer, c=5.0, alpha=2.0), w, student).loss(student, batch)
        assert loss.item() == pytest.approx(float(forget + 2 * retain), rel=1e-4)
        assert retain.item() > 0


@pytest.mark.parametrize(("count", "steered"), [(9, 7), (8, 7), (7, 3), (2, 0)])
def test_rmu_layers_are_the_papers_or_the_middle(text_world: World, count: int, steered: int) -> None:
    """The embeddings and the head are no layers; those after the one that is steered are never called."""
    model: Any = llama(count)
    batch = whole(text_world.request.forget, text_world.task)
    assert [modules[0] for modules in layers(text_world.task, model)] == list(model.model.layers)
    small = World(text_world.request, text_world.task, model, ())
    student = copy.deepcopy(model)
    phase = only(RMU(), small, student)
    with ExitStack() as stack:
        calls = [stack.enter_context(counted(layer)) for layer in student.model.layers]
        phase.loss(student, {"forget": batch, "retain": batch})
    assert [n for (n,) in calls] == [2 if i <= steered else 0 for i in range(count)]
    names = [name for name, p in student.named_parameters() if p.requires_grad]
    assert names == [f"model.layers.{i}.mlp.down_proj.weight" for i in range(max(0, steered - 2), steered + 1)]


def other_models() -> list[tuple[nn.Module, str]]:
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    ends = {"bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        neox = GPTNeoXConfig(
            vocab_size=66, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **ends
        )
        gpt2 = GPT2Config(vocab_size=66, n_embd=16, n_layer=2, n_head=2, **ends)
        return [
            (GPTNeoXForCausalLM(neox), "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"),
            (GPT2LMHeadModel(gpt2), "transformer.h.0.mlp.c_proj.weight"),
        ]


def test_rmu_moves_the_down_projections_and_nothing_else(text_world: World, samples_world: World) -> None:
    assert moved(text_world.original, run(RMU(fit=QUICK), text_world)) == ["model.layers.0.mlp.down_proj.weight"]
    everything = run(RMU(layer=1, update="all", fit=QUICK), text_world)
    layered = [name for name, _ in text_world.original.named_parameters() if ".layers." in name]
    assert moved(text_world.original, everything) == layered
    for model, name in other_models():
        assert moved(model, run(RMU(fit=QUICK), text_world, model)) == [name]
    assert moved(samples_world.original, run(RMU(fit=QUICK), samples_world)) == ["0.weight", "4.weight"]


def test_rmu_moves_the_experts_down_projections_and_never_the_router(text_world: World) -> None:
    mixtral, *qwen = small_mixtures(len(text_world.task.tokenizer))  # type: ignore[attr-defined]
    own = "model.layers.0.mlp.experts.down_proj"
    assert moved(mixtral, run(RMU(fit=QUICK), text_world, mixtral)) == [own]
    for model in qwen:
        names = [name for name, _ in model.named_parameters() if name.startswith("model.layers.0")]
        shared = [name for name in names if name.endswith("shared_expert.down_proj.weight")]
        assert moved(model, run(RMU(fit=QUICK), text_world, model)) == [own, *shared]


def test_rmu_finds_the_last_matrix_of_each_expert_where_they_stand_apart() -> None:
    def expert() -> nn.Module:
        return nn.ModuleDict({"up_proj": nn.Linear(4, 8), "down_proj": nn.Linear(8, 4)})

    parts = {"experts": nn.ModuleList([expert(), expert()]), "shared_experts": expert(), "gate": nn.Linear(4, 2)}
    layer = nn.ModuleDict(parts)
    names = {id(p): name for name, p in layer.named_parameters()}
    found = [names[id(p)] for p in last_matrices([layer])]
    assert found == [f"{place}.down_proj.weight" for place in ("experts.0", "experts.1", "shared_experts")]


def test_rmu_reads_retain_only_where_it_counts(text_world: World) -> None:
    w = text_world
    result = RMU(alpha=0.0, fit=QUICK).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    assert moved(w.original, result)


def test_rmu_refuses_what_it_cannot_do(text_world: World) -> None:
    with pytest.raises(BadInput, match=r"RMU: expected layer to be at most 1 .*, got 2\."):
        run(RMU(layer=2), text_world)
    model: Any = copy.deepcopy(text_world.original)
    model.model.layers[0].requires_grad_(False)
    with pytest.raises(BadInput, match=r"RMU: expected trainable weights"):
        run(RMU(layer=0), text_world, model)
    assert moved(text_world.original, run(RMU(layer=1, fit=QUICK), text_world, model)) == [
        "model.layers.1.mlp.down_proj.weight"
    ]


class Wrapped(nn.Module):
    """Layers that are called inside a checkpoint which records no gradients there."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).requires_grad_()
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=True) if self.training else layer(x)
        out: Tensor = self.head(x)
        return out


def test_rmu_says_when_a_checkpoint_hides_the_gradients(samples_world: World) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wrapped()
    with pytest.raises(NotSupported, match="use_reentrant=False"):
        run(RMU(layer=1, fit=QUICK), samples_world, model)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_rmu_is_the_same_with_checkpointing(text_world: World) -> None:
    model: Any = copy.deepcopy(text_world.original)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    plain, saved = run(RMU(layer=1, fit=QUICK), text_world), run(RMU(layer=1, fit=QUICK), text_world, model)
    assert moved(plain, saved) == []


def test_rmu_steers_forget_and_holds_retain(text_world: World) -> None:
    """Forget's activations turn towards u and its answers are lost; retain's stay known."""
    w = text_world
    method = RMU(c=200.0, alpha=100.0, fit=replace(QUICK, lr=1e-2, epochs=30))
    result = run(method, w)
    u = unit_vector(32, seeded(0))

    batch = whole(w.request.forget, w.task)

    @torch.no_grad()
    def cosine(model: nn.Module) -> float:
        states = hidden_states(model, batch["tokens"])[w.task.positions(batch)]
        return float(F.cosine_similarity(states, u, dim=1).mean())

    assert cosine(result) > cosine(w.original) + 0.1
    assert confidence(result, w) < confidence(w.original, w) - 0.3
    assert share_right(result, w) > 0.6


# Task vectors.


def of_forget(world: World, recipe: Fit) -> Phase:
    """More training on forget."""
    return Phase(lambda m, b: world.task.rows(m, b["forget"]).losses().mean(), {"forget": world.request.forget}, recipe)


def test_task_vector_by_hand(text_world: World) -> None:
    w, session = text_world, Session(device="cpu")
    further = copy.deepcopy(w.original)
    fit(further, w.task, of_forget(w, QUICK), seeded(0), CPU)
    method = TaskVector(alpha=2.5, fit=QUICK)
    result = method.unlearn(w.original, Job(without_retain(w), w.task, seeded(0), session))
    triples = zip(w.original.parameters(), further.parameters(), result.parameters(), strict=True)
    for theta, theta_further, theta_new in triples:
        assert torch.allclose(theta_new, 3.5 * theta - 2.5 * theta_further, atol=1e-6)
    assert moved(w.original, further) == moved(w.original, result)
    (effort,) = session.efforts
    assert (effort.steps, effort.passes) == (6, 20)


def test_the_vector_is_as_long_whoever_asks_how_much_is_forgotten(text_world: World) -> None:
    """What is trained for it learns forget: to stop where that is forgotten would make it ten times as long."""
    w, session = text_world, Session(device="cpu")
    job = Job(without_retain(w), w.task, seeded(0), session)
    for enough in (None, lambda _: False):
        TaskVector(fit=QUICK).unlearn(w.original, job.until(enough))
    assert [effort.steps for effort in session.efforts] == [6, 6]


def test_task_vector_keeps_statistics(samples_world: World) -> None:
    """Also where the copy that learns on gathers its own."""
    method = TaskVector(fit=replace(QUICK, batchnorm="train"))
    result = run(method, samples_world)
    pairs = zip(batchnorms(result), batchnorms(samples_world.original), strict=True)
    assert all(torch.equal(a, b) for new, old in pairs for a, b in zip(new.buffers(), old.buffers(), strict=True))


def test_task_vector_forgets_as_it_goes_further(text_world: World) -> None:
    recipe = replace(QUICK, epochs=5)
    falls = [confidence(run(TaskVector(alpha=a, fit=recipe), text_world), text_world) for a in (0.01, 1.0, 4.0)]
    assert confidence(text_world.original, text_world) > falls[0] > falls[1] > falls[2]
    assert falls[2] < 0.5


# WHP.


def test_generic_logits_by_hand() -> None:
    """Only what rose is taken off, five times as much as it rose."""
    base, more = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[2.5, 0.5, 0.1]])
    assert generic(base, more, 5.0).tolist() == [pytest.approx([-0.5, 1.0, -0.5])]
    assert generic(base, base, 5.0).tolist() == base.tolist()


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_whp_by_hand(text_world: World, samples_world: World, targets: Any) -> None:
    for w, recipe in ((text_world, replace(QUICK, lr=1e-2)), (samples_world, QUICK)):
        student, further, batch = nudged(w.original), nudged(w.original), whole(w.request.forget, w.task)
        method = WHP(alpha=2.0, targets=targets, reinforce=recipe)
        (phase,) = method.phases(student, frozen_copy(w.original), Job(without_retain(w), w.task, seeded(0)))
        assert moved(nudged(w.original), student) == [], "a copy was trained, not the student"
        fit(further, w.task, of_forget(w, recipe), seeded(0), CPU)
        with torch.no_grad():
            old, new, own = (w.task.rows(m, batch) for m in (w.original, further, student))
        losses: list[list[float]] = [[] for _ in range(own.examples)]
        for a, b, z, i in zip(old.logits, new.logits, own.logits, own.example.tolist(), strict=True):
            v = torch.tensor([x - 2 * max(0.0, y - x) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
            cost = -z.log_softmax(0)
            losses[i].append(float(cost[v.argmax()] if targets == "hard" else v.softmax(0) @ cost))
        wished = sum(sum(one) / len(one) for one in losses) / len(losses)
        assert phase.loss(student, {"forget": batch}).item() == pytest.approx(wished, rel=1e-4)


def test_whp_forgets(text_world: World) -> None:
    """Where reinforcement raises what is true by enough, something else is learned in its place."""
    w = text_world
    recipe = replace(QUICK, lr=1e-2, epochs=5)
    result = WHP(reinforce=recipe, fit=recipe).unlearn(w.original, Job(without_retain(w), w.task, seeded(0), CPU))
    assert confidence(result, w) < confidence(w.original, w) - 0.1


def test_whp_shares_what_is_frozen_with_its_copy(text_world: World) -> None:
    model: Any = copy.deepcopy(text_world.original)
    model.requires_grad_(False)
    model.model.layers[1].requires_grad_(True)
    names = moved(model, run(WHP(reinforce=QUICK, fit=QUICK), text_world, model))
    assert names == [name for name, p in model.named_parameters() if p.requires_grad]
