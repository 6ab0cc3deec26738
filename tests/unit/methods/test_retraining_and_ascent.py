"""The formulas of the retraining and ascent families against arithmetic by hand, and RURK's limits."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from tests.worlds import CPU, World, network, small_clip, small_llama
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods import rurk
from unrecall.methods.base import GradientMethod
from unrecall.methods.cf_k import CFk
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.ngd import NGD
from unrecall.methods.random_label import RandomLabel
from unrecall.methods.retrain import Retrain
from unrecall.methods.rurk import RURK
from unrecall.methods.scrub import SCRUB
from unrecall.models.perturb import any_classes, other_classes
from unrecall.tasks import Classification
from unrecall.training.fresh import reinitialise
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit, Phase, StepState, fit
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.teacher import frozen_copy

# A world of two classes in which a model's inputs are its logits: retain is believed at 3/4, forget at 2/3.

WIDE = Classification(bounds=(-5.0, 5.0))
TINY = Request(
    forget=[(torch.tensor([log(2), 0.0]), 0)],
    retain=[(torch.tensor([0.0, log(3)]), 1)],
    holdout=[(torch.tensor([0.1, 0.0]), 0)],
    test=[(torch.tensor([0.2, 0.0]), 0)],
)
CE_RETAIN, CE_FORGET, CE_FLIPPED = log(4 / 3), log(3 / 2), log(3)


def linear(scale: float) -> nn.Module:
    """Logits are `scale` times the inputs."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = scale * torch.eye(2)
    return model


def batch_of(task: Classification, examples: Examples, n: int) -> Batch:
    return {**task.collate([examples[i] for i in range(n)]), "index": torch.arange(n)}


def tiny_losses(method: GradientMethod, teacher: float = 1.0, seed: int = 0) -> list[float]:
    """The loss of each phase in the tiny world."""
    phases = method.phases(linear(1.0), frozen_copy(linear(teacher)), Job(TINY, WIDE, seeded(seed)))
    batches = {"forget": batch_of(WIDE, TINY.forget, 1), "retain": batch_of(WIDE, TINY.retain, 1)}
    return [float(p.loss(linear(1.0), {key: batches[key] for key in p.streams}).detach()) for p in phases]


CORNER = log(1 + exp(log(2) - 2 * 0.3))  # CE to class 1 at (ln 2 - r, r), r = 10 tau, where targeted attacks end


BY_HAND: dict[str, tuple[GradientMethod, float]] = {
    "finetune": (Finetune(), CE_RETAIN),
    "retrain": (Retrain(), CE_RETAIN),
    "ngd": (NGD(), CE_RETAIN),
    "cf-k": (CFk(blocks=1), CE_RETAIN),
    "eu-k": (EUk(blocks=1), CE_RETAIN),
    "grad-ascent": (GradAscent(), -CE_FORGET),
    "neggrad-rurk": (NegGradPlus(beta=0.5), CE_RETAIN - 0.5 * CE_FORGET),
    "neggrad-scrub": (NegGradPlus(beta=1 / 19, form="scrub"), 0.95 * CE_RETAIN - 0.05 * CE_FORGET),
    "random-label": (RandomLabel(exclude_true=True, retain_weight=0.5), CE_FLIPPED + 0.5 * CE_RETAIN),
    "random-label-alone": (RandomLabel(exclude_true=True, retain_weight=0.0), CE_FLIPPED),
    "rurk-clean": (RURK(tau=0.0, lambda_f=0.2, lambda_a=0.3, v=3), CE_RETAIN - 0.5 * CE_FORGET),
    "rurk-sign": (RURK(tau=0.0, lambda_f=0.0, lambda_a=0.3, attack="fgsm"), CE_RETAIN + 0.3 * CE_FLIPPED),
    "rurk-fgsm": (RURK(lambda_f=0.0, lambda_a=0.3, attack="fgsm"), CE_RETAIN + 0.3 * CORNER),
    "rurk-pgd": (RURK(lambda_f=0.2, lambda_a=0.3, attack="pgd", v=2), CE_RETAIN - 0.2 * CE_FORGET + 0.3 * CORNER),
}


@pytest.mark.parametrize(("method", "expected"), BY_HAND.values(), ids=list(BY_HAND))
def test_loss_by_hand(method: GradientMethod, expected: float) -> None:
    assert tiny_losses(method) == [pytest.approx(expected, abs=1e-6)]


def test_rurk_gaussian_by_hand() -> None:
    noise = torch.randn(3, 2, generator=seeded(5)).double()
    copies = (torch.tensor([log(2), 0.0]).double() + 0.5 * noise).clamp(-5, 5)
    pushed = sum(log(exp(float(a)) + exp(float(b))) - float(a) for a, b in copies) / 3
    method = RURK(tau=0.05, v=3, lambda_f=0.2, lambda_a=0.3)
    assert tiny_losses(method, seed=5) == [pytest.approx(CE_RETAIN - 0.2 * CE_FORGET - 0.3 * pushed, abs=1e-6)]


def test_random_labels_are_uniform_and_drawn_anew() -> None:
    truth, generator = torch.zeros(6000, dtype=torch.long), seeded(3)
    first, second = any_classes(truth, 3, generator), any_classes(truth, 3, generator)
    assert not torch.equal(first, second)
    assert torch.bincount(first, minlength=3).tolist() == pytest.approx([2000] * 3, abs=150)
    losses = [tiny_losses(RandomLabel(retain_weight=0.0), seed=s)[0] for s in range(12)]
    expected = [min((CE_FORGET, CE_FLIPPED), key=lambda value: abs(value - loss)) for loss in losses]
    assert losses == pytest.approx(expected, abs=5e-6)
    assert set(expected) == {CE_FORGET, CE_FLIPPED}


# SCRUB.


def divergence(p: float, q: float) -> float:
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))


def test_scrub_by_hand() -> None:
    """The teacher's logits are twice the student's; at T = 2 it believes 2/3 on forget and 3/4 on retain."""
    forget, retain = (2 / 3, sqrt(2) / (1 + sqrt(2))), (3 / 4, sqrt(3) / (1 + sqrt(3)))
    method = SCRUB(alpha=0.5, gamma=0.7, temperature=2.0, max_epochs=1, fit=Fit(epochs=2))
    maximum, minimum, last = tiny_losses(method, teacher=2.0)
    assert maximum == pytest.approx(-4 * divergence(*forget), abs=1e-6)
    assert maximum != pytest.approx(-4 * divergence(*reversed(forget)), abs=1e-4), "the direction matters"
    assert minimum == pytest.approx(0.5 * 4 * divergence(*retain) + 0.7 * CE_RETAIN, abs=1e-6)
    assert last == minimum


def test_scrub_takes_turns(samples_world: World) -> None:
    for method, order in [(SCRUB(), "frfrr"), (SCRUB(max_epochs=0), "rrr"), (SCRUB(max_epochs=9), "frfrfr")]:
        _, phases = prepare(method, samples_world)
        assert "".join(key[0] for p in phases for key in p.streams) == order
        assert {(*p.streams, p.fit.batch_size) for p in phases} <= {("forget", 64), ("retain", 128)}
        assert all(p.fit.epochs == 1 for p in phases)


def test_scrub_teacher_is_not_the_student(samples_world: World) -> None:
    """At the start, in eval mode, the KL and its gradient are 0; once the student moves the teacher stays behind."""
    (student, (phase, *_)), batches = prepare(SCRUB(), samples_world), batches_of(samples_world)
    student.eval()
    start = phase.loss(student, batches)
    assert float(start.detach()) == pytest.approx(0, abs=1e-5)
    assert max(float(g.abs().max()) for g in torch.autograd.grad(start, list(student.parameters()))) < 1e-4
    for parameter in student.parameters():
        parameter.data.mul_(1.1)
    assert float(phase.loss(student, batches).detach()) < -1e-3
    fresh = copy.deepcopy(samples_world.original).train()
    assert float(phase.loss(fresh, batches).detach()) < -1e-3, "BatchNorm in train mode breaks the tie"


def prepare(method: GradientMethod, world: World, seed: int = 0) -> tuple[nn.Module, Sequence[Phase]]:
    student = copy.deepcopy(world.original)
    return student, method.phases(student, frozen_copy(student), Job(world.request, world.task, seeded(seed)))


def batches_of(world: World) -> dict[str, Batch]:
    task, request = world.task, world.request
    return {"retain": batch_of(task, request.retain, 32), "forget": batch_of(task, request.forget, 20)}


def gradient(method: GradientMethod, world: World, seed: int = 0) -> Tensor:
    """The gradient of the method's loss on fixed batches, BatchNorm in eval mode, as one vector."""
    student, (phase,) = prepare(method, world, seed)
    loss = phase.loss(student.eval(), batches_of(world))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])


def weights(method: GradientMethod, world: World) -> list[Tensor]:
    result = method.unlearn(world.original, Job(world.request, world.task, seeded(4), CPU))
    return [parameter.detach() for parameter in result.parameters()]


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_methods_without_their_terms_are_simpler_ones(samples_world: World) -> None:
    """Bit for bit; only BatchNorm statistics, which train mode does not use, saw more. Not so jointly."""
    recipe = RURK().fit
    finetuned = weights(Finetune(recipe), samples_world)
    ascended = weights(NegGradPlus(beta=0.2, fit=recipe), samples_world)
    assert equal(weights(RURK(lambda_f=0.0, lambda_a=0.0, passes="separate"), samples_world), finetuned)
    assert equal(weights(NGD(sigma=0.0, fit=recipe), samples_world), finetuned)
    assert equal(weights(RURK(lambda_f=0.2, lambda_a=0.0, passes="separate"), samples_world), ascended)
    assert not equal(finetuned, ascended)


def test_limits_of_gradients(samples_world: World) -> None:
    """RURK without perturbation is NegGrad+ of both weights; NegGrad+ without retain is ascent."""
    found = gradient(RURK(tau=0.0, v=1, lambda_f=0.2, lambda_a=0.3), samples_world)
    torch.testing.assert_close(found, gradient(NegGradPlus(beta=0.5), samples_world), rtol=1e-4, atol=1e-6)
    plain = gradient(Finetune(), samples_world)
    assert not torch.allclose(found, plain, atol=1e-4)
    rest = gradient(NegGradPlus(beta=1.0), samples_world) - plain
    torch.testing.assert_close(rest, gradient(GradAscent(), samples_world), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_rurk_pushes_towards_other_classes(attack: str, samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Y' is never Y, and a step down the perturbed term makes it likelier."""
    wished: list[Tensor] = []

    def spy(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
        wished.append(other_classes(targets, classes, generator))
        assert bool((wished[-1] != targets).all())
        return wished[-1]

    monkeypatch.setattr(rurk, "other_classes", spy)
    method = RURK(attack=attack, lambda_f=0.0, lambda_a=1.0)  # type: ignore[arg-type]
    pushed = gradient(method, samples_world) - gradient(Finetune(), samples_world)
    batch = batches_of(samples_world)["forget"]
    student = copy.deepcopy(samples_world.original)
    before = believed(student, batch, wished[0])  # the first draw: each gradient starts from the same seed
    vector = nn.utils.parameters_to_vector(student.parameters()) - 0.01 * pushed / pushed.norm()
    nn.utils.vector_to_parameters(vector, student.parameters())
    assert believed(student, batch, wished[0]) > before


def believed(model: nn.Module, batch: Batch, classes: Tensor) -> float:
    return float(model(batch["inputs"]).detach().log_softmax(1).gather(1, classes[:, None]).mean())


def test_rurk_copies_stay_within_bounds(samples_world: World) -> None:
    student, (phase,) = prepare(RURK(tau=2.0, v=3, passes="separate"), samples_world)
    seen: list[Tensor] = []
    handle = student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    phase.loss(student, batches_of(samples_world))
    handle.remove()
    assert [len(x) for x in seen] == [32, 20, 60], "retain, forget and copies in three passes"
    assert float(seen[2].min()) == 0.0
    assert float(seen[2].max()) == 1.0


def test_clip_bounds_the_step(samples_world: World) -> None:
    bare = Fit(lr=1.0, momentum=0.0, weight_decay=0.0, clip=1e-3, steps=1)
    vector = nn.utils.parameters_to_vector
    moved = vector(weights(RURK(fit=bare), samples_world)) - vector(samples_world.original.parameters())
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-2)


def test_forget_cycles_beside_retain(samples_world: World) -> None:
    """20 forget examples in batches of 16 and 4, retain in batches of 16: nobody waits, everybody gets a current."""
    student, (phase,) = prepare(RURK(fit=Fit(epochs=2, batch_size=16)), samples_world)
    drawn: dict[str, list[int]] = {"retain": [], "forget": []}

    def note(model: nn.Module, batches: Batches) -> Tensor:
        for key, batch in batches.items():
            drawn[key] += batch["index"].tolist()
        return phase.loss(model, batches)

    effort = fit(student, samples_world.task, replace(phase, loss=note), seeded(0), CPU)
    assert effort.steps == 18
    assert sorted(drawn["retain"]) == sorted([*range(140)] * 2)
    assert sorted(drawn["forget"]) == sorted([*range(20)] * 9)
    assert drawn["forget"][:20] != drawn["forget"][20:40], "a fresh shuffle each time round"


# Noise, frozen parts and fresh starts.


def test_ngd_noise(samples_world: World) -> None:
    """Without a gradient a step is -lr * sigma * N(0, I), drawn anew; clipping does not touch it."""
    student, (phase,) = prepare(NGD(), samples_world)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    def nothing(model: nn.Module, batches: Batches) -> Tensor:
        return sum((0 * p).sum() for p in model.parameters())  # type: ignore[return-value]

    moves = []
    for _ in range(4):
        before = nn.utils.parameters_to_vector(student.parameters())
        phase.step(StepState(student, {}, nothing, optimizer, 1e-6))
        moves.append((nn.utils.parameters_to_vector(student.parameters()) - before).detach())
    stacked = torch.stack(moves)
    assert float(stacked.std()) == pytest.approx(0.1 * 0.03, rel=0.03)
    assert abs(float(stacked.mean())) < 1e-4
    assert abs(float(torch.corrcoef(stacked[:2])[0, 1])) < 0.06


@pytest.mark.parametrize("kind", [EUk, CFk])
def test_frozen_blocks_stay(kind: type[EUk] | type[CFk], samples_world: World) -> None:
    """Blocks of the small network: convolution with its BatchNorm, hidden layer, head."""
    w = samples_world
    result = kind(blocks=2).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before, after = w.original.state_dict(), result.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"4.weight", "4.bias", "6.weight", "6.bias"}
    assert "1.running_mean" in before, "the frozen BatchNorm has statistics that could have moved"
    with pytest.raises(BadInput, match="blocks to be at most 3"):
        kind(blocks=4).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_eu_k_starts_from_fresh_blocks(samples_world: World) -> None:
    still = Fit(lr=0.0, steps=1)
    known = weights(CFk(blocks=1, fit=still), samples_world)
    assert equal(known, list(samples_world.original.parameters()))
    heads = torch.stack([known[-2].flatten(), weights(EUk(blocks=1, fit=still), samples_world)[-2].flatten()])
    assert abs(float(torch.corrcoef(heads)[0, 1])) < 0.3


def test_retrain_remembers_nothing(samples_world: World) -> None:
    """Whatever the weights and statistics were before, the same seed leads to the same model."""
    w, method = samples_world, Retrain(fit=Fit(epochs=1))
    pair = w.original, network(4, seed=123)
    first, second = (method.unlearn(m, Job(w.request, w.task, seeded(0), CPU)).state_dict() for m in pair)
    assert all(torch.equal(first[key], second[key]) for key in first)


def vision_transformer_within(_: int, seed: int) -> nn.Module:
    """A Transformers model inside a module of the user's, as for models that return more than logits."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    with own_randomness(seed):
        return nn.Sequential(ViTForImageClassification(ViTConfig(image_size=32, patch_size=4, num_labels=20, **sizes)))


@pytest.mark.parametrize("build", [small_clip, small_llama, vision_transformer_within])
def test_fresh_weights_are_as_large_as_those_of_a_new_model(build: Callable[[int, int], nn.Module]) -> None:
    """Layer by layer: CLIP's attention, embeddings and projections each start at a size of their own."""
    new, again = build(60, 1).requires_grad_(False), build(60, 2).requires_grad_(False)
    for value in again.parameters():
        value.add_(9)
    reinitialise(again, seeded(0))
    for (name, a), b in zip(new.named_parameters(), again.parameters(), strict=True):
        if a.numel() >= 500:
            assert 0.8 < float(b.std() / a.std()) < 1.25, name
            assert abs(float(b.mean())) < float(a.std()) / 4, name


class Own(nn.Module):
    """A layer of the user's with a start of its own, and a value that nobody gives another."""

    def __init__(self, position: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        if position:
            self.position = nn.Parameter(torch.ones(4))

    def _init_weights(self) -> None:
        nn.init.ones_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def test_a_start_of_the_user_s_own_is_not_taken_for_transformers(samples_world: World) -> None:
    model = nn.Sequential(Own(), nn.Linear(4, 2))
    before = model[0].layer.weight.detach().clone()
    reinitialise(model, seeded(0))
    assert not torch.equal(model[0].layer.weight, before)
    with pytest.raises(NotSupported, match="expected Own to have reset_parameters"):
        reinitialise(nn.Sequential(Own(position=True)), seeded(0))
    within = vision_transformer_within(0, 1)
    within[0].classifier = Own(position=True)  # type: ignore[index]
    with pytest.raises(NotSupported, match="expected Own to have reset_parameters"):
        reinitialise(within, seeded(0))


class ScaleNorm(nn.Module):
    """A norm of the user's, whose gain has a name of its own and no start."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True) * self.scale


class Gated(nn.Linear):
    """A linear layer with a weight more than its `reset_parameters` knows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gate = nn.Parameter(torch.ones(outputs))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("layer", [ScaleNorm, lambda: Gated(4, 4), lambda: weight_norm(nn.Linear(4, 4))])
def test_what_no_start_writes_is_refused_and_not_kept_as_it_was_trained(layer: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer(), nn.Linear(4, 2))
    with pytest.raises(NotSupported, match="to have reset_parameters"):
        reinitialise(model, seeded(0))


def test_layers_of_a_model_start_as_the_whole_model_does() -> None:
    """Gemma's norms add one to their weights, which start at 0; its linear layers at a deviation of 0.02."""
    from transformers import GemmaConfig, GemmaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = GemmaForCausalLM(GemmaConfig(vocab_size=20, intermediate_size=64, head_dim=16, **sizes))
    for value in model.requires_grad_(False).parameters():
        value.add_(1)
    last = model.model.layers[-1]
    reinitialise(model, seeded(0), [last])
    assert not last.input_layernorm.weight.any()
    assert float(last.self_attn.q_proj.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert bool((model.model.layers[0].input_layernorm.weight == 1).all()), "the others stay"
