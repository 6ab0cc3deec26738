"""By hand: the losses of methods made for language models, on rows written down here; and that they forget text."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from tests.worlds import CPU, NAMES, TOWNS, World, small_llama, without_retain, word_tokenizer
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import GradientMethod, Method
from unrecall.methods.ce_u import CEU, beyond, ce_u_loss
from unrecall.methods.dpo import DPO
from unrecall.methods.grad_diff import GradDiff
from unrecall.methods.npo import NPO, npo_loss
from unrecall.methods.satimp import SatImp, satimp_loss
from unrecall.methods.simnpo import SimNPO, simnpo_loss
from unrecall.methods.task_vector import TaskVector
from unrecall.methods.undial import UNDIAL, undial_loss
from unrecall.methods.wga import WGA, wga_loss
from unrecall.models.observe import accuracy, batches, observe
from unrecall.nn.functional import nll
from unrecall.spec.lines import parse, show
from unrecall.tasks import CausalLM
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Textual
from unrecall.training.job import Job
from unrecall.training.loop import Phase
from unrecall.training.preferences import dpo_loss
from unrecall.training.randomness import seeded
from unrecall.training.refusals import REFUSALS
from unrecall.training.teacher import frozen_copy

# An example of three rows and one of two; targets have .5, .6, .8 (together .24) and .25, .2 (together .05).
SAID = [[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25], [0.7, 0.2, 0.1]]
TARGETS = [0, 1, 2, 0, 1]
P = (0.5, 0.6, 0.8, 0.25, 0.2)


def rows(
    said: list[list[float]] = SAID, targets: list[int] = TARGETS, example: tuple[int, ...] = (0, 0, 0, 1, 1)
) -> Rows:
    """Rows with given probabilities; a constant is added to the logits, which softmax does not see."""
    logits = (torch.tensor(said, dtype=torch.float64).log() + 0.7).requires_grad_(True)
    return Rows(logits, torch.tensor(targets), torch.tensor(example), max(example) + 1)


def losses_of(*probabilities: float) -> Tensor:
    """Negative log-likelihoods `[examples]`."""
    return -torch.tensor(probabilities, dtype=torch.float64).log()


def gradient(loss: Callable[[Rows], Tensor], of: Rows) -> Tensor:
    return torch.autograd.grad(loss(of), of.logits)[0]


def towards_target() -> Tensor:
    """The gradient of each row's log p: onehot - p."""
    return torch.eye(3, dtype=torch.float64)[TARGETS] - torch.tensor(SAID, dtype=torch.float64)


# NPO.


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_npo_by_hand(beta: float) -> None:
    """-(2 / beta) log sigmoid(-beta log r) = (2 / beta) log(1 + r^beta), r = p / p_0 of the whole answer."""
    expected = 2 / beta * (math.log(1 + 0.5**beta) + math.log(1 + 1.0**beta)) / 2
    assert npo_loss(rows(), losses_of(0.48, 0.05), beta).item() == pytest.approx(expected)


def test_npo_becomes_gradient_ascent_on_the_sum() -> None:
    """The gradient is 2 r^beta / (1 + r^beta) times that of the summed log p: in the limit, once."""
    given = rows()
    ascent = gradient(lambda r: -r.summed(nll(r.logits, r.targets)).mean(), given)
    assert torch.allclose(ascent, towards_target() / 2)
    apart = [
        (gradient(lambda r, b=beta: npo_loss(r, losses_of(0.48, 0.1), b), given) - ascent).abs().max().item()  # type: ignore[misc]
        for beta in (1.0, 0.1, 0.01, 1e-4)
    ]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.05
    assert apart[-1] < 1e-4
    assert apart[2] == pytest.approx(apart[1] / 10, rel=0.1)


# SimNPO.


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (2.5, 1.0)])
def test_simnpo_by_hand(beta: float, delta: float) -> None:
    """-log sigmoid(beta (CE - delta)) = log(1 + e^(beta delta) q^beta), q the geometric mean of an answer's p."""
    means = (0.24 ** (1 / 3), 0.05 ** (1 / 2))
    expected = 2 / beta * sum(math.log(1 + math.exp(beta * delta) * q**beta) for q in means) / 2
    assert simnpo_loss(rows(), beta, delta).item() == pytest.approx(expected)


def test_simnpo_takes_length_out_and_npo_does_not() -> None:
    once = rows()
    twice = rows(SAID[:3] * 2 + SAID[3:] * 2, TARGETS[:3] * 2 + TARGETS[3:] * 2, (0,) * 6 + (1,) * 4)
    assert simnpo_loss(twice, 4.5, 0.5).item() == pytest.approx(simnpo_loss(once, 4.5, 0.5).item())
    before = losses_of(0.48, 0.1)
    assert npo_loss(twice, 2 * before, 1.0).item() != pytest.approx(npo_loss(once, before, 1.0).item(), rel=0.05)


# DPO.


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_by_hand(beta: float) -> None:
    """log(1 + (r_unwanted / r_wanted)^beta): ratios to the original of .5 and 1 for truths, 2 and .4 for refusals."""
    refusals = rows([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.2, 0.4, 0.4]], [0, 1, 0], (0, 1, 1))  # .5 and .4 * .2
    expected = 2 / beta * (math.log(1 + (0.5 / 2) ** beta) + math.log(1 + (1 / 0.4) ** beta)) / 2
    found = dpo_loss(refusals, rows(), losses_of(0.25, 0.2), losses_of(0.48, 0.05), beta)
    assert found.item() == pytest.approx(expected)


def test_dpo_raises_the_refusal_and_lowers_the_truth() -> None:
    truth, refusal = rows(), rows()
    loss = dpo_loss(refusal, truth, losses_of(0.24, 0.05), losses_of(0.24, 0.05), 0.1)
    up, down = torch.autograd.grad(loss, (refusal.logits, truth.logits))
    assert torch.allclose(down, towards_target() / 2), "at the start with the size of NPO's, which is ascent's"
    assert torch.allclose(up, -down)


def only(method: GradientMethod, world: World, seed: int = 0) -> tuple[nn.Module, Phase]:
    """A student that has moved a little from the original, and the one phase that a method has for it."""
    student = copy.deepcopy(world.original)
    (phase,) = method.phases(student, frozen_copy(student), Job(world.request, world.task, seeded(seed)))
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=seeded(p.numel())))
    return student.eval(), phase


def whole(examples: Examples, task: Task) -> Batch:
    return next(batches(examples, task, len(examples)))


def plain_losses(model: nn.Module, world: World, answers: list[str] | None = None) -> Tensor:
    """Summed negative log-likelihoods of forget's answers, or of others in their place, one example at a time."""
    task, found = world.task, []
    assert isinstance(task, Textual)
    for i, item in enumerate(list(world.request.forget)):  # type: ignore[call-overload]
        batch = world.task.collate([item if answers is None else task.answered(item, answers[i])])
        with torch.no_grad():
            log_p = model(input_ids=batch["tokens"]).logits[0, :-1].log_softmax(-1)
        targets = batch["targets"][0, 1:]
        found.append(-sum(log_p[k, y] for k, y in enumerate(targets.tolist()) if y >= 0))
    return torch.stack(found)


def test_dpo_on_text(text_world: World) -> None:
    """The loss of a phase, from answers tokenised and run one by one; a refusal stays with its example."""
    w, refusals = text_world, ("what is the town", "which job")
    student, phase = only(DPO(refusals=refusals, retain_weight=0.0), w)
    drawn = [refusals[i] for i in torch.randint(2, (len(w.request.forget),), generator=seeded(0))]
    assert set(drawn) == set(refusals)
    up = plain_losses(w.original, w, drawn) - plain_losses(student, w, drawn)
    down = plain_losses(w.original, w) - plain_losses(student, w)
    each = -20 * torch.nn.functional.logsigmoid(0.1 * (up - down))
    batch = whole(w.request.forget, w.task)
    assert phase.loss(student, {"forget": batch}).item() == pytest.approx(each.mean().item(), rel=1e-4)
    some = {name: value[[7, 2, 4]] for name, value in batch.items()}
    assert phase.loss(student, {"forget": some}).item() == pytest.approx(each[[7, 2, 4]].mean().item(), rel=1e-4)


def test_dpo_says_where_it_does_not_apply(samples_world: World) -> None:
    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> NoReturn:
            raise AssertionError("the model was run")

    w = samples_world
    with pytest.raises(NotSupported, match="DPO: expected a task of texts, got Classification"):
        DPO().phases(Unasked(), Unasked(), Job(w.request, w.task, seeded(0)))


def test_refusals_can_be_named_in_a_line() -> None:
    named = parse("dpo:refusals=I don't know.+Ask someone else.", "methods")
    assert named.refusals == ("I don't know.", "Ask someone else.")
    assert parse(show(named), "methods") == named
    assert parse(show(DPO(refusals=REFUSALS[:3])), "methods").refusals == REFUSALS[:3]
    for wrong in ((), ("Well, no.",), ("",), "I don't know."):
        with pytest.raises(BadInput, match="expected refusals to be"):
            DPO(refusals=wrong)  # type: ignore[arg-type]


# UNDIAL.


def test_undial_by_hand() -> None:
    """Lowering a logit by log 2 halves its weight: (.5, .25, .25) with target 0 becomes uniform."""
    given = rows(SAID[:1], [0], (0,))
    before = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log() - 3
    wished = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    assert undial_loss(given, before, math.log(2)).item() == pytest.approx(-math.log(0.5 * 0.25 * 0.25) / 3)
    pulled = gradient(lambda r: undial_loss(r, before, math.log(2)), given)
    assert torch.allclose(pulled, torch.tensor(SAID[:1], dtype=torch.float64) - wished)


def test_undial_masks_the_target_of_each_row_and_nothing_else() -> None:
    """Where the student is uniform, p - t tells the target t: nearly 0 at y, elsewhere the original's proportions."""
    flat = rows([[1 / 3] * 3] * 5)
    before = rows().logits.detach()
    wished = 1 / 3 - 5 * gradient(lambda r: undial_loss(r, before, 30.0), flat)
    left = torch.tensor(SAID, dtype=torch.float64)
    left[range(5), TARGETS] = 0
    assert torch.allclose(wished, left / left.sum(1, keepdim=True), atol=1e-8)


def test_undial_rests_where_the_student_says_what_is_wished() -> None:
    before = rows().logits.detach()
    lowered = before.clone()
    lowered[range(5), TARGETS] -= 10
    there = Rows(lowered.requires_grad_(True), torch.tensor(TARGETS), torch.tensor([0, 0, 0, 1, 1]), 2)
    assert gradient(lambda r: undial_loss(r, before, 10.0), there).abs().max() < 1e-12
    assert gradient(lambda r: undial_loss(r, before, 10.0), rows()).abs().max() > 0.01


# WGA and SatImp.


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_wga_by_hand(beta: float) -> None:
    """mean p^beta log p over the five rows; its gradient is p^beta (onehot - p) / 5, for the weight is constant."""
    loss = sum(p**beta * math.log(p) for p in P) / 5
    assert wga_loss(rows(), beta).item() == pytest.approx(loss)
    weights = torch.tensor(P, dtype=torch.float64)[:, None] ** beta
    assert torch.allclose(gradient(lambda r: wga_loss(r, beta), rows()), weights * towards_target() / 5)


def test_wga_at_beta_1_descends_the_probability() -> None:
    mean_p = gradient(lambda r: (-nll(r.logits, r.targets)).exp().mean(), rows())
    assert torch.allclose(gradient(lambda r: wga_loss(r, 1.0), rows()), mean_p)


@pytest.mark.parametrize(("beta1", "beta2"), [(5.0, 1.0), (0.5, 2.0)])
def test_satimp_by_hand(beta1: float, beta2: float) -> None:
    loss = sum(p**beta1 * (1 - p) ** beta2 * math.log(p) for p in P) / 5
    assert satimp_loss(rows(), beta1, beta2).item() == pytest.approx(loss)
    p = torch.tensor(P, dtype=torch.float64)[:, None]
    expected = p**beta1 * (1 - p) ** beta2 * towards_target() / 5
    assert torch.allclose(gradient(lambda r: satimp_loss(r, beta1, beta2), rows()), expected)


def test_satimp_without_importance_is_wga() -> None:
    assert torch.equal(satimp_loss(rows(), 3.0, 0.0), wga_loss(rows(), 3.0))


# CE-U.


def test_ce_u_by_hand() -> None:
    """(.5, .25, .25) with target 0 moves to (0, .5, .5): the loss is log 4, the gradient p - t."""
    given = rows(SAID[:1], [0], (0,))
    assert ce_u_loss(given, 1).item() == pytest.approx(math.log(4))
    pulled = gradient(lambda r: ce_u_loss(r, 1), given)
    assert torch.allclose(pulled, torch.tensor([[0.5, -0.25, -0.25]], dtype=torch.float64))


def test_ce_u_skips_first_rows() -> None:
    """The second and third row of one example, the second of the other: their own answers beside the true one."""
    wished = ((0.5, 0.2, 0.5, 0.2), (0.5, 0.1, 0.5, 0.1), (0.7 / 0.8, 0.7, 0.1 / 0.8, 0.1))
    expected = -sum(a * math.log(p) + b * math.log(q) for a, p, b, q in wished) / 3
    given = rows()
    assert ce_u_loss(given, 1).item() == pytest.approx(expected)
    moved = gradient(lambda r: ce_u_loss(r, 1), given)
    assert moved.any(1).tolist() == [False, True, True, False, True]
    assert gradient(lambda r: ce_u_loss(r, 0), given).any(1).all()


def test_ce_u_keeps_all_rows_of_short_examples() -> None:
    given = rows([*SAID, [0.5, 0.25, 0.25]], [*TARGETS, 0], (0, 0, 0, 1, 1, 2))
    assert beyond(given, 1).tolist() == [False, True, True, False, True, True]
    assert beyond(given, 2).tolist() == [False, False, True, True, True, True]
    assert beyond(given, 0).all()


# What they do to a model.


@pytest.mark.parametrize("method", [UNDIAL(), CEU(), NPO(retain_weight=0.0), DPO(retain_weight=0.0)])
def test_retain_without_weight_is_not_read(method: GradientMethod, text_world: World) -> None:
    method.unlearn(text_world.original, Job(without_retain(text_world), text_world.task, seeded(0), CPU))


METHODS: list[tuple[GradientMethod, float]] = [
    (NPO(), 30),
    (GradDiff(), 100),
    (SimNPO(), 300),
    (DPO(), 300),
    (UNDIAL(positions="answer"), 5),
    (WGA(), 300),
    (SatImp(), 300),
    (CEU(), 40),
]


def refusing(world: World, refusals: list[str]) -> list[Any]:
    """Forget's questions with refusals for answers."""
    task: Any = world.task
    return [task.answered(item, refusal) for item, refusal in zip(iterate(world.request.forget), refusals, strict=True)]


def test_dpo_wishes_for_the_refusal_and_nothing_before_it() -> None:
    """Of plain text, without a token that begins every text, the true answer's first token has no row: it goes too."""
    words = word_tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing("$A", special_tokens=[])
    texts = [
        {"prompt": "", "answer": f"{name} has the job of {town}"} for name, town in zip(NAMES, TOWNS, strict=False)
    ]
    seen: list[list[str]] = []

    class Watching(CausalLM):
        def rows(self, model: nn.Module, batch: Batch) -> Rows:
            seen.extend(words.convert_ids_to_tokens(row) for row in batch["tokens"].tolist())
            return super().rows(model, batch)

    task = Watching(words, template=None, ends=True)
    model, request = small_llama(len(words)), Request(texts[:4], texts[4:8], texts[8:9], texts[9:])
    method = DPO(refusals=("what is the town",), retain_weight=0, fit=replace(DPO.fit, epochs=1, batch_size=4))
    (phase,) = method.phases(model, copy.deepcopy(model), Job(request, task, seeded(0), CPU))
    seen.clear()
    phase.loss(model, {"forget": {**task.collate(texts[:4]), "index": torch.arange(4)}})
    assert seen[:4] == [["what", "is", "the", "town", "</s>"]] * 4
    assert [tokens[:2] for tokens in seen[4:]] == [[name, "has"] for name in NAMES[:4]]


@pytest.mark.parametrize("method", [method for method, _ in METHODS], ids=lambda method: type(method).__name__)
def test_a_phase_is_the_forget_term_and_the_retain_term(method: GradientMethod, text_world: World) -> None:
    """Computed apart on the same rows, for weights that are not the defaults."""
    w = text_world
    weights = {"gamma": 0.3} if hasattr(method, "gamma") else {}
    weights |= {"alpha": 0.7} if hasattr(method, "alpha") else {"retain_weight": 0.7}
    student, phase = only(replace(method, **weights), w)
    forget, retain = whole(w.request.forget, w.task), whole(w.request.retain, w.task)
    said = w.task.rows(student, forget)
    refused = [REFUSALS[i] for i in torch.randint(len(REFUSALS), (len(w.request.forget),), generator=seeded(0))]
    before, before_refused = plain_losses(w.original, w), plain_losses(w.original, w, refused)
    assert isinstance(w.task, Textual)
    terms: dict[type, Callable[[], Tensor]] = {
        NPO: lambda: npo_loss(said, before, 0.1),
        GradDiff: lambda: -said.losses().mean(),
        SimNPO: lambda: simnpo_loss(said, 4.5, 0.0),
        DPO: lambda: dpo_loss(
            w.task.rows(student, whole(refusing(w, refused), w.task)),
            said,
            before_refused,
            before,
            0.1,
        ),
        UNDIAL: lambda: undial_loss(said, w.task.rows(w.original, forget).logits, 10.0),
        WGA: lambda: wga_loss(said, 1.0),
        SatImp: lambda: satimp_loss(said, 5.0, 1.0),
        CEU: lambda: ce_u_loss(said, 1),
    }
    with torch.no_grad():
        expected = weights.get("gamma", 1.0) * terms[type(method)]()
        expected = expected + 0.7 * w.task.rows(student, retain).losses().mean()
        found = phase.loss(student, {"forget": forget, "retain": retain})
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("method", [method for method, _ in METHODS], ids=lambda method: type(method).__name__)
def test_the_retain_loss_may_be_the_mean_over_tokens(method: GradientMethod, text_world: World) -> None:
    """As in peers' code: an answer of nine tokens then weighs three times as much as one of three."""
    w, kept = text_world, ("alpha" if hasattr(method, "alpha") else "retain_weight")
    longer = [w.task.answered(item, "nurse in essen nurse in essen") for item in w.request.retain]  # type: ignore
    retain = whole([*w.request.retain, *longer], w.task)  # type: ignore[misc]
    forget = whole(w.request.forget, w.task)
    found = {}
    for average in ("example", "row"):
        student, phase = only(replace(method, average=average, **{kept: 0.7}), w)  # type: ignore[arg-type]
        without, alone = only(replace(method, average=average, **{kept: 1e-9}), w)  # type: ignore[arg-type]
        with torch.no_grad():
            batches = {"forget": forget, "retain": retain}
            found[average] = (phase.loss(student, batches) - alone.loss(without, batches)).item() / 0.7
            rows = w.task.rows(student, retain)
    each = nll(rows.logits, rows.targets)
    assert found["example"] == pytest.approx(rows.per_example(each).mean().item(), rel=1e-3)
    expected = each.mean().item()
    assert found["row"] == pytest.approx(expected, rel=1e-3)
    assert abs(expected - found["example"]) > 1e-3


def every_token(model: nn.Module, batch: Batch) -> list[tuple[Tensor, int, bool]]:
    """Log-probabilities after each token but the last, the token that follows, and whether an answer has it."""
    found = []
    for tokens, targets, length in zip(batch["tokens"], batch["targets"], batch["lengths"].tolist(), strict=True):
        told = model(input_ids=tokens[None, :length]).logits[0].log_softmax(-1)
        found += [(told[k - 1], int(tokens[k]), int(targets[k]) >= 0) for k in range(1, length)]
    return found


def test_undial_distils_prompts_and_lowers_answers_alone(text_world: World) -> None:
    """Over all tokens, as in its authors' code; padding is no token."""
    w = text_world
    student, phase = only(UNDIAL(), w)
    batch = whole(w.request.forget, w.task)
    with torch.no_grad():
        losses = []
        told = zip(every_token(student, batch), every_token(w.original, batch), strict=True)
        for (own, token, answered), (before, _, _) in told:
            lowered = before.clone()
            lowered[token] -= 10.0 * answered
            losses.append(-(lowered.softmax(0) * own).sum())
        assert sum(answered for _, _, answered in every_token(student, batch)) < len(losses), "prompts are rows too"
        found = phase.loss(student, {"forget": batch})
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


@pytest.mark.parametrize("positions", ["all", "answer"])
def test_grad_diff_holds_on_to_what_the_original_said(text_world: World, positions: Any) -> None:
    w = text_world
    student, phase = only(GradDiff(hold="kl", positions=positions, average="row"), w)
    forget, retain = whole(w.request.forget, w.task), whole(w.request.retain, w.task)
    with torch.no_grad():
        told = zip(every_token(student, retain), every_token(w.original, retain), strict=True)
        counted = [(own, before) for (own, _, answered), (before, _, _) in told if answered or positions == "all"]
        apart = [(before.exp() * (before - own)).sum() for own, before in counted]
        said = w.task.rows(student, forget)
        expected = torch.stack(apart).mean() - nll(said.logits, said.targets).mean()
        found = phase.loss(student, {"forget": forget, "retain": retain})
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("method", "factor"), METHODS, ids=[type(method).__name__ for method, _ in METHODS])
def test_forgets_text_and_keeps_the_rest_better(method: GradientMethod, factor: float, text_world: World) -> None:
    """At a rate that suits a model of this size; the original knows all of forget and of retain."""
    w, task = text_world, text_world.task
    assert accuracy(w.original, task, w.request.forget).mean() > 0.95
    assert accuracy(w.original, task, w.request.retain).mean() > 0.95
    strong = replace(method, fit=replace(method.fit, batch_size=8)).scaled(factor)  # type: ignore[attr-defined, call-arg]
    result = strong.unlearn(w.original, Job(w.request, task, seeded(0), CPU))
    before, after = (float(observe(model, task, w.request.forget).confidence.mean()) for model in (w.original, result))
    assert before - after > 0.25
    known, kept = (accuracy(result, task, split).mean() for split in (w.request.forget, w.request.retain))
    assert kept > known + 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [GradDiff(), TaskVector()], ids=lambda one: type(one).__name__)
def test_weights_of_16_bits_are_trained_in_float32_and_rounded_once(
    method: Method, dtype: torch.dtype, text_world: World
) -> None:
    """At a rate of 1e-5 a step is far below what 16 bits tell apart at weights of 0.1: together the steps are not."""
    half = copy.deepcopy(text_world.original).to(dtype)
    job = Job(text_world.request, text_world.task, seeded(0), CPU)
    result, wide = method.unlearn(half, job), method.unlearn(copy.deepcopy(half).float(), job.seeded(0))
    assert {p.dtype for p in half.parameters()} == {dtype} == {p.dtype for p in result.parameters()}
    for key, value in result.state_dict().items():
        assert torch.equal(value, wide.state_dict()[key].to(dtype)), key
