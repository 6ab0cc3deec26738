"""The one loop: what it computes, and that a kill at any moment leaves a run that ends with the same weights."""

import itertools
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, blobs, network
from unrecall.data.batches import batch_size
from unrecall.data.examples import Absent, Examples
from unrecall.data.request import Request
from unrecall.disk.weights import digest_of, read
from unrecall.errors import BadInput, Diverged, NotSupported
from unrecall.models.observe import accuracy
from unrecall.spec.lines import parse
from unrecall.tasks import Classification
from unrecall.training.job import Job
from unrecall.training.loop import (
    Batches,
    Fit,
    Loss,
    Phase,
    StepState,
    drawing,
    fit,
    loss_on,
    plain_step,
    set_training,
    shuffled_indices,
    total_steps,
)
from unrecall.training.randomness import seeded
from unrecall.training.teacher import frozen_copy
from unrecall.training.terms import Terms, weighted

TASK = Classification()
DATA = blobs(45, 4, 1)
RECIPE = Fit(lr=0.05, epochs=3, batch_size=16)


def classify(model: nn.Module, batches: Batches) -> Tensor:
    return TASK.rows(model, batches["all"]).losses().mean()


def trained(recipe: Fit = RECIPE, seed: int = 0, model: nn.Module | None = None, data: Examples = DATA) -> nn.Module:
    model = network() if model is None else model
    fit(model, TASK, Phase(classify, {"all": data}, recipe), seeded(seed), CPU)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_weights_bit_for_bit_and_another_seed_others() -> None:
    assert same(trained(seed=3), trained(seed=3))
    assert not same(trained(seed=3), trained(seed=4))


@pytest.mark.parametrize(
    ("schedule", "period"), [("constant", None), ("cosine", None), ("cosine", 4), ("exponential", None)]
)
def test_loop_equals_a_bare_one(schedule: str, period: int | None) -> None:
    recipe = Fit(lr=0.05, weight_decay=1e-3, epochs=3, batch_size=16, clip=0.5, schedule=schedule, period=period)  # type: ignore[arg-type]
    seed = int(torch.randint(2**31, (1,), generator=seeded(7)))
    bare = network().train()
    optimizer = torch.optim.SGD(bare.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    inputs, labels = torch.stack([x for x, _ in DATA]), torch.tensor([y for _, y in DATA])
    for step, chosen in enumerate(shuffled_indices("all", len(DATA), recipe, seed, range(9))):
        if schedule == "cosine":
            rate = 0.05 * (1 + math.cos(math.pi * step / (period or 9))) / 2
        else:
            rate = 0.05 * (0.01 ** (step / 9) if schedule == "exponential" else 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        nn.functional.cross_entropy(bare(inputs[chosen]), labels[chosen]).backward()
        nn.utils.clip_grad_norm_(bare.parameters(), 0.5)
        optimizer.step()
    ours = trained(recipe, seed=7)
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, atol=1e-6, rtol=1e-5)
    if schedule == "constant":
        assert same(ours, bare)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_the_rate_rises_from_0_over_the_first_steps_whatever_the_schedule(schedule: str) -> None:
    rates: list[float] = []

    def step(current: StepState) -> Tensor:
        rates.append(current.optimizer.param_groups[0]["lr"])
        return plain_step(current)

    recipe = Fit(lr=0.1, epochs=3, batch_size=16, schedule=schedule, warmup=3)  # type: ignore[arg-type]
    fit(network(), TASK, Phase(classify, {"all": DATA}, recipe, step), seeded(0), CPU)
    falls = {"constant": lambda i: 1.0, "cosine": lambda i: (1 + math.cos(math.pi * i / 9)) / 2}
    fall = falls.get(schedule, lambda i: 0.01 ** (i / 9))
    assert rates == pytest.approx([0.1 * min(1, (i + 1) / 4) * fall(i) for i in range(9)])


@pytest.mark.parametrize("parts", [2, 3, 16, 100])
def test_a_batch_in_parts_gives_the_step_of_the_whole(parts: int) -> None:
    """16 and 13 examples a batch, in parts of one stream that needn't be equal; clipped as a whole."""
    seen: list[int] = []

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        seen.append(batch_size(batches["all"]))
        return classify(model, batches)

    recipe = replace(RECIPE, batchnorm="frozen", clip=0.3)
    whole, model = trained(recipe), network()
    fit(model, TASK, Phase(loss, {"all": DATA}, replace(recipe, accumulate=parts)), seeded(0), CPU)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-6, rtol=1e-5)
    assert not same(model, network())
    assert len(seen) == 3 * (2 * min(parts, 16) + min(parts, 13))
    assert sum(seen) == 3 * 45


def test_the_parts_of_two_streams_go_together_and_what_is_no_mean_counts_once() -> None:
    few, sizes = blobs(8, 4, 2), []

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        sizes.append([batch_size(batch) for batch in batches.values()])
        means = [TASK.rows(model, batch).losses().mean() for batch in batches.values()]
        return -means[0] + 2 * means[1] + 1e-3 * sum(p.square().sum() for p in model.parameters())

    models = []
    for parts in (1, 4):
        models.append(network())
        recipe = replace(RECIPE, batchnorm="frozen", accumulate=parts, steps=2)
        fit(models[-1], TASK, Phase(loss, {"few": few, "all": DATA}, recipe), seeded(0), CPU)
    assert sizes == [[8, 16]] * 2 + [[2, 4]] * 8
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(5, 7), (3, 32), (8, 8), (1, 6)])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("apart", [True, False])
def test_two_streams_of_any_lengths_give_the_step_of_the_whole_in_parts(
    sizes: tuple[int, int], parts: int, apart: bool
) -> None:
    """Each term has its own stream's shares; one loss of both streams is cut where both can be."""
    terms = Terms({"forget": weighted(-1.0, loss_on("forget", TASK)), "retain": loss_on("retain", TASK)})
    batches = {name: TASK.collate(DATA[:n]) for name, n in zip(terms.terms, sizes, strict=True)}
    gradients = []
    for accumulate in (1, parts):
        model = network().eval()
        loss: Loss = terms if apart else terms.__call__
        state = StepState(model, batches, loss, torch.optim.SGD(model.parameters(), 0.1), None, accumulate=accumulate)
        value = state.differentiate()
        gradients.append([value, *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("policy", ["train", "frozen"])
def test_batchnorm_policy(policy: str) -> None:
    before = network()
    norm = before[1]
    after = trained(replace(RECIPE, batchnorm=policy), model=network())[1]  # type: ignore[index, arg-type]
    assert torch.equal(norm.running_mean, after.running_mean) == (policy == "frozen")
    assert torch.equal(norm.running_var, after.running_var) == (policy == "frozen")
    assert not torch.equal(norm.weight, after.weight), "the affine weights train either way"


def test_modules_without_trainable_parameters_stay_in_eval_mode() -> None:
    model = network()
    model[:3].requires_grad_(False)
    set_training(model, RECIPE)
    assert [module.training for module in model] == [False, False, True, True, True, True, True]
    assert same(trained(model=model)[:3], network()[:3])
    with pytest.raises(BadInput, match=r"at least one trainable parameter, got none\. Unfreeze them: for p in"):
        trained(model=network().requires_grad_(False))


def test_clip_bounds_the_gradient() -> None:
    norms: list[float] = []

    def step(current: StepState) -> Tensor:
        loss = current.differentiate()
        norms.append(float(nn.utils.get_total_norm([p.grad for p in current.model.parameters()])))
        current.optimizer.step()
        return loss

    phase = Phase(lambda m, b: 50 * classify(m, b), {"all": DATA}, replace(RECIPE, clip=0.25, lr=1e-3), step)
    fit(network(), TASK, phase, seeded(0), CPU)
    assert len(norms) == 9
    assert max(norms) <= 0.25 + 1e-5
    fit(network(), TASK, replace(phase, fit=replace(phase.fit, clip=None)), seeded(0), CPU)
    assert max(norms) > 1


def test_gradients_of_a_norm_that_no_number_holds_end_the_training() -> None:
    """Each is finite, and the sum of their squares isn't: clipped by that they would all be 0, to the end."""
    phase = Phase(lambda m, b: 1e25 * classify(m, b), {"all": DATA}, replace(RECIPE, clip=0.25))
    with pytest.raises(Diverged, match="expected finite losses and weights"):
        fit(network(), TASK, phase, seeded(0), CPU)


def test_until_stops_and_without_it_the_loop_goes_on() -> None:
    forget = [item for item in DATA if item[1] == 0]
    recipe = Fit(lr=0.05, epochs=40, batch_size=16, until=0.5, check_every=2)
    model = trained(replace(RECIPE, epochs=10))
    assert accuracy(model, TASK, forget).mean() > 0.5

    def ascend(model: nn.Module, batches: Batches) -> Tensor:
        return -TASK.rows(model, batches["forget"]).losses().mean()

    phase = Phase(ascend, {"forget": forget}, replace(recipe, clip=1.0))
    effort = fit(model, TASK, phase, seeded(0), CPU)
    assert effort.steps < total_steps(phase)
    assert accuracy(model, TASK, forget).mean() <= 0.5
    with pytest.raises(BadInput, match="until only where forget is trained on"):
        fit(network(), TASK, Phase(classify, {"all": DATA}, recipe), seeded(0), CPU)


@pytest.mark.parametrize(("steps", "expected"), [(None, 9), (2, 2), (100, 9)])
def test_steps_cap_epochs(steps: int | None, expected: int) -> None:
    recipe = replace(RECIPE, steps=steps)
    effort = fit(network(), TASK, Phase(classify, {"all": DATA}, recipe), seeded(0), CPU)
    assert effort.steps == expected == len(effort.losses)
    assert effort.passes == (sum([16, 16, 13] * 3) if expected == 9 else 32)
    assert effort.seconds > 0


def test_lead_is_seen_once_an_epoch_and_the_others_cycle() -> None:
    seen: dict[str, list[list[int]]] = {"lead": [], "other": []}

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        for name, batch in batches.items():
            seen[name].append(batch["index"].tolist())
        return classify(model, {"all": batches["lead"]})

    recipe = Fit(lr=0.01, epochs=2, batch_size=10)
    fit(network(), TASK, Phase(loss, {"lead": DATA, "other": DATA[:15]}, recipe), seeded(0), CPU)
    assert [len(group) for group in seen["lead"]] == [10, 10, 10, 10, 5] * 2
    first, second = seen["lead"][:5], seen["lead"][5:]
    assert sorted(i for group in first for i in group) == list(range(45))
    assert sorted(i for group in second for i in group) == list(range(45))
    assert first != second, "shuffled anew every time round"
    assert [len(group) for group in seen["other"]] == [10, 5] * 5
    assert Counter(i for group in seen["other"] for i in group) == dict.fromkeys(range(15), 5)


@pytest.mark.parametrize(
    ("length", "batch_size", "expected"),
    [(33, 16, [16, 16]), (32, 16, [16, 16]), (34, 16, [16, 16, 2]), (1, 16, [1]), (3, 1, [1, 1, 1])],
)
def test_a_last_group_of_one_is_left_out(length: int, batch_size: int, expected: list[int]) -> None:
    recipe = Fit(batch_size=batch_size, epochs=2)
    phase = Phase(classify, {"all": DATA[:length]}, recipe)
    assert total_steps(phase) == 2 * len(expected)
    found = list(shuffled_indices("all", length, recipe, 0, range(total_steps(phase))))
    assert [len(group) for group in found] == expected * 2
    assert len({i for group in found[: len(expected)] for i in group}) == sum(expected)
    assert (
        list(shuffled_indices("all", length, recipe, 0, range(len(expected), 2 * len(expected))))
        == found[len(expected) :]
    )


class Killed(Exception):
    """What a kill looks like from the inside."""


def noisy(killed_at: int | None, generator: torch.Generator) -> tuple[Phase, nn.Module]:
    """Noise from the generator in the loss, dropout in the model: whatever could go astray on resuming."""
    taken, ends = itertools.count(), {killed_at}  # a number itself would be part of the key

    def step(current: StepState) -> Tensor:
        if next(taken) in ends:
            raise Killed
        return plain_step(current)

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        inputs = batches["all"]["inputs"]
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        moved = TASK.with_inputs(batches["all"], inputs + noise)
        return TASK.rows(model, moved).losses().mean() + 0.1 * classify(model, {"all": batches["beside"]})

    model = network()
    model.insert(4, nn.Dropout(0.3))
    return Phase(loss, {"all": DATA, "beside": DATA[:20]}, RECIPE, step), model


def test_weights_that_blow_up_are_noticed_where_the_loss_was_still_finite() -> None:
    def ruin(current: StepState) -> Tensor:
        loss = plain_step(current)
        with torch.no_grad():
            next(current.model.parameters()).fill_(math.inf)
        return loss

    for recipe in (Fit(epochs=1, batch_size=64), Fit(epochs=9, batch_size=16, until=0.9, check_every=1)):
        phase = Phase(lambda m, b: classify(m, {"all": b["forget"]}), {"forget": DATA}, recipe, ruin)
        with pytest.raises(Diverged, match="at step 0"):
            fit(network(), TASK, phase, seeded(0), CPU)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_learning_rate_zero_leaves_weights_bit_equal(optimizer: str) -> None:
    recipe = replace(RECIPE, lr=0.0, weight_decay=0.1, optimizer=optimizer)  # type: ignore[arg-type]
    before, after = network(), trained(recipe, model=network())
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(old, new), name
    assert not torch.equal(before[1].running_mean, after[1].running_mean), "statistics are no weights"


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    phase, model = noisy(None, generator := seeded(5))
    fit(model, TASK, phase, generator, CPU)
    accuracy(model, TASK, DATA)
    assert torch.equal(torch.rand(3), expected)


def test_the_global_seed_decides_nothing() -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        phase, model = noisy(None, generator := seeded(5))
        fit(model, TASK, phase, generator, CPU)
        results.append(digest_of(model))
    assert results[0] == results[1]


def test_frozen_copy_shares_nothing_with_the_model() -> None:
    model = network()
    teacher = frozen_copy(model)
    before = digest_of(teacher)
    trained(model=model)
    assert digest_of(teacher) == before != digest_of(model)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def several_passes() -> nn.Module:
    """Several forward passes before one backward pass, as RURK has them, a part of which no example may be missing.

    Batches of 5 and 3, which two processes couldn't halve; BatchNorm statistics and dropout, which hang on the whole
    of a batch; a term over pairs of examples, and one that is no mean over them.
    """

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        rows = TASK.rows(model, batches["all"])
        alike = torch.cdist(rows.logits, rows.logits).mean()
        beside = classify(model, {"all": batches["beside"]})
        return rows.losses().mean() + 0.1 * alike + torch.sigmoid(beside)

    model = nn.Sequential(network(), nn.Dropout(0.1))
    streams = {"all": DATA[:40], "beside": DATA[:13]}
    fit(model, TASK, Phase(loss, streams, replace(RECIPE, batch_size=5)), seeded(0), CPU)
    return model


def gradients_of_five() -> dict[str, Tensor]:
    """The gradient of the mean over five examples, as the loop computes it."""
    kept: dict[str, Tensor] = {}

    def keeping(current: StepState) -> Tensor:
        loss = plain_step(current)
        kept.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return loss

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-1, 1, 64).reshape(4, 16))
        model[1].bias.zero_()
    fit(model, TASK, Phase(classify, {"all": DATA[:5]}, replace(RECIPE, epochs=1), keeping), seeded(0), CPU)
    return kept


TOGETHER = """
import os, sys
from pathlib import Path
import torch.distributed
from safetensors.torch import save_file
from tests.unit.training.test_loop import gradients_of_five, several_passes
from unrecall.disk.weights import save
folder, rank = sys.argv[1], int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
save(several_passes(), Path(folder) / f"{rank}.safetensors")
save_file(gradients_of_five(), Path(folder) / f"{rank}-gradients.safetensors")
torch.distributed.destroy_process_group()
"""


def test_a_loss_of_whole_batches_is_not_taken_in_parts() -> None:
    for line in ("roka", "jit", "contrastive_unlearning", "spotter"):
        method, parts = parse(f"{line}:fit.accumulate=2", "methods"), (DATA[:9], DATA[9:])
        with pytest.raises(BadInput, match=r"fit.accumulate: expected 1 .* got 2"):
            method.unlearn(network(), Job(Request(*parts, Absent("none"), Absent("none")), TASK, seeded(0), CPU))


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    """The processes meet at a file, not at a port that somebody else may have taken."""
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path)],
            env={**os.environ, **settings, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    for expected, name in ((several_passes().state_dict(), ""), (gradients_of_five(), "-gradients")):
        for rank in range(2):
            found = read(tmp_path / f"{rank}{name}.safetensors")
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_five_is_that_of_their_mean() -> None:
    """Worked out by hand: the mean over the examples of (softmax - one-hot) times the input."""
    inputs, labels = torch.stack([x.flatten() for x, _ in DATA[:5]]), torch.tensor([y for _, y in DATA[:5]])
    weight = torch.linspace(-1, 1, 64).reshape(4, 16)
    wrong = torch.softmax(inputs @ weight.T, 1) - nn.functional.one_hot(labels, 4)
    torch.testing.assert_close(gradients_of_five()["1.weight"], wrong.T @ inputs / 5)


def test_a_rise_longer_than_a_cosine_s_period_never_exceeds_the_rate() -> None:
    recipe, rates = Fit(lr=1.0, momentum=0.0, schedule="cosine", period=3, warmup=8, steps=12, epochs=12), []

    def step(current: StepState) -> Tensor:
        rates.append(current.optimizer.param_groups[0]["lr"])
        return plain_step(current)

    fit(network(), TASK, Phase(loss_on("all", TASK), {"all": DATA}, recipe, step), seeded(0), CPU)
    due = [min(1, (i + 1) / 9) * (1 + math.cos(math.pi * i / 3)) / 2 for i in range(12)]
    assert rates == pytest.approx(due)


def test_one_example_where_batchnorm_trains_is_refused_in_words() -> None:
    with pytest.raises(
        NotSupported, match=r"two examples or more where BatchNorm trains, got one\. Set fit\.batchnorm"
    ):
        fit(flat(affine=True), TASK, Phase(loss_on("all", TASK), {"all": DATA[:1]}, Fit(epochs=1)), seeded(0), CPU)


def flat(*, affine: bool) -> nn.Sequential:
    """Two layers, each with a norm behind it."""
    norms = [nn.BatchNorm1d(8, affine=affine) for _ in range(2)]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), norms[0], nn.ReLU(), nn.Linear(8, 8), norms[1], nn.Linear(8, 4)
    )


@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_without_weights_goes_with_the_layer_before_it(affine: bool) -> None:
    model = flat(affine=affine)
    for module in model[:3]:
        module.requires_grad_(False)
    set_training(model, RECIPE)
    assert [model[i].training for i in (2, 5)] == [False, True]


@pytest.mark.parametrize(
    ("count", "examples", "recipe", "steps"),
    [
        (300, 100, Fit(batch_size=32), 12),  # three epochs of 32, 32, 32 and 4
        (320, 100, Fit(batch_size=32), 13),
        (320, 20, Fit(batch_size=32), 16),  # batches of 20
        (320, 1000, Fit(batch_size=32), 10),  # a part of an epoch
        (320, 100, Fit(batch_size=32, epochs=3), 38),
        (320, 100, Fit(batch_size=32, steps=4), 4),
        (1, 100, Fit(batch_size=32), 1),
    ],
)
def test_how_many_steps_so_many_examples_take_by_hand(count: int, examples: int, recipe: Fit, steps: int) -> None:
    data = list(range(examples))
    lasting = drawing(recipe, count, data)
    assert total_steps(Phase(lambda *_: None, {"retain": data}, lasting)) == steps  # type: ignore[arg-type, return-value]
