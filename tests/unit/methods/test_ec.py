"""By hand and by law: EC, its auxiliary modules, and that nothing of them is left."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_contrastive_unlearning import by_hand, made_pairs
from tests.unit.methods.test_distillation import FROZEN, QUICK, same, statistics, whole
from tests.unit.training.test_loop import Killed
from tests.worlds import CPU, World, facts, small_llama, word_tokenizer
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods import ec
from unrecall.methods.base import GradientMethod, Null, Phase
from unrecall.methods.cf_k import CFk
from unrecall.methods.ec import EC, Auxiliary, ECAround, Reading, stages, sum_over_layers, weights
from unrecall.methods.eu_k import EUk
from unrecall.methods.finetune import Finetune
from unrecall.methods.grad_ascent import GradAscent
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.ngd import NGD
from unrecall.methods.salun import SalUn
from unrecall.methods.scrub import SCRUB
from unrecall.methods.ssiuu import SSIUU
from unrecall.models.observe import accuracy
from unrecall.nn.hooks import batchnorms
from unrecall.tasks import CausalLM
from unrecall.training.job import Job
from unrecall.training.loop import Batches, Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

STILL = Fit(lr=0.0, weight_decay=0.0, epochs=2, batch_size=16, batchnorm="frozen")


@dataclass(frozen=True)
class Watching(GradientMethod):
    """Nothing of its own to minimise; shows the student to whoever looks, at every step."""

    title: ClassVar[str] = "Watching"

    look: Any = None
    fit: Fit = STILL

    def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
        request, task = job.request, job.task

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            self.look(model, batches)
            return 0 * task.rows(model, batches["forget"]).losses().mean()

        return [Phase(loss, {"forget": request.forget}, self.fit)]


def unlearned(w: World, method: EC | ECAround, session: Session = CPU, seed: int = 0) -> nn.Module:
    return method.unlearn(w.original, Job(w.request, w.task, seeded(seed), session))


def test_weights_grow_with_depth() -> None:
    assert weights(1) == [1]
    assert weights(2) == pytest.approx([1 / 3, 2 / 3])
    assert weights(4) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_sum_over_layers_by_hand() -> None:
    """Cosines over 0.5 in two dimensions; the second layer says nothing, and counts twice as much."""
    method = EC(temperature=0.5, lambda_ul=2.0, lambda_ce=3.0)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # of retain: -log p is log 4/3 for class 1, log 2 for 0
    forget = [Reading(torch.tensor([[1.0, 0.0]]), logits[:1]), Reading(torch.tensor([[0.0, 1.0]]), logits[:1])]
    retain = [
        Reading(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), logits),
        Reading(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2, 2)),
    ]
    own, other = torch.tensor([0]), torch.tensor([1, 0])
    first = 2 * -(-2 - 2) + 3 * (math.log(4 / 3) + math.log(2)) / 2
    second = 2 * -(0 - 0) + 3 * math.log(2)
    assert sum_over_layers(method, (forget, own), (retain, other)).item() == pytest.approx(first / 3 + second * 2 / 3)


def hidden(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What EC reads of the test network: its normalised convolution, averaged over places, and its hidden layer."""
    first = model[1](model[0](inputs))  # type: ignore[index]
    return [first.mean((2, 3)), model[4](model[3](model[2](first)))]  # type: ignore[index]


def test_the_loss_of_a_step_by_hand(samples_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one batch, so that the first step's loss is that of the original and of the modules after warm-up.

    Alone it is L, and around gradient ascent -CE(f(x_f), y_f) + eta L.
    """
    w, made = samples_world, list[Auxiliary]()

    def make(widths: Sequence[int], classes: int) -> Auxiliary:
        made.append(Auxiliary(widths, classes))
        return made[-1]

    monkeypatch.setattr(ec, "Auxiliary", make)
    once, session = replace(EC.fit, lr=0.0, epochs=1, batch_size=200), Session(device="cpu")
    method = EC(lambda_ul=2.0, lambda_ce=0.5, temperature=0.3)
    ascent = GradAscent(fit=once)
    unlearned(w, replace(method, fit=once), session)
    unlearned(w, ECAround(ascent, lambda_ul=2.0, lambda_ce=0.5, temperature=0.3, eta=0.5), session)
    assert [mlp[0].in_features for mlp in made[0].projections] == [8, 32]  # type: ignore[index]
    alone, around = (erasure(w, auxiliary) for auxiliary in made)
    forget = whole(w.request.forget, w.task)
    own = -F.cross_entropy(w.original(forget["inputs"]), forget["targets"]).item()
    assert session.efforts[1].losses == [pytest.approx(alone, rel=1e-4)]
    assert session.efforts[3].losses == [pytest.approx(own + 0.5 * around, rel=1e-4)]
    assert abs(around) > 0.1


def erasure(w: World, auxiliary: Auxiliary) -> float:
    """L of the original over all of forget and retain, at lambda_ul 2, lambda_ce 0.5 and temperature 0.3."""
    forget, retain = whole(w.request.forget, w.task), whole(w.request.retain, w.task)
    expected = F.cross_entropy(w.original(retain["inputs"]), retain["targets"]).item()
    for depth, (h_f, h_r) in enumerate(
        zip(hidden(w.original, forget["inputs"]), hidden(w.original, retain["inputs"]), strict=True)
    ):
        mlp, head = auxiliary.projections[depth], auxiliary.heads[depth]
        kept = F.cross_entropy(head(F.normalize(mlp(h_r), dim=1)), retain["targets"]).item()
        apart = by_hand(mlp(h_f), forget["targets"], mlp(h_r), retain["targets"], 0.3)
        expected += (depth + 1) / 3 * (2 * apart + 0.5 * kept)
    return expected


def test_warm_up_teaches_the_modules_and_leaves_the_model_as_it_is(samples_world: World) -> None:
    """At learning rate 0 after it, the result is the original bit for bit, frozen or not."""
    w, session = samples_world, Session(device="cpu")
    long = replace(EC.warm_up, epochs=20, lr=1e-2)
    result = unlearned(w, EC(warm_up=long, fit=STILL), session)
    assert same(result, w.original)
    losses = session.efforts[0].losses
    assert losses[-1] < losses[0] - 0.5
    assert losses[0] == pytest.approx(2 * math.log(4), abs=0.3), "two heads that know nothing of four classes"

    def look(model: nn.Module, _: Batches) -> None:
        weights = {name: value for name, value in model.state_dict().items() if ec.BESIDE not in name}
        assert all(torch.equal(value, w.original.state_dict()[name]) for name, value in weights.items())
        seen.append(len(model.state_dict()) - len(weights))

    seen: list[int] = []
    unlearned(w, ECAround(base=Watching(look=look)))
    assert seen == [12] * 4, "weights and biases of three linear layers at two depths, at each of four steps"


def test_nothing_of_the_modules_is_left(samples_world: World) -> None:
    w = samples_world
    model = copy.deepcopy(w.original).train()
    model[0].requires_grad_(False)  # type: ignore[index]
    for method in (EC(), ECAround(base=GradAscent(fit=QUICK)), ECAround(base=CFk(blocks=1, fit=QUICK))):
        result = method.unlearn(model, Job(w.request, w.task, seeded(0), CPU))
        assert list(result.state_dict()) == list(w.original.state_dict())
        assert [name for name, _ in result.named_modules()] == [name for name, _ in w.original.named_modules()]
        assert [p.requires_grad for p in result.parameters()] == [p.requires_grad for p in model.parameters()]
        assert torch.equal(result[0].weight, model[0].weight), "what is frozen is not trained"  # type: ignore[index]
        assert not same(result, model)
    last = ECAround(base=CFk(blocks=1, fit=FROZEN)).unlearn(model, Job(w.request, w.task, seeded(0), CPU))
    assert torch.equal(last[4].weight, model[4].weight), "nor what the base freezes"  # type: ignore[index]
    assert not torch.equal(last[6].weight, model[6].weight)  # type: ignore[index]


@pytest.mark.parametrize("base", [GradAscent(fit=QUICK), GradDiff(fit=QUICK), SCRUB(), SSIUU(base=GradDiff(fit=QUICK))])
def test_around_a_base_with_eta_0_is_the_base(base: GradientMethod, samples_world: World) -> None:
    w = samples_world
    plain = base.unlearn(w.original, Job(w.request, w.task, seeded(3), CPU))
    assert same(unlearned(w, ECAround(base=base, eta=0.0), seed=3), plain)
    assert not same(unlearned(w, ECAround(base=base), seed=3), plain)


def test_extends_every_phase_of_any_base(samples_world: World) -> None:
    w = samples_world
    for base in (SCRUB(), SalUn(), NGD(fit=QUICK), EUk(fit=QUICK), Finetune(fit=QUICK)):
        alone, beside = Session(device="cpu"), Session(device="cpu")
        plain = base.unlearn(w.original, Job(w.request, w.task, seeded(0), alone))
        result = unlearned(w, ECAround(base=base, eta=0.1), beside)
        assert [e.steps for e in beside.efforts[1:]] == [e.steps for e in alone.efforts]
        assert list(result.state_dict()) == list(plain.state_dict())
        for more, less in zip(beside.efforts[1:], alone.efforts, strict=True):
            assert more.passes >= less.passes
            assert more.losses[0] > less.losses[0] or isinstance(base, EUk)  # its new weights are others


def test_the_added_passes_leave_statistics_to_the_base(samples_world: World) -> None:
    w = samples_world
    base = Null(GradAscent(fit=QUICK))
    plain = base.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    added = unlearned(w, ECAround(base=base))
    counts = [[int(norm.num_batches_tracked) for norm in batchnorms(one)] for one in (plain, added)]  # type: ignore[arg-type]
    assert counts[0] == counts[1]
    assert counts[0] != [int(norm.num_batches_tracked) for norm in batchnorms(w.original)]  # type: ignore[arg-type]
    assert all(map(torch.equal, statistics(unlearned(w, EC())), statistics(w.original)))


def cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of features of the same examples."""
    a, b = (one.detach() - one.detach().mean(0) for one in (first, second))
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))


def test_features_of_forget_leave_their_class_and_what_they_were(class_world: World) -> None:
    """More than by the same training without L_UL, and retain stays known."""
    w = class_world
    unseen = whole(w.request.holdout, w.task)["inputs"]
    both = torch.cat((unseen, whole(w.request.retain, w.task)["inputs"]))
    of_class = torch.zeros(len(both), 1)
    of_class[: len(unseen)] = 1

    def told(model: nn.Module) -> float:
        """How far the hidden layer tells unseen examples of the forgotten class from the others."""
        return cka(hidden(model, both)[1], of_class)

    def still(model: nn.Module) -> list[float]:
        """How far each layer shows of forget what it showed before."""
        forget = whole(w.request.forget, w.task)["inputs"]
        return [cka(now, then) for now, then in zip(hidden(model, forget), hidden(w.original, forget), strict=True)]

    recipe = replace(EC.fit, lr=0.01, epochs=15, batch_size=8)
    result, without = (unlearned(w, EC(fit=recipe, lambda_ul=weight)) for weight in (10.0, 0.0))
    assert told(result) < 0.5 * told(without) < 0.5 * told(w.original)
    assert all(now < bare - 0.02 for now, bare in zip(still(result), still(without), strict=True))
    assert accuracy(result, w.task, w.request.forget).mean() < 0.1
    assert accuracy(result, w.task, w.request.retain).mean() > 0.9


def test_killed_and_resumed_gives_the_same_weights(samples_world: World, tmp_path: Path) -> None:
    """The modules are part of what an interrupted run keeps, their optimiser's state too."""
    w, base = samples_world, GradDiff(fit=replace(QUICK, optimizer="adam", lr=1e-3, epochs=4))
    plain = unlearned(w, ECAround(base=base))
    left = [8]

    def dying(model: nn.Module, batches: Batches) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    @dataclass(frozen=True)
    class Mortal(GradientMethod):
        def phases(self, student: nn.Module, original: nn.Module, job: Job) -> Sequence[Phase]:
            request, task, generator = job.request, job.task, job.generator
            (phase,) = base.phases(student, original, Job(request, task, generator))

            def loss(model: nn.Module, batches: Batches) -> Tensor:
                dying(model, batches)
                return phase.loss(model, batches)

            return [replace(phase, loss=loss)]

    session = Session(folder=tmp_path, device="cpu", every=0)
    with pytest.raises(Killed):
        unlearned(w, ECAround(base=Mortal()), session)
    assert list(tmp_path.glob("ec-Mortal-*.ckpt"))
    session = Session(folder=tmp_path, device="cpu", every=0)
    assert same(unlearned(w, ECAround(base=Mortal()), session), plain)
    assert left[0] > -8, "it didn't start anew"
    session.drop_states()
    assert not list(tmp_path.glob("*"))


def tower(depth: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), *(nn.Linear(16, 16) for _ in range(depth)), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("depth", "read"),
    [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (8, [2, 4, 6, 8]), (9, [3, 5, 7, 9]), (13, [4, 7, 10, 13])],
)
def test_reads_the_ends_of_four_parts_of_what_lies_before_the_head(
    depth: int, read: list[int], samples_world: World
) -> None:
    """Nine: a stem and eight residual blocks, read after each pair. Thirteen: a stem and twelve, after each three."""
    items = [samples_world.request.forget[0], samples_world.request.retain[0]]
    found = stages(tower(depth), samples_world.task, items)
    assert found.widths == {str(i): 16 for i in read}
    assert found.classes == 4


def test_reads_the_layers_that_are_named(samples_world: World) -> None:
    items = [samples_world.request.forget[0], samples_world.request.retain[0]]
    found = stages(samples_world.original.eval(), samples_world.task, items, ("2", "5"))
    assert found.widths == {"2": 8, "5": 32}
    assert not same(unlearned(samples_world, EC(layers=("2",))), unlearned(samples_world, EC(layers=("5",))))


def test_of_two_towers_reads_the_one_that_sees_the_examples() -> None:
    """Also where there are as many classes as examples in a look: what reads their names is none of it."""
    model, request, task = made_pairs()
    items = [request.forget[0], request.retain[0]]
    for names in (task.classes, task.classes[:2], task.classes[:1]):
        found = stages(model.eval(), replace(task, classes=names).classified(), items)
        assert found.widths
        assert all(name.startswith("vision_model") for name in found.widths)
        assert set(found.widths.values()) == {32}
    result = EC().unlearn(model, Job(request, task, seeded(0), CPU))
    assert list(result.state_dict()) == list(model.state_dict())
    assert not same(result, model)


def test_refuses_what_it_can_not_read(samples_world: World) -> None:
    w = samples_world
    with pytest.raises(BadInput, match=r"got 'fc'\. Known: 0, 1, 2, 3, 4, 5, 6"):
        unlearned(w, EC(layers=("4", "fc")))
    with pytest.raises(NotSupported, match="got none"):
        EC().unlearn(tower(0), Job(w.request, w.task, seeded(0), CPU))
    idle = tower(2)
    idle[1].register_module("idle", nn.Linear(2, 2))
    with pytest.raises(NotSupported, match=r"got 1\.idle"):
        EC(layers=("2", "1.idle")).unlearn(idle, Job(w.request, w.task, seeded(0), CPU))
    task, data = CausalLM(word_tokenizer(), template=None), facts()
    request = Request(data[:4], data[4:8], data[8:10], data[10:12])
    with pytest.raises(NotSupported, match="class each, got CausalLM"):
        EC().unlearn(small_llama(len(task.tokenizer)), Job(request, task, seeded(0), CPU))
