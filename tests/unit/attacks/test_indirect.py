"""The indirect attack: rankings by hand, a defender that it harms, two that it can't, requests that make sense."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, World, blobs, word_tokenizer
from unrecall.attacks import indirect
from unrecall.attacks.deletion import Candidates
from unrecall.attacks.indirect import Indirect, alignments, contributed, slope
from unrecall.cli import app as cli
from unrecall.data.examples import Selection, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.evidence.setting import Defender, Models, Setting
from unrecall.harness.adversary import TRAINING, Adversary, as_hard, predictions
from unrecall.harness.deletion import deletion_finding
from unrecall.harness.finding import Finding
from unrecall.methods.grad_ascent import GradAscent
from unrecall.models.observe import batches, observe
from unrecall.record.schema import Estimate, load
from unrecall.scenarios.cifar10_indirect import Cifar10Indirect
from unrecall.tasks import CausalLM, Classification
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

SURROGATE = Fit(lr=1e-2, weight_decay=0.0, clip=1.0, epochs=10, steps=10, batchnorm="frozen")
ATTACK = Indirect(victim=1, answered_as=0, sizes=(5, 20), controls=2, fit=SURROGATE)
SMALL = replace(ATTACK, sizes=(20,), controls=1)
ASCENT = GradAscent(fit=SURROGATE)


# Rankings, by hand.


def job(world: World, seed: int = 0, request: Request | None = None) -> Job:
    return Job(request or world.request, world.task, seeded(seed), CPU)


BLOBS = blobs(8, 4, 0)
NO_WORLD = Job(Request(BLOBS[:2], BLOBS[2:4], BLOBS[4:6], BLOBS[6:]), Classification(), session=CPU)
"""A job for rankings that ask only for the task."""


def softmax_world() -> tuple[nn.Linear, list[tuple[Tensor, int]]]:
    """Three classes, two inputs; W as it is, so that every gradient is (p - e_y) x^T."""
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -0.5], [0.2, 0.7], [-0.3, 0.1]]))
    inputs = torch.rand(7, 2, generator=seeded(3))
    return model, [(x, i % 3) for i, x in enumerate(inputs)]


def by_hand(model: nn.Linear, item: tuple[Tensor, int], label: int) -> Tensor:
    p = (model.weight @ item[0]).softmax(0).detach()
    p[label] -= 1
    return p[:, None] * item[0][None]


@pytest.mark.parametrize("towards", [None, 2])
@pytest.mark.parametrize("tangents", [True, False])
def test_alignments_are_inner_products_of_gradients(
    towards: int | None, tangents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = softmax_world()
    victims, others = data[1::3], data[::3]
    wanted = torch.stack([by_hand(model, v, v[1] if towards is None else towards) for v in victims]).mean(0)
    expected = [float((wanted * by_hand(model, x, x[1])).sum()) for x in others]
    if not tangents:

        def no_tangents(*_: object) -> None:
            raise NotImplementedError("forward AD")

        monkeypatch.setattr(indirect, "jvp", no_tangents)
    task = Classification()
    direction = slope(model, task, victims, towards)
    assert torch.allclose(direction["weight"], wanted, atol=1e-6)
    assert np.allclose(alignments(model, task, others, direction), expected, atol=1e-6)
    assert model.weight.grad is None


def test_attention_carries_tangents(pairs_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass, no backward pass an example, and the same numbers."""
    w = pairs_world
    task, some = w.task.classified(), Selection(w.request.retain, range(5))
    direction = slope(w.original, task, some)
    slow = indirect._one_by_one(w.original, task, next(iter(batches(some, task))), direction)
    monkeypatch.setattr(indirect, "_one_by_one", lambda *_: pytest.fail("a backward pass an example"))
    assert np.allclose(alignments(w.original, task, some, direction), slow.numpy(), rtol=1e-3, atol=1e-5)


def test_the_gradient_ranking_goes_where_ascent_helps_the_wish() -> None:
    """A step of ascent on the first of the ranking lowers CE(victim, wished) most, on the last of it least."""
    model, data = softmax_world()
    victims, others = data[1::3], [x for x in data if x[1] != 1]
    candidates = Candidates(others, np.array([y for _, y in others]), victims)

    def wished_loss(asked: tuple[Tensor, int]) -> float:
        moved = model.weight.detach() + 1e-3 * by_hand(model, asked, asked[1])
        logits = torch.stack([x for x, _ in victims]) @ moved.T
        return float(nn.functional.cross_entropy(logits, torch.full((len(victims),), 2)))

    attack = Indirect(victim=1, answered_as=2)
    order = np.argsort(-attack.rank(model, candidates, NO_WORLD.seeded(0)))
    after = [wished_loss(others[i]) for i in order]
    assert after == sorted(after)
    blind = np.argsort(-Indirect(victim=1).rank(model, candidates, NO_WORLD.seeded(0)))

    def own_loss(asked: tuple[Tensor, int]) -> float:
        moved = model.weight.detach() + 1e-3 * by_hand(model, asked, asked[1])
        logits = torch.stack([x for x, _ in victims]) @ moved.T
        return float(nn.functional.cross_entropy(logits, torch.tensor([1] * len(victims))))

    after = [own_loss(others[i]) for i in blind]
    assert after == sorted(after, reverse=True)


def test_the_contribution_ranking_is_a_cosine_to_the_victims_mean() -> None:
    """What enters a linear head is the input, so that the contribution to the own class is x * W_y."""
    model, data = softmax_world()
    victims, others = data[1::3], [x for x in data if x[1] != 1]
    expected = torch.stack([x * model.weight[y] for x, y in others]).detach()
    centre = torch.stack([x * model.weight[y] for x, y in victims]).detach().mean(0)
    assert torch.allclose(contributed(model, Classification(), others), expected)
    candidates = Candidates(others, np.array([y for _, y in others]), victims)
    scores = Indirect(victim=1, by="contribution").rank(model, candidates, NO_WORLD.seeded(0))
    assert np.allclose(scores, torch.nn.functional.cosine_similarity(expected, centre[None]).numpy(), atol=1e-6)


def test_the_surrogate_is_gradient_ascent(samples_world: World) -> None:
    w = samples_world
    surrogate = ATTACK.rehearse(w.original, w.request.forget, job(w, 4))
    unlearned = ASCENT.unlearn(w.original, job(w, 4))
    for weight, same in zip(surrogate.parameters(), unlearned.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_the_surrogate_ranks_whole_classes(samples_world: World) -> None:
    """All of a class score alike: the share of known victims that its surrogate newly answers as wished."""
    w = samples_world
    data = list(w.request.retain)  # type: ignore[call-overload]
    others, victims = [x for x in data if x[1] != 1], [x for x in data if x[1] == 1]
    classes = np.array([y for _, y in others])
    candidates = Candidates(others, classes, victims)
    attack = replace(ATTACK, by="surrogate", sizes=(15,))
    scores = attack.rank(w.original, candidates, job(w))
    groups = {c: set(scores[classes == c].tolist()) for c in (0, 2, 3)}
    assert all(len(group) == 1 for group in groups.values())
    assert len(set(scores.tolist())) > 1
    assert np.array_equal(scores, attack.rank(w.original, candidates, job(w)))


def test_the_surrogate_ranking_is_the_harm_of_one_step_by_hand() -> None:
    """One step of ascent on the first two of each class, W + 2 (p - e_c) x^T, and what four victims are called then.

    Forgetting class 2 takes one of four to the wished 0; class 3 costs one of the three that were right, 1/4 over
    2 * 4 + 1; class 0 changes nothing. So class 2 is asked for first, and class 0 last.
    """
    model = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.2, 0.4], [-0.6, 0.9], [0.6, -0.4], [-0.6, 0.3]]))
    victims = [(torch.tensor(x), 1) for x in ([0.1, 0.9], [0.4, 0.4], [0.9, 0.1], [0.5, 0.9])]
    asked = {0: torch.tensor([0.0, 0.7]), 2: torch.tensor([0.7, 0.9]), 3: torch.tensor([0.6, 0.2])}
    called = {0: [1, 1, 2, 1], 2: [1, 1, 0, 1], 3: [1, 2, 2, 1]}
    seen = torch.stack([x for x, _ in victims])
    assert (seen @ model.weight.T).argmax(1).tolist() == [1, 1, 2, 1]
    for c, x in asked.items():
        moved = model.weight.detach() + 2 * by_hand(model, (x, c), c)
        assert (seen @ moved.T).argmax(1).tolist() == called[c]
    others = [(x, c) for _ in range(2) for c, x in asked.items()]
    others += [(torch.tensor([-9.0, 9.0]), c) for c in asked]  # the third of each, beyond the largest request
    candidates = Candidates(others, np.array([c for _, c in others]), victims)
    once = Fit(lr=2.0, weight_decay=0.0, steps=1)
    attack = Indirect(victim=1, answered_as=0, by="surrogate", sizes=(1, 2), fit=once)
    scores = attack.rank(model, candidates, NO_WORLD.seeded(0))
    assert np.allclose(scores, [0, 1 / 4, 1 / 36] * 3, atol=1e-12)


def test_what_counts_as_harm() -> None:
    before, after = np.array([1, 1, 2, 0, 1]), np.array([2, 0, 2, 2, 1])
    assert Indirect(victim=1, answered_as=2).harmed(before, after).tolist() == [1, 0, 0, 1, 0]
    assert Indirect(victim=1).harmed(before, after).tolist() == [1, 1, 0, 0, 0]


# All requests, honoured.


def defender(world: World, unlearn: Callable[[Request, int], nn.Module] | None = None) -> Defender:
    def ascent(request: Request, seed: int) -> nn.Module:
        return ASCENT.unlearn(world.original, job(world, seed, request))

    return Defender(repr(ASCENT), unlearn or ascent)


def setting_of(world: World, session: Session = CPU, **changed: Any) -> Setting:
    models = Models(world.original, world.original)
    setting = Setting(models, world.request, world.task, seed=7, session=session, defender=defender(world))
    return replace(setting, **changed)


def finding_of(world: World, attack: Indirect = SMALL, **changed: Any) -> Finding:
    return deletion_finding(attack, setting_of(world, **changed))


def adversary(world: World, attack: Indirect) -> Adversary:
    setting = setting_of(world)
    return Adversary(attack, setting, predictions(setting.evidence["original"].signals, TRAINING))


def value(finding: Finding, name: str) -> Estimate:
    return next(m.unlearned for m in finding.measurements if m.name.endswith(f"_{name}"))


def test_positive_control_against_gradient_ascent(samples_world: World) -> None:
    """Chosen requests take far more of the victim's unseen examples to the wished class than random ones do."""
    finding = finding_of(samples_world, ATTACK)
    chosen, blind, excess = (value(finding, name) for name in ("success", "random", "excess"))
    assert chosen.value is not None and chosen.low is not None and blind.value is not None
    assert chosen.value > 0.15 and blind.value < chosen.value / 2
    assert excess.value == pytest.approx(chosen.value - blind.value)
    assert excess.low is not None and excess.low > 0
    assert finding.report.positive_holds and finding.report.negative_holds
    harm = {s.role: s for s in finding.report.curves[0].series}
    assert harm["unlearned"].x == [0, 5, 20] and harm["unlearned"].y[0] == 0
    at = harm["unlearned"].y.index(chosen.value)
    assert harm["random requests"].y[at] == blind.value
    # Against the surrogate itself everything transfers, for the seeds are the same.
    assert value(finding, "transfer").value == pytest.approx(1.0)


def test_the_adversary_picks_the_size_by_what_it_knows(samples_world: World) -> None:
    """The figures are those of the size that harms the victim's known examples most by the surrogate."""
    w, attack = samples_world, replace(ATTACK, sizes=(5, 80))
    asking, harm = adversary(w, attack), {}
    ranking, victims = asking.ranking(), asking.examples(asking.victims)
    before = observe(w.original, w.task, victims).prediction
    for size in attack.sizes:
        model = attack.rehearse(w.original, asking.request(ranking[:size]).forget, job(w, 7))
        harm[size] = attack.harmed(before, observe(model, w.task, victims).prediction).mean()
    assert len(set(harm.values())) == 2
    picked = max(harm, key=lambda size: harm[size])
    assert f"a request for {picked} training examples" in finding_of(w, attack).report.note


def test_negative_control_a_method_that_changes_nothing(samples_world: World) -> None:
    w = samples_world
    still = finding_of(w, defender=defender(w, lambda request, seed: copy.deepcopy(w.original)))
    assert value(still, "success").value == value(still, "random").value == value(still, "excess").value == 0
    assert value(still, "left").value == next(m.original.value for m in still.measurements if m.name.endswith("_left"))
    assert still.report.positive_holds
    assert still.report.negative_holds is None, "there is no harm to hold the controls against"


def test_negative_control_a_model_that_never_saw_the_request(samples_world: World) -> None:
    """Retraining without the request stands beside; where nothing can be trained, the reason does."""
    w = samples_world
    who = replace(defender(w), retrain=lambda request, index: w.retrained[index])
    finding = finding_of(w, replace(SMALL, retrain=2), defender=who)
    again, chosen = value(finding, "retrained").value, value(finding, "success").value
    assert again is not None and chosen is not None and again < chosen / 2
    assert finding.report.negative_holds
    assert "retraining without it 0." in finding.report.negative_control
    assert "can't train" in value(finding_of(w, replace(SMALL, retrain=2)), "retrained").note


def test_pairs_are_classified_first(pairs_world: World) -> None:
    """Victims, truth and answers are those of the classes' prompts, not which text goes with which picture."""
    w = pairs_world
    attack = Indirect(victim=1, sizes=(4,), controls=1, by="random", fit=replace(SURROGATE, steps=1))
    finding = finding_of(w, attack, defender=defender(w, lambda request, seed: copy.deepcopy(w.original)))
    observed = [observe(w.original, w.task.classified(), part) for part in (w.request.test, w.request.holdout)]  # type: ignore[attr-defined]
    truth, right = (np.concatenate([getattr(signals, name) for signals in observed]) for name in ("target", "correct"))
    for name, which in (("accuracy", truth == 1), ("others", truth != 1)):
        row = next(m for m in finding.measurements if m.name.endswith(f"_{name}"))
        assert row.original.n == which.sum() > 0
        assert row.original.value == row.unlearned.value == pytest.approx(right[which].mean())
    assert f"unseen {w.task.classes[1]} newly wrong" in finding.report.note  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_finding(samples_world: World) -> None:
    assert finding_of(samples_world) == finding_of(samples_world)


def test_what_was_honoured_is_not_honoured_again(
    samples_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit that is stopped among the requests goes on where it was."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    w, session = samples_world, Session(folder=tmp_path / "parts", device="cpu")
    calls: list[int] = []

    def tired(request: Request, seed: int) -> nn.Module:
        calls.append(len(request.forget))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ASCENT.unlearn(w.original, job(w, seed, request))

    with pytest.raises(KeyboardInterrupt):
        finding_of(w, session=session, defender=defender(w, tired))
    finding = finding_of(w, session=session, defender=defender(w, tired))
    assert len(calls) == 4  # chosen, random, as hard, and one in vain
    assert finding == finding_of(w)


def test_requests_are_legitimate(samples_world: World) -> None:
    """Training examples of other classes, the rest is retained; all examples of a class make it a class request."""
    w = samples_world
    threes = adversary(w, replace(ATTACK, asks_for=3))
    request = threes.request(threes.candidates[:20])
    assert {y for _, y in iterate(request.forget)} == {3}
    assert (request.kind, request.masked, len(request.forget), len(request.retain)) == ("samples", (), 20, 140)
    assert sum(y == 1 for _, y in iterate(request.retain)) == 40, "all of the victim's are retained"
    whole = threes.request(threes.candidates[:40])
    assert (whole.kind, whole.masked) == ("class", (3,))
    anyone = adversary(w, ATTACK)
    assert 1 not in {y for _, y in iterate(anyone.examples(anyone.candidates))}
    assert {y for _, y in iterate(anyone.examples(anyone.victims))} == {1}


def test_others_as_hard_have_the_nearest_losses() -> None:
    """Losses 5, 4, 1, 0.9, 0.1, 0: in place of 5 and 1 go the nearest that are left, 4 and 0.9."""
    loss = np.array([0.1, 5.0, 0.9, 4.0, 1.0, 0.0])
    assert as_hard([4, 1], range(6), loss) == [3, 2]
    assert as_hard([4, 1, 2, 3], range(6), loss) == []


def test_what_is_said_of_a_request_is_true_of_it(samples_world: World) -> None:
    """Its classes, its mean loss, that of the others in its place, and how many of it were answered right before."""
    w, attack = samples_world, replace(SMALL, asks_for=3)
    threes = adversary(w, attack)
    requested = threes.ranking()[:20].tolist()
    others = as_hard(requested, threes.candidates.tolist(), threes.training.loss)
    finding = finding_of(w, attack)
    rows = {m.name.rsplit("_", 1)[-1]: m for m in finding.measurements}
    before, instead = (observe(w.original, w.task, threes.examples(places)) for places in (requested, others))
    assert "a request for 20 training examples (20 of class 3)" in finding.report.note
    assert f"mean loss {instead.loss.mean():.2g} in place of {before.loss.mean():.2g};" in rows["alike"].note
    assert rows["left"].original.value == pytest.approx(before.correct.mean())


def test_equal_examples_go_together(samples_world: World) -> None:
    """An example that is there twice may be asked for once, and then its twin is not retained."""
    w = samples_world
    data = list(w.request.retain)  # type: ignore[call-overload]
    twin = next(i for i, item in enumerate(data) if item[1] == 3)
    doubled = replace(w, request=replace(w.request, retain=[*data, data[twin]]))
    threes = adversary(doubled, replace(ATTACK, asks_for=3))
    assert len(threes.candidates) == 40
    assert len(threes.request(threes.candidates).retain) == 120


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Indirect(victim=2, answered_as=2), "answered_as to be another class than victim, got 2"),
        (lambda: Indirect(victim=2, asks_for=2), "asks_for to be another class than victim"),
        (lambda: Indirect(victim=2, sizes=()), "at least one size"),
        (lambda: Indirect(victim=-1), "victim to be greater than or equal to 0"),
        (
            lambda: Cifar10Indirect(weights="x", victim=4, answered_as=4).make(),
            "answered_as to be another class than victim",
        ),
        (lambda: Cifar10Indirect().make(), "the checkpoint of a ResNet-20, got none"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"victim": 9}, "victim to be a class of the data, got 9"),
        ({"answered_as": 9}, "answered_as to be a class of the data, got 9"),
        ({"victim": 0, "answered_as": 2}, "a victim that is not the class to be forgotten, got 0"),
        ({"sizes": (20, 121)}, "sizes of at most 120"),
        ({"sizes": (41,), "asks_for": 3}, "sizes of at most 40"),
        ({"sizes": (31,), "pool": 30}, "sizes of at most 30"),
    ],
)
def test_requests_that_the_data_do_not_allow(samples_world: World, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        finding_of(samples_world, replace(SMALL, **changed))


def test_a_reason_in_place_of_a_finding(samples_world: World) -> None:
    for finding, reason in (
        (finding_of(samples_world, defender=None), "the defender's method, got a model alone"),
        (finding_of(samples_world, task=CausalLM(word_tokenizer())), "a task that knows no classes"),
    ):
        assert finding.measurements[0].unlearned.value is None
        assert reason in finding.report.note and not finding.report.curves


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits from training to record; the harm stands in it with what it takes to believe it."""
    if "UNRECALL_CACHE" not in os.environ:
        monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    suite = "indirect:victim=1,answered_as=8,sizes=60,controls=2,steps=10,lr=0.01"
    method = "grad_ascent:lr=0.01,epochs=10,batchnorm=frozen"
    words = [
        "--scenario",
        "digits:references=0",
        "--method",
        method,
        "--suite",
        suite,
        "--device",
        "cpu",
        "--out",
        "out",
    ]
    with pytest.raises(SystemExit) as done:
        cli.main(["run", *words])
    assert not done.value.code
    record = load("out/seed-0/record.json")
    harm = {m.name: m.unlearned.value for m in record.measurements if m.group == "harm"}
    chosen, blind = harm["indirect_1_8_success"], harm["indirect_1_8_random"]
    assert chosen is not None and blind is not None and chosen > 0.3 > blind
    assert "Honouring a request for 60 training examples" in record.attacks[0].note
    with pytest.raises(SystemExit) as done:
        cli.main(["run", *words[:5], suite.replace("answered_as=8", "answered_as=1"), *words[6:-1], "other"])
    assert done.value.code == 2 and not Path("other").exists()
    with pytest.raises(SystemExit) as done:
        cli.main(["check", "out/seed-0/record.json"])
    assert not done.value.code


def test_the_attack_leaves_the_original_alone(samples_world: World) -> None:
    before = {name: p.clone() for name, p in samples_world.original.state_dict().items()}
    answers = observe(samples_world.original, samples_world.task, samples_world.request.test).prediction
    finding_of(samples_world, replace(SMALL, by="surrogate"))
    after = samples_world.original.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = observe(samples_world.original, samples_world.task, samples_world.request.test).prediction
    assert np.array_equal(answers, again)


DATA = Path(os.environ.get("UNRECALL_DATA", "/nowhere"))
WEIGHTS = DATA / "resnet_cifar10" / "resnet20-12fca82f.th"


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "cifar10").is_dir() or not WEIGHTS.is_file(), reason="UNRECALL_DATA has no CIFAR-10")
def test_the_scenario_on_real_data() -> None:
    """A pool of as many pictures of each class, an ordinary request out of it, and a checkpoint that knows them."""
    given = Cifar10Indirect(data=str(DATA), weights=str(WEIGHTS), train=20, test=300)
    case = given.make()
    assert {s: len(case.request[s]) for s in ("forget", "retain", "holdout", "test")} == {
        "forget": 4, "retain": 196, "holdout": 1000, "test": 300
    }  # fmt: skip
    assert np.bincount([y for part in (case.request.forget, case.request.retain) for _, y in iterate(part)]).min() == 20
    assert case.original is not None and not case.can_retrain()
    assert observe(case.original, case.task, case.request.test).correct.mean() > 0.88
    assert "cat taken for dog" in case.summary
    with pytest.raises(BadInput, match="a victim that is not the class to be forgotten, got 3"):
        replace(given, forget="class:3").make()
