"""The door to the package: what every attack must do, whatever it does. Attacks are found by walking the folder.

The law of arms is the one that a verdict rests on: no score may depend on which arm, forget or holdout, an example is
of. Whoever swaps the two sets in the request must get the same score for each example.
"""

import copy
import importlib
import pkgutil
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import unrecall.attacks
from tests.worlds import CPU, World
from unrecall.attacks.base import Attack, RecoveryAttack, ScoredAttack
from unrecall.attacks.inspection import InspectionAttack
from unrecall.data.digests import digest
from unrecall.data.examples import Absent, Selection, iterate
from unrecall.data.request import Request
from unrecall.disk.cache import Cache
from unrecall.errors import NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.scores import Point, Scores
from unrecall.evidence.setting import Defender, Models, Setting, Subject
from unrecall.harness.audit import FINDERS
from unrecall.harness.evaluation import draw_for
from unrecall.harness.finding import Finding
from unrecall.models.observe import observe
from unrecall.record.schema import ThreatModel
from unrecall.spec.lines import name_of
from unrecall.tasks.protocols import offers
from unrecall.training.loop import Fit

# Where an attack says that it does not apply. Pictures have no answers to begin or to ask for in other words, and this
# network no two layers of one kind; samples are no class that a retrained model has never met; texts have no continuous
# inputs, no classes and here a test of four; transformers have no BatchNorm, two towers no head, and a pair of a batch
# no loss of its own.
REFUSED = {
    "samples": {
        *("logit_lens", "prototypical", "rea_class", "prefix", "paraphrase", "remind", "leak_at_k", "few_shot"),
        *("steering", "patching", "cmia", "soft_prompt", "multi_turn"),
    },
    "class": {
        "logit_lens",
        "multi_turn",
        "prefix",
        "paraphrase",
        "remind",
        "leak_at_k",
        "few_shot",
        "steering",
        "patching",
        "soft_prompt",
    },
    "text": {
        *("recalibration", "residual_knowledge", "uma", "prototypical", "rea_class", "linear_probe", "indirect"),
        *("head_refit", "cmia", "traces"),
    },
    "pairs": {
        *("recalibration", "prototypical", "rea_class", "prefix", "paraphrase", "remind"),
        *("logit_lens", "attribution", "grad_norm", "head_refit", "leak_at_k", "few_shot"),
        *("steering", "patching", "cmia", "soft_prompt", "multi_turn"),
    },
}

# Attacks that learn from the arms, and say so; everywhere else the law of arms holds.
TELLS_ARMS_APART = {("svc", "class"), ("remind", "text")}

# At a fraction of the budget, under the same names.
SMALL: dict[str, dict[str, Any]] = {
    "relearn": {"steps": (1, 4), "learning_rates": (1e-2,)},
    "relearn_time": {"fit": Fit(lr=1e-2, weight_decay=5e-4, epochs=2)},
    "residual_knowledge": {"points": 2, "draws": 4},
    "uma": {"radii": (8 / 255,), "steps": 3},
    "rea_class": {"steps": 3, "learning_rates": (0.01,)},
    "rea_sample": {"fit": Fit(batch_size=256, epochs=1)},
    "prototypical": {"ks": (1, 2)},
    "head_refit": {"counts": (30, 60)},
    "linear_probe": {"ks": (1, 2)},
    "quantise": {"bits": (4,)},
    "prefix": {"shares": (0.5,)},
    "remind": {"k": 3},
    "weight_noise": {"levels": (0.1,), "draws": 2},
    "prune": {"shares": (0.2,)},
    "few_shot": {"ks": (2,)},
    "multi_turn": {"turns": 2},
    "traces": {"folds": 2},
    "update_inversion": {"most": 30},
    "soft_prompt": {"vectors": 3, "steps": 2, "every": 1},
    "steering": {"strengths": (1.0,), "wordings": 2},
    "interpolate": {"points": 3, "most": 20},
    "leak_at_k": {"ks": (1, 4), "samples": 4, "temperatures": (1.0,)},
    "knowledge_holes": {"homes": 6, "rounds": 2, "children": 2, "steps": 1, "draws": 2},
    "indirect": {"victim": 1, "sizes": (2,), "controls": 1, "pool": 12, "victims": 4},
}


def find_attacks() -> dict[str, type[Attack]]:
    """Command-line name to class: the class of a file whose lowercase name is the stem without underscores."""
    kinds: dict[str, type[Attack]] = {}
    for info in pkgutil.iter_modules(unrecall.attacks.__path__):
        module = importlib.import_module(f"unrecall.attacks.{info.name}")
        classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Attack)]
        own = [kind for kind in classes if kind.__name__.lower() == info.name.replace("_", "")]
        if info.name not in ("base", "inspection", "deletion"):
            assert len(own) == 1, f"{info.name}.py: expected one class named like the file, got {own}"
            kinds[info.name] = own[0]
    return kinds


ATTACKS = find_attacks()
SCORED = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, ScoredAttack)}
APPLYING = [(kind, name) for kind in REFUSED for name in ATTACKS if name not in REFUSED[kind]]
each_attack = pytest.mark.parametrize("name", ATTACKS)
each_applying = pytest.mark.parametrize(("case", "name"), APPLYING, indirect=["case"])
each_scoring = pytest.mark.parametrize(
    ("case", "name"), [(kind, name) for kind, name in APPLYING if name in SCORED], indirect=["case"]
)


def small(name: str) -> Any:
    """The attack at a fraction of its budget."""
    return ATTACKS[name](**SMALL.get(name, {}))


@dataclass(frozen=True, repr=False)
class Case:
    """A world and its name; what attacks find in it is remembered, since most laws read the same finding."""

    kind: str
    world: World

    def __repr__(self) -> str:
        return f"Case({self.kind})"

    def setting(self, **changes: Any) -> Setting:
        """An audit of a copy of the original with weaker weights; nothing is remembered of another setting."""
        w = self.world
        unlearned = changes.pop("unlearned", None) or weakened(w.original)
        models = Models(w.original, unlearned, changes.pop("retrained", w.retrained))
        defender = Defender("copies", lambda request, seed: weakened(w.original))
        return Setting(models, changes.pop("request", w.request), w.task, session=CPU, defender=defender, **changes)

    def finding(self, name: str) -> Finding:
        """What the harness makes of the small attack."""
        if (self.kind, name) not in _REMEMBERED:
            attack = small(name)
            _REMEMBERED[self.kind, name] = FINDERS[attack.kind](attack, self.setting())
        return _REMEMBERED[self.kind, name]


_REMEMBERED: dict[tuple[str, str], Finding] = {}


@pytest.fixture(params=["samples", "class", "text", "pairs"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param, request.getfixturevalue(f"{request.param}_world"))


def weakened(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(0.9)
    return copied


def adapted(attack: ScoredAttack, setting: Setting) -> Setting:
    """The setting with its examples in the form that the attack needs."""
    return setting.with_task(attack.adapted(setting.task))


def scores_of(attack: ScoredAttack, setting: Setting, role: str = "unlearned") -> Scores:
    setting = adapted(attack, setting)
    subject = next(subject for subject in setting.subjects if subject.role == role)
    return attack.scores(subject, draw_for(attack, setting).pool, setting)


def run(attack: Attack, setting: Setting, role: str = "unlearned") -> dict[str, Any]:
    """The plain numbers that an attack gives of one model, whatever its kind."""
    model = setting.models.by_role()[role]
    if isinstance(attack, ScoredAttack):
        return scores_of(attack, setting, role).arrays()
    if isinstance(attack, InspectionAttack):
        inspection = attack.inspect(model, setting.with_task(attack.adapted(setting.task)))
        return {**inspection.lines, "x": inspection.x, "value": (inspection.value.value, inspection.value.low)}
    models = replace(setting.models, original=model)
    finding = FINDERS[attack.kind](attack, replace(setting, models=models))
    return {row.name: (row.unlearned.value, row.original.value) for row in finding.measurements}


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether all numbers agree bit for bit."""

    def same(a: Any, b: Any) -> bool:
        a, b = np.array(a), np.array(b)
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if a.dtype.kind == "f" else a.tolist() == b.tolist()

    return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)


def state(model: nn.Module) -> list[Any]:
    """All that an attack must leave alone: weights, buffers, gradients wanted and had, modes, hooks."""
    tensors = [(name, digest(value)) for name, value in model.state_dict().items()]
    wanted = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return [*tensors, *wanted, *((m.training, len(m._forward_hooks)) for m in model.modules())]


# What an attack says of itself.


@each_attack
def test_declares_itself(name: str) -> None:
    kind = ATTACKS[name]
    attack = kind()
    assert name_of(attack) == name
    assert kind.title.strip()
    assert [other for other in ATTACKS.values() if other.title == kind.title] == [kind]
    assert all(value.strip() for value in kind.threat.model_dump().values())
    text = kind.__doc__ or ""
    assert "Reference:" in text
    assert "Expected to fail:" in text
    assert all(field.name in text for field in fields(kind)), "each parameter is explained"
    assert attack == kind(), "equal parameters make equal attacks"
    assert hash(attack) == hash(kind())


@each_attack
def test_applies_everywhere_but_where_it_is_known_to_refuse(name: str, case: Case) -> None:
    """So that no test is skipped unnoticed. Who refuses says so in its own name, and shows nothing."""
    report = case.finding(name).report
    assert bool(report.note and not report.curves) == (name in REFUSED[case.kind]), report.note
    if name in REFUSED[case.kind]:
        assert report.note.startswith(f"{ATTACKS[name].__name__}: "), report.note
    assert not all(name in refused for refused in REFUSED.values())


@each_attack
def test_needs_what_it_declares(name: str, case: Case) -> None:
    attack = small(name)
    if not offers(case.world.task, *attack.needs):
        assert name in REFUSED[case.kind]
        with pytest.raises(NotSupported, match=f"^{type(attack).__name__}: expected .* Leave it out"):
            attack.adapted(case.world.task)


@pytest.mark.parametrize("name", SCORED)
def test_needs_a_class_if_it_says_so(name: str) -> None:
    if SCORED[name].needs_class:
        assert name in REFUSED["samples"]
        assert name not in REFUSED["class"]


@each_attack
def test_what_is_judged_is_made(name: str, case: Case) -> None:
    """A judged attack makes the row that it names, which leaks above; nothing else is judged."""
    kind, rows = ATTACKS[name], case.finding(name).measurements
    expected = [f"{name}_{kind.judged}"] if kind.judged else []
    assert [row.name for row in rows if row.judged] == expected
    assert [row.leak for row in rows if row.judged] == ["above"] * len(expected)
    if expected:
        assert issubclass(kind, ScoredAttack)
        assert kind.blind, "no verdict rests on an attack that learns from the arms"


@each_applying
def test_controls_are_declared(name: str, case: Case) -> None:
    report = case.finding(name).report
    assert report.positive_control
    assert report.negative_control


# What it does to models, and with randomness.


@each_applying
def test_leaves_models_alone(name: str, case: Case) -> None:
    """In a model whose flags are mixed, and in those beside it."""
    model = weakened(case.world.original).train()
    first = next(model.children()).eval()
    next(first.parameters()).requires_grad_(False)
    setting = case.setting(unlearned=model)
    before = [state(subject.model) for subject in setting.subjects]
    run(small(name), setting)
    assert [state(subject.model) for subject in setting.subjects] == before


@each_applying
def test_the_seed_decides_and_no_other_model(name: str, case: Case) -> None:
    """The numbers of one model are the same after another was attacked, and global generators stay where they are."""
    attack, setting = small(name), case.setting(seed=3)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    first = run(attack, setting)
    run(attack, setting, "original")
    assert bool(torch.equal(torch.get_rng_state(), states[0])), "the global generator of torch moved"
    assert random.getstate() == states[1]
    assert str(np.random.get_state()) == states[2]
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        assert equal(run(attack, case.setting(seed=3)), first)


@each_scoring
def test_scores_each_example_of_both_arms(name: str, case: Case) -> None:
    attack, setting = small(name), case.setting()
    cases = draw_for(attack, adapted(attack, setting)).places
    scores = scores_of(attack, setting)
    assert set(cases) == {"forget", "holdout"}
    for arm, where in cases.items():
        assert scores.at(where).shape == (len(scores.budgets), len(where.indices)), arm
        assert len(where.indices) > 0
        assert np.isfinite(scores.at(where)).all()
    if isinstance(attack, RecoveryAttack):
        assert scores.budgets[0] == 0, "before anything was spent"
        assert len(scores.budgets) > 1


# The law of arms.


def by_example(attack: ScoredAttack, setting: Setting) -> dict[str, list[float]]:
    """The scores of each tested example, by its sha256."""
    setting = adapted(attack, setting)
    drawn, digests = draw_for(attack, setting), setting.request.digests
    scores = scores_of(attack, setting)
    return {
        digests[arm][index]: scores.at(where)[:, i].tolist()
        for arm, where in drawn.places.items()
        for i, index in enumerate(where.indices)
    }


def tells_arms_apart(attack: ScoredAttack, case: Case) -> bool:
    """Whether any example's score changes when forget and holdout change cases in the request."""
    if "dose" in {field.name for field in fields(attack)}:
        attack = replace(attack, dose="both")  # type: ignore[call-arg]
    request = case.world.request
    swapped = replace(request, forget=request.holdout, holdout=request.forget)
    before, after = (by_example(attack, case.setting(request=asked)) for asked in (request, swapped))
    both = before.keys() & after.keys()  # all, but where no more of holdout is scored than of forget
    assert both, "something is scored"
    assert attack.paired or before.keys() == after.keys()
    return any(before[example] != after[example] for example in both)


@each_scoring
def test_no_attack_tells_the_arms_apart(name: str, case: Case) -> None:
    assert tells_arms_apart(small(name), case) == ((name, case.kind) in TELLS_ARMS_APART)


def test_who_tells_the_arms_apart_says_so() -> None:
    assert {name for name, kind in SCORED.items() if not kind.blind} == {name for name, _ in TELLS_ARMS_APART}


@dataclass(frozen=True)
class Peeking(ScoredAttack):
    """The loss, and one more for what it takes for forget."""

    title: ClassVar[str] = "Peeking"
    threat: ClassVar[ThreatModel] = ThreatModel(access="none", data="none", budget="none")
    reading: ClassVar[Any] = "membership"

    by: str = "nothing"

    def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
        forget = set(setting.request.digests["forget"])
        shown = []
        for k, examples in enumerate(pool.tested):
            peeked = {
                "nothing": np.zeros(len(examples)),
                "request": np.array([digest(item) in forget for item in iterate(examples)], float),
                "place": np.full(len(examples), float(k == 0)),
                "mean": np.full(len(examples), observe(subject.model, setting.task, pool.tested[0]).loss.mean()),
            }[self.by]
            shown.append(peeked - observe(subject.model, setting.task, examples).loss)
        return Scores.of([Point(0.0, "", tuple(shown), (0.0,) * len(shown))])


@pytest.mark.parametrize(("by", "seen"), [("nothing", False), ("request", True), ("place", True), ("mean", True)])
def test_the_law_catches_who_peeks(by: str, seen: bool, case: Case) -> None:
    assert tells_arms_apart(Peeking(by), case) is seen


# Little data.


def poor(request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "one example to forget", {"request": replace(request, forget=Selection(request.forget, [0]))}
    yield "no holdout", {"request": replace(request, holdout=Absent("holdout: there is none"))}
    yield "no retrained models", {"retrained": ()}


SIGNALS = Cache()
"""What models say of examples, which is the same for all attacks."""


@each_attack
def test_little_data_is_a_row_with_a_reason(name: str, case: Case) -> None:
    """No error: each row has a value, or says why it has none."""
    attack = small(name)
    for what, changes in poor(case.world.request):
        finding = FINDERS[attack.kind](attack, case.setting(**changes, memory=SIGNALS))
        assert finding.measurements, what
        for row in finding.measurements:
            assert row.unlearned.value is not None or row.unlearned.note or row.note, (what, row.name)
