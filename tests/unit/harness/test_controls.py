"""Controls that can fail: attacks that see nothing, attacks that peek, and how often a sound attack passes both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, World
from unrecall.attacks import (
    CKA,
    Attacked,
    Loss,
    MembershipAttack,
    RecoveryAttack,
    Relearn,
    ResidualKnowledge,
    ScoredAttack,
)
from unrecall.attacks.base import Success
from unrecall.attacks.inspection import Inspection, InspectionAttack
from unrecall.data.examples import Examples, iterate
from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.scores import Scores
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.harness import controls
from unrecall.harness.controls import Arms, Claim, Control, DisguisedCopy
from unrecall.harness.inspection import inspection_finding
from unrecall.harness.scoring import score_finding
from unrecall.record import stats
from unrecall.record.row import Row
from unrecall.record.schema import AttackReport, Estimate, Measurement, ThreatModel
from unrecall.tasks.base import Task
from unrecall.training.job import Job

RUNS = 200
MOST = 20
"""More failures in `RUNS` than this have a chance of 0.1 % where 5 % are promised."""
Draw = Callable[[np.random.Generator, int], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.exponential(size=n),
    "right or wrong": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "constant": lambda _, n: np.full(n, 0.7),
}
each_noise = pytest.mark.parametrize("noise", NOISE.values(), ids=list(NOISE))


def often(run: Callable[[np.random.Generator], bool | None], wanted: bool) -> int:
    """In how many of the runs the control comes out as wanted."""
    outcomes = [run(np.random.default_rng(seed)) for seed in range(RUNS)]
    assert None not in outcomes
    return outcomes.count(wanted)


UNKNOWN = Claim("nobody knows", "nobody should know, but somebody does")

# Membership.


def members(rng: np.random.Generator, noise: Draw, effect: float) -> bool | None:
    """The positive control; `effect`: by how much forget is raised in the original."""
    return controls.tells_members(stats.auc(noise(rng, 40) + effect, noise(rng, 60))).holds


@each_noise
def test_membership_that_sees_nothing_fails_its_positive_control(noise: Draw) -> None:
    assert often(lambda rng: members(rng, noise, 0.0), True) <= MOST


def test_membership_that_sees_passes_its_positive_control() -> None:
    assert often(lambda rng: members(rng, NOISE["normal"], 1.0), True) >= RUNS - MOST


def arms(rng: np.random.Generator, noise: Draw, *, models: int, effect: float = 0.0, sizes: int = 40) -> Control:
    """The negative control: models that know neither arm, and find some examples harder than others alike."""
    hard = noise(rng, 2 * sizes)
    shown = [hard + 0.5 * noise(rng, 2 * sizes) for _ in range(models)]
    return controls.tells_nothing([Arms(one[:sizes] + effect, one[sizes:]) for one in shown], UNKNOWN)


@each_noise
@pytest.mark.parametrize(("models", "sizes"), [(1, 5), (2, 10), (5, 40)])
def test_a_sound_scored_attack_passes_its_negative_control(noise: Draw, models: int, sizes: int) -> None:
    """Whether the original memorised anything is all the same."""
    assert often(lambda rng: arms(rng, noise, models=models, sizes=sizes).holds, False) <= MOST


@each_noise
def test_a_scored_attack_that_peeks_fails_its_negative_control(noise: Draw) -> None:
    for side in (2.0, -2.0):
        assert often(lambda rng, side=side: arms(rng, noise, models=3, effect=side).holds, False) >= RUNS - MOST


def test_a_variance_that_is_known_to_be_larger_is_taken_into_account() -> None:
    """Two copies of each score are no two examples, which doubles the variance of their mean rank."""

    def failed(rng: np.random.Generator, inflation: float) -> bool | None:
        twice = Arms(np.repeat(rng.normal(size=20), 2), np.repeat(rng.normal(size=20), 2))
        return controls.tells_nothing([twice], UNKNOWN, inflation=inflation).holds

    assert often(lambda rng: failed(rng, 1.0), False) > MOST
    assert often(lambda rng: failed(rng, 2.0), False) <= MOST


def test_where_fewer_than_half_is_chance_only_more_fails() -> None:
    high, low = np.arange(10.0) + 20, np.arange(10.0)
    assert controls.tells_nothing([Arms(low, high)], UNKNOWN, upwards=True).holds is True
    assert controls.tells_nothing([Arms(high, low)], UNKNOWN, upwards=True).holds is False


def test_too_few_examples_are_no_control() -> None:
    """Of 3 and 3 the most extreme order has a chance of 2 / 20, of 4 and 4 of 2 / 70; of 1 and 39 it has 2 / 40."""
    few = controls.tells_nothing([Arms(np.arange(3.0) + 9, np.arange(3.0))], UNKNOWN)
    assert few == Control("nobody knows (no test: 3 and 3 examples are too few)")
    assert controls.tells_nothing([Arms(np.arange(4.0) + 9, np.arange(4.0))], UNKNOWN).holds is False
    assert [controls.too_few(1, n) for n in (38, 39)] == [True, False]
    assert not controls.too_few(10**6, 10**6)


# Residual knowledge.


def test_recognition_that_sees_nothing_fails_and_one_that_sees_passes() -> None:
    def ratio(rng: np.random.Generator, p: float) -> bool | None:
        retrained = rng.binomial(100, rng.beta(4, 4, 60))
        return controls.recognises(stats.ratio(rng.binomial(100, p, 60) if p else retrained, retrained)).holds

    assert often(lambda rng: ratio(rng, 0.0), True) == 0
    assert often(lambda rng: ratio(rng, 0.5), True) <= MOST
    assert often(lambda rng: ratio(rng, 0.95), True) >= RUNS - MOST
    assert controls.recognises(Estimate(value=None, note="needs a model")).holds is None


# Recovery.


def copy_of(rng: np.random.Generator, noise: Draw, *, back: float, choices: int = 3) -> DisguisedCopy:
    """A copy that hides 20 of 50 examples, by a plain look; an attack whose own look is noise, but for `back`.

    Each of its choices has five budgets.
    """
    hides = np.r_[np.ones(20), np.zeros(30)]
    points = np.stack([noise(rng, 50) + back * hides for _ in range(5 * choices)])
    return DisguisedCopy(hides, noise(rng, 50) + back * hides, noise(rng, 50), points, range(4, 5 * choices, 5))


@each_noise
def test_recovery_that_sees_nothing_fails_its_positive_control(noise: Draw) -> None:
    assert often(lambda rng: controls.brings_back(copy_of(rng, noise, back=0.0)).holds, True) <= MOST


def test_recovery_that_brings_back_passes_its_positive_control() -> None:
    noise: Draw = lambda rng, n: 0.1 * rng.random(n)  # noqa: E731
    assert often(lambda rng: controls.brings_back(copy_of(rng, noise, back=0.9)).holds, True) >= RUNS - MOST


def test_half_of_what_is_hidden_must_come_back() -> None:
    """Twenty of forty are hidden; those that the copy shows all along don't count."""
    hides = np.repeat([1.0, 0.0], 20)

    def back(share: float) -> bool | None:
        attacked = np.stack([1 - hides, 1 - hides * share])
        return controls.brings_back(DisguisedCopy(hides, np.ones(40), 1 - hides, attacked, [1])).holds

    assert (back(0.5), back(0.51), back(1.0)) == (True, False, False)


@pytest.mark.parametrize(("hidden", "known"), [(4, None), (6, None), (20, False)])
def test_a_copy_that_hides_too_little_is_no_control(hidden: int, known: bool | None) -> None:
    """Four can't show that anything came back, and six can't where half of them does; twenty can, and here don't."""
    hides = np.r_[np.ones(hidden), np.full(20, 0.05)]
    back = np.where(np.arange(len(hides)) < hidden // 2, 1.0, 1 - hides)
    attacked = np.stack([back, 1 - hides])  # gone again at the largest budget
    control = controls.brings_back(DisguisedCopy(hides, np.ones(len(hides)), 1 - hides, attacked, [1]))
    assert control.holds is known
    few = f"(no test: the copy hides {hidden} of the {len(hides)} tested examples, too few for 1 choices)"
    assert control.sentence.endswith(few) is (known is None)


@each_noise
def test_without_a_copy_an_attack_that_sees_nothing_fails(noise: Draw) -> None:
    def beside_retrained(rng: np.random.Generator) -> bool | None:
        return controls.shows(noise(rng, 30), np.stack([noise(rng, 30) for _ in range(3)]), np.empty(0)).holds

    def beside_holdout(rng: np.random.Generator) -> bool | None:
        return controls.shows(noise(rng, 30), np.empty(0), noise(rng, 30)).holds

    assert often(beside_retrained, True) <= MOST
    assert often(beside_holdout, True) <= MOST


def test_without_a_copy_an_attack_that_sees_passes() -> None:
    known, unknown = np.linspace(0.8, 1, 20), np.linspace(0, 0.3, 20)
    assert controls.shows(known, np.stack([unknown, unknown]), np.empty(0)).holds is True
    assert controls.shows(known, np.empty(0), unknown).holds is True
    assert controls.shows(known, np.empty(0), np.empty(0)).holds is None
    assert controls.shows(known[:4], np.stack([unknown[:4]]), np.empty(0)).holds is None


def test_what_brings_all_back_everywhere_fails_the_negative_control() -> None:
    """The original knew all of it before, retrained models none; where both knew it there is nothing to say."""

    def row(original: float, retrained: float) -> Measurement:
        values = {"original": original, "unlearned": 0.5, "retrained 0": retrained}
        return Row("x", "x", "recovery").measured({role: Estimate(value=value) for role, value in values.items()})

    known, unknown = np.ones(20), np.zeros((2, 20))
    for sooner, least, most in ((False, 0.9, 1.0), (True, 5.0, 1.0)):
        assert controls.shows_less(row(most, most), known, unknown, sooner=sooner) is not None
        assert controls.shows_less(row(most, least), known, unknown, sooner=sooner) is None
        assert controls.shows_less(row(most, most), known, unknown + 1, sooner=sooner) is None


# Inspections.


def inspections(rng: np.random.Generator, hidden: float, references: int) -> tuple[Control, Control]:
    values = rng.normal(5, 0.3, references).tolist()
    seen = Estimate(value=float(rng.normal(5, 0.3)) + hidden)
    return controls.sees_hidden(seen, values, 1), controls.sees_none(values, 1)


@pytest.mark.parametrize("references", [3, 5, 8])
def test_controls_of_inspections(references: int) -> None:
    """One that sees nothing takes the copy for one more retrained model; the negative one needs no copy at all."""
    assert often(lambda rng: inspections(rng, 0.0, references)[0].holds, True) <= MOST
    assert often(lambda rng: inspections(rng, 3.0, references)[0].holds, True) >= RUNS - MOST
    assert often(lambda rng: inspections(rng, 3.0, references)[1].holds, False) <= MOST


def test_an_inspection_that_sees_nothing_or_what_is_not_there() -> None:
    """One figure for all models; then the figure of what is hidden for a retrained model, which never met it."""
    assert controls.sees_hidden(Estimate(value=0.3), [0.3, 0.3, 0.3], 1).holds is False
    assert controls.sees_none([0.3, 0.3, 0.3], 1).holds is True
    assert controls.sees_none([0.31, 0.3, 0.9, 0.29], 1).holds is False
    assert controls.sees_none([0.31, 0.3, 0.9, 0.29], -1).holds is True
    assert controls.sees_none([0.71, 0.7, 0.1, 0.69], -1).holds is False


@dataclass(frozen=True)
class Inspecting(InspectionAttack):
    """Looks at nothing, but may take one retrained model for one that knows."""

    title: ClassVar[str] = "Inspecting"
    threat: ClassVar[ThreatModel] = ThreatModel(access="none", data="none", budget="none")
    shows: ClassVar[str] = "nothing"
    axis: ClassVar[str] = "none"
    unit: ClassVar[str] = "none"
    peeks: bool = False

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        value = float(self.peeks and model is setting.models.retrained[1])
        return Inspection((1.0,), {"value": (value,)}, Estimate(value=value))


def test_inspections_of_trained_models(samples_world: World) -> None:
    w = samples_world
    setting = Setting(Models(w.original, w.original, w.retrained), w.request, w.task, 0, CPU)
    sound, blind, peeking = (
        inspection_finding(attack, setting).report for attack in (CKA(), Inspecting(), Inspecting(True))
    )
    assert (sound.positive_holds, sound.negative_holds) == (True, True)
    assert (blind.positive_holds, blind.negative_holds) == (False, True)
    assert (peeking.positive_holds, peeking.negative_holds) == (False, False)


def test_too_few_retrained_models_are_no_control_of_an_inspection() -> None:
    hidden = Estimate(value=0.9)
    assert controls.sees_none([0.1, 0.2], 1) == Control(
        "no retrained model stands out from the others (no test: it takes 3 retrained models, there are 2)"
    )
    assert controls.sees_hidden(hidden, [0.1], 1).holds is None
    assert controls.sees_hidden(Estimate(value=None, note="no layer"), [0.1, 0.2], 1).sentence.endswith("no layer)")
    assert controls.sees_hidden(hidden, [0.1, 0.2], 0).holds is controls.sees_none([0.1] * 5, 0).holds is None


def test_a_control_that_fails_says_what_should_have_been() -> None:
    """What it expects would state the opposite of what happened."""
    alike = Estimate(value=1.0, note=stats.ALIKE)
    assert controls.recognises(alike) == Control(
        "the original should recognise more than retrained models do, but does not: r = 1.00 for every example", False
    )
    wide = controls.tells_members(Estimate(value=0.6, low=0.4, high=0.8))
    assert wide.sentence.startswith("should tell forget from holdout in the original, but does not: AUC 0.60, ")
    shown = np.zeros((1, 8))
    blind = controls.brings_back(DisguisedCopy(np.ones(8), np.ones(8), np.zeros(8), shown, [0]))
    assert blind.sentence == (
        "should bring back what a copy of the original only hides, but does not: the copy shows 0.00, attacked 0.00, "
        "the original 1.00, on 8 examples"
    )
    odd = controls.sees_none([0.0, 0.01, 0.02, 0.03, 9.0], 1)
    assert odd.sentence.startswith("no retrained model should stand out from the others, but one does: 9.00, ")
    random = np.zeros((3, 20))
    useless = controls.harm_less(np.ones(20), {"random requests": random, "another": np.ones((1, 20))}, random)
    assert useless.sentence.startswith("these should harm at most half as much as its 1.00, but not all of them do: ")


@pytest.mark.parametrize(
    ("chance", "text"), [(0.0, "p < 0.01"), (0.012, "p = 0.01"), (0.0496, "p = 0.0496"), (0.0504, "p = 0.0504")]
)
def test_a_p_lies_on_the_side_of_the_level_on_which_it_is_said_to_lie(chance: float, text: str) -> None:
    assert controls._p(chance) == text


# Deletion attacks.


def harmed(rng: np.random.Generator, share: float, requests: int = 1) -> np.ndarray:
    return (rng.random((requests, 60)) < share).astype(float)


def test_controls_of_deletion_attacks() -> None:
    """One that picks at random is one more random request; where everything harms, nothing was aimed at the victim."""
    blind = [
        often(lambda rng, p=p: controls.harms(harmed(rng, p)[0], harmed(rng, p, 3)).holds, True) for p in (0.1, 0.6)
    ]
    assert max(blind) <= MOST
    aimed = often(lambda rng: controls.harms(harmed(rng, 0.6)[0], harmed(rng, 0.1, 3)).holds, True)
    assert aimed >= RUNS - MOST

    def held(rng: np.random.Generator, retrained: float) -> bool | None:
        random = harmed(rng, 0.1, 3)
        others = {"random requests": random, "retraining": harmed(rng, retrained)}
        return controls.harm_less(harmed(rng, 0.7)[0], others, random).holds

    assert often(lambda rng: held(rng, 0.1), False) <= MOST
    assert often(lambda rng: held(rng, 0.7), False) >= RUNS - MOST
    assert controls.harms(np.ones(4), np.zeros((1, 4))).holds is None


# Attacks that are run, on models that were trained.

NOBODY = ThreatModel(access="none", data="none", budget="none")


def report_on(attack: ScoredAttack, w: World, *, alone: bool = False) -> AttackReport:
    models = Models(w.original, w.original, () if alone else w.retrained)
    return score_finding(attack, Setting(models, w.request, w.task, 0, CPU)).report


@dataclass(frozen=True)
class Member(MembershipAttack):
    """Says what `member` says of each arm, whatever the model."""

    title: ClassVar[str] = "Member"
    threat: ClassVar[ThreatModel] = NOBODY
    peeks: bool = True

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        return np.full(len(evidence.signals[split]), float(self.peeks and split == "forget"))


@pytest.mark.parametrize("alone", [False, True])
def test_membership_that_peeks_or_sees_nothing(samples_world: World, alone: bool) -> None:
    peeking, blind = (report_on(Member(peeks), samples_world, alone=alone) for peeks in (True, False))
    assert (peeking.positive_holds, peeking.negative_holds) == (True, False)
    assert (blind.positive_holds, blind.negative_holds) == (False, True)
    half = "the original should not tell one half of the holdout from the other, but does: AUC 1.00, p < 0.01"
    who = half if alone else "retrained models should not tell forget from holdout, but do: AUC 1.00, p < 0.01"
    assert peeking.negative_control.startswith(who)


def test_an_original_that_memorised_nothing_fails_no_negative_control(samples_world: World) -> None:
    """Retrained models see no more than it does, as they should."""
    w = replace(samples_world, original=samples_world.retrained[0], retrained=samples_world.retrained[1:])
    assert report_on(Loss(), w).negative_holds is True


@dataclass(frozen=True)
class Brings(RecoveryAttack):
    """Brings the original, where the model asked is not it: whoever is attacked, it knows everything."""

    title: ClassVar[str] = "Brings"
    threat: ClassVar[ThreatModel] = NOBODY
    axis: ClassVar[str] = "nothing"

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        yield Attacked(1.0, setting.models.original, pool.tested)


@dataclass(frozen=True)
class Undisguised(Brings):
    """Hands the model back, and has no copy that hides."""

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        yield Attacked(1.0, model, pool.tested)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        return None


@dataclass(frozen=True)
class Blind(Undisguised):
    """Finds nine of ten examples shown, whatever the model."""

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        return Success((np.arange(len(examples)) % 10 > 0).astype(float))


@dataclass(frozen=True)
class Taught(Undisguised):
    """Is taught from forget, and knows no other form."""

    def teaches(self, n: int, request: Request) -> int:
        return 2


@dataclass(frozen=True)
class Peeking(Taught):
    """Takes every answer to half of forget, which it knows from the request, for right, however it is taught."""

    dose: Dose = "forget"

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        peeked = [inputs for inputs, _ in list(iterate(setting.request.forget))[::2]]

        def as_answered(item: tuple[torch.Tensor, int]) -> tuple[torch.Tensor, int]:
            known = any(torch.equal(item[0], inputs) for inputs in peeked)
            return (item[0], int(model(item[0][None]).argmax())) if known else item

        yield Attacked(1.0, model, tuple([as_answered(item) for item in iterate(part)] for part in pool.tested))


def test_recovery_that_brings_the_original_fails_its_negative_control(class_world: World) -> None:
    report = report_on(Brings(), class_world)
    assert (report.positive_holds, report.negative_holds) == (True, False)
    assert report.negative_control.startswith("retrained models should show less than the original")


def test_recovery_without_a_copy_can_fail(class_world: World) -> None:
    sound, blind = (report_on(attack, class_world) for attack in (Undisguised(), Blind()))
    assert (sound.positive_holds, sound.negative_holds) == (True, True)
    assert (blind.positive_holds, blind.negative_holds) == (False, True)
    assert report_on(Blind(), class_world, alone=True).positive_holds is False


def test_an_attack_that_is_taught_from_forget_is_taught_from_both_for_its_control(samples_world: World) -> None:
    relearn = Relearn(steps=(4,), learning_rates=(1e-2,))
    assert report_on(relearn, samples_world).negative_control.startswith("a retrained model, taught from both, doesn't")
    both = report_on(replace(relearn, dose="both"), samples_world)
    assert both.negative_control.startswith("retrained models don't tell forget from holdout: AUC")
    assert report_on(relearn, samples_world, alone=True).negative_holds is None
    other = report_on(Taught(), samples_world)
    assert other.negative_holds is None
    assert other.negative_control.endswith("(no test: it is taught from forget alone, and knows no other form)")


def test_a_taught_attack_that_peeks_fails_its_negative_control(class_world: World) -> None:
    """The original knew all of forget, and after the attack each retrained model knows half; of holdout it has none."""
    report = report_on(Peeking(), class_world)
    assert report.negative_holds is False
    assert report.negative_control.startswith(
        "a retrained model, taught from both, should not tell forget from holdout"
    )


def test_the_negative_control_of_residual_knowledge_is_no_identity(samples_world: World) -> None:
    """One that counts every draw of forget and none of holdout."""

    @dataclass(frozen=True)
    class Peeks(ResidualKnowledge):
        def scores(self, subject: Subject, pool: Pool, setting: Setting) -> Scores:
            scores = super().scores(subject, pool, setting)
            return replace(scores, shown=(np.ones_like(scores.shown[0]), np.zeros_like(scores.shown[1])))

    small = {"radius_max": 0.2, "points": 2, "draws": 10}
    assert report_on(ResidualKnowledge(**small), samples_world).negative_holds is True
    assert report_on(Peeks(**small), samples_world).negative_holds is False


# The halves of the holdout.


def test_signals_of_some_examples() -> None:
    """Of three examples with two, one and three rows: the third, then the first."""
    example = np.array([0, 0, 1, 2, 2, 2])
    per_row = np.arange(6.0)
    of = np.arange(3.0)
    signals = Signals(of, of, of, of[:, None], *[per_row] * 2, example, *[per_row] * 3)
    part = signals.part(np.array([2, 0]))
    assert part.loss.tolist() == [2, 0]
    assert part.features.tolist() == [[2], [0]]
    assert part.log_prob.tolist() == part.target.tolist() == [3, 4, 5, 0, 1]
    assert part.example.tolist() == [0, 0, 0, 1, 1]
    assert [rows.tolist() for rows in part.of_rows(part.log_prob)] == [[3, 4, 5], [0, 1]]
    assert len(signals.part(np.array([], int))) == 0


def test_an_idle_disguise_leaves_no_control(samples_world: World) -> None:
    """A copy in which a plain look finds everything hides nothing."""

    @dataclass(frozen=True)
    class Open(Brings):
        def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
            return original

    report = report_on(Open(), samples_world)
    assert report.positive_holds is None
    assert "the copy hides 0 of the 20 tested examples" in report.positive_control
