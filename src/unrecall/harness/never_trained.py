"""The fixed suite, run on the unlearned and the original model: scores of forget and holdout, to be judged together.

Which attacks run, how long and at what rate is settled before any model is looked at: a suite that is chosen by what it
finds in the original knows the arms, and then calls retrained models leaks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall import attacks
from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.lira import logit
from unrecall.data.covariates import Covariates
from unrecall.data.examples import Absent, Joined, Selection, evenly
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.cache import ARRAYS
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.errors import NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.harness.memory_left import HIGHEST, LOWEST
from unrecall.metrics.ranking import recalls
from unrecall.models.observe import mean_loss, observe
from unrecall.nn.waiting import ask_for
from unrecall.record.never_trained import (
    COMPARED,
    FEWEST_HOLDOUT,
    SHARED,
    TAUGHT_STEPS,
    PoolScores,
    Stated,
    judge,
    not_judged,
    seed_of,
)
from unrecall.record.schema import NeverTrained
from unrecall.tasks.base import Task
from unrecall.tasks.difficulty import difficulty
from unrecall.tasks.protocols import Classifying, Recommending, Textual, offers
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import TimeLeft

FEWEST_TO_HALVE = 40
"""From this many groups (or planted pairs) of forget on the pool is halved: one half is taught, the other tested.

Then the reverse.
"""
RETAIN_SAMPLE = 500
"""Retain examples on which an attacked model's loss is looked at."""

GENTLE = Fit(batch_size=64, momentum=0.9, weight_decay=0.0, batchnorm="frozen", clip=5.0)
GENTLE_TEXT = Fit(optimizer="adamw", batch_size=16, weight_decay=0.0, clip=5.0)
RATE, RATE_TEXT = 0.02, 1e-3
UNTIL = 0.5
"""Relearning stops once this part of its pool's excess loss is gone."""
LARGE, RANK = 300_000_000, 16
"""Weights from which on a language model is fine-tuned by a low-rank change of that rank, at the same rate."""


class FixedAttack(NamedTuple):
    """An attack of the fixed suite. `attack` None: the model is looked at as it is. `taught`: from both arms alike."""

    name: str
    title: str
    attack: RecoveryAttack | None = None
    taught: bool = False

    @property
    def steps(self) -> tuple[int, ...]:
        """After how many steps of fine-tuning it may end, the fewest first; none where it takes none."""
        return tuple(sorted(self.attack.steps)) if isinstance(self.attack, attacks.Relearn) else ()


def fixed_suite(task: Task, *, rate: float | None = None, large: bool = False) -> tuple[FixedAttack, ...]:
    """The attacks for a task, in order.

    `rate`: of fine-tuning; by default 0.02 with SGD, which is two fifths of what small classifiers are trained at, and
    0.001 with AdamW for texts. `large`: a language model's weights are held while it is fine-tuned, and a low-rank
    change is trained.
    """
    textual = offers(task, Textual)
    rate = (RATE_TEXT if textual else RATE) if rate is None else rate
    if textual:
        rank = RANK if large else 0
        return (
            FixedAttack("as_it_is", "As it is"),
            FixedAttack("quantise", "Rounding to 4 bits", attacks.Quantise(bits=(4,))),
            *(_benign(count, rate, GENTLE_TEXT, rank) for count in (15, 120)),
            _symmetric(rate, GENTLE_TEXT, rank),
        )
    of_classifiers = (
        FixedAttack("recalibration", "BatchNorm recalibration", attacks.Recalibration(counts=(2048,))),
        FixedAttack("head_refit", "Refit of the head on retain", attacks.HeadRefit(counts=(10_000,))),
    )
    return (
        FixedAttack("as_it_is", "As it is"),
        *(of_classifiers if offers(task, Classifying) else ()),
        _benign(20, rate, GENTLE),
        _symmetric(rate, GENTLE),
    )


def is_large(model: nn.Module) -> bool:
    """Whether a model, if of language, is fine-tuned by a low-rank change."""
    return sum(p.numel() for p in model.parameters()) > LARGE


def _benign(steps: int, rate: float, recipe: Fit, rank: int = 0) -> FixedAttack:
    attack = attacks.Relearn(data="benign", steps=(steps,), learning_rates=(rate,), fit=recipe, rank=rank)
    return FixedAttack(f"benign_{steps}", f"Fine-tuning on retain, {steps} steps", attack)


def _symmetric(rate: float, recipe: Fit, rank: int = 0) -> FixedAttack:
    attack = attacks.Relearn(
        dose="both", steps=TAUGHT_STEPS, until=UNTIL, learning_rates=(rate,), fit=recipe, rank=rank
    )
    title = f"Teaching it forgotten and never-trained records alike, at most {TAUGHT_STEPS[-1]} steps"
    return FixedAttack("symmetric", title, attack, taught=True)


@dataclass(frozen=True)
class MixedArms:
    """The examples of forget and holdout in one order, which doesn't depend on the arms.

    `examples`: the pool. `forget` [n]: which of them are forget. `group` [n]: the number of each one's person; its own
    where there are no persons. `half` [n]: 0 or 1, the same for all of a person's; all 0 where the pool isn't halved.
    `stratum` [n]: the group within which labels are dealt out anew: a half, or a planted record's two wordings.
    """

    examples: Selection
    forget: np.ndarray
    group: np.ndarray
    half: np.ndarray
    stratum: np.ndarray

    @cached_property
    def crossed(self) -> bool:
        """Whether one half is taught and the other tested."""
        return bool(self.half.any())

    def of_half(self, half: int) -> Selection:
        """The examples of one half."""
        return Selection(self.examples, np.flatnonzero(self.half == half).tolist())


def mix_arms(request: Request, seed: int) -> MixedArms:
    """The pool in the order of its contents' digests, salted with the seed; halves of each arm are drawn apart from it.

    So neither order nor halves tell which labelling is the true one.
    """
    n, digests = len(request.forget), [*request.digests["forget"], *request.digests["holdout"]]
    order = np.argsort(np.array([content_key(str(seed), digest) for digest in digests]), kind="stable")
    if request.groups is None and request.pairs is None:  # an example that holdout has twice is one
        once = {digests[i]: i for i in reversed(range(len(digests)))}
        order = order[[once[digests[i]] == i for i in order]]
    forget, rng = order < n, np.random.default_rng(seed)
    examples = Selection(Joined((request.forget, request.holdout)), order.tolist())
    if request.pairs is not None:
        stratum = _pairs(order, request.pairs)
        half = rng.permutation(np.arange(n) % 2)[stratum] if n >= FEWEST_TO_HALVE else np.zeros(2 * n, int)
        return MixedArms(examples, forget, np.arange(2 * n), half, stratum)
    named = np.array(request.group_names or [str(i) for i in range(len(digests))], str)[order]
    _, first, place = np.unique(named, return_index=True, return_inverse=True)
    group, arm_of = np.argsort(np.argsort(first))[place], forget[np.sort(first)]
    half_of_group = np.zeros(len(arm_of), int)
    if min(arm_of.sum(), (~arm_of).sum()) >= FEWEST_TO_HALVE:
        for arm in (arm_of, ~arm_of):
            half_of_group[arm] = rng.permutation(np.arange(arm.sum()) % 2)
    return MixedArms(examples, forget, group, half_of_group[group], half_of_group[group])


def _pairs(order: np.ndarray, pairs: Sequence[int]) -> np.ndarray:
    """For each example of the pool the number of its pair; pairs are numbered as their first examples stand."""
    n, position = len(pairs), np.argsort(order)
    first = np.minimum(position[:n], position[n + np.array(pairs, int)])
    number, of_example = np.argsort(np.argsort(first)), np.empty(2 * n, int)
    of_example[np.arange(n)] = of_example[n + np.array(pairs, int)] = number
    return np.asarray(of_example[order])


def steps_taken(suite: Sequence[FixedAttack], request: Request) -> tuple[int, int]:
    """How many steps of fine-tuning the suite takes of a model, at least and at most."""
    halves = 2 if mix_arms(request, 0).crossed else 1  # each of which is taught to a copy of its own
    fewest, most = (
        sum(fixed.steps[end] * (halves if fixed.taught else 1) for fixed in suite if fixed.steps) for end in (0, -1)
    )
    return fewest, most


def beside_never_trained(setting: Setting, rate: float | None = None) -> tuple[NeverTrained, dict[str, np.ndarray]]:
    """The verdict on the unlearned model, and the scores that it follows from, as arrays by name.

    No retrained model is looked at. Where there is no holdout, or a class or concept is to be forgotten, the verdict
    says that there is none. The same inputs and seed give the same verdict.
    """
    request, task = setting.request, setting.task
    if request.kind in SHARED:
        return not_judged(_shared(setting), request.control, unchanged=_unchanged(setting)), {}
    if isinstance(request.holdout, Absent):
        return not_judged(request.holdout.reason, unchanged=_unchanged(setting)), {}
    if len(request.holdout) < FEWEST_HOLDOUT:
        few = f"expected a holdout of at least {FEWEST_HOLDOUT} records, got {len(request.holdout)}."
        return not_judged(few, request.control, unchanged=_unchanged(setting)), {}
    seed = seed_of(request.fingerprint, setting.seed)
    mixed = mix_arms(request, seed)
    suite = fixed_suite(task, rate=rate, large=is_large(setting.models.original))
    # An attack takes about a look at all examples, and one step as long for each of fine-tuning.
    roles, time_left = ("unlearned", "original"), TimeLeft([1 + max(fixed.steps, default=0) for fixed in suite] * 2)
    by_role = {role: scores_of(role, suite, mixed, setting.with_seed(seed), time_left) for role in roles}
    absent = {name: reason for scores in by_role.values() for name, reason in scores.absent.items()}
    run = [fixed for fixed in suite if fixed.name not in absent]
    covariates = _difficulty(mixed, setting.with_seed(seed))
    scores = _pool_scores(run, by_role, mixed, covariates, _correct(setting))
    stated = Stated(
        control=request.control,
        unchanged=_unchanged(setting),
        seed=seed,
        covariates=dict(zip(covariates.names, covariates.groups, strict=True)),
        trained_on=covariates.trained_on,
        attacks={
            fixed.name: (fixed.title, _parameters(fixed), by_role["unlearned"].losses[fixed.name]) for fixed in run
        },
        steps=by_role["unlearned"].steps,
        absent=absent,
    )
    return judge(scores, stated), scores.arrays() | {"stated": stated.array()}


def _difficulty(mixed: MixedArms, setting: Setting) -> Covariates:
    """How hard each example of the pool is; computed once for all models that are audited on the same request."""

    def arrays() -> dict[str, np.ndarray]:
        covariates = difficulty(setting.task, setting.request.retain, mixed.examples, setting.seed)
        words = {"names": covariates.names, "groups": covariates.groups, "trained_on": (covariates.trained_on,)}
        return {"values": covariates.values} | {name: np.array(texts, str) for name, texts in words.items()}

    key = (setting.request.fingerprint, repr(setting.task), setting.task_key, str(setting.seed), code_key(difficulty))
    named = setting.cache.get("difficulty", key, ARRAYS, arrays)
    names, groups = (tuple(map(str, named[name])) for name in ("names", "groups"))
    return Covariates(names, groups, named["values"], trained_on=str(named["trained_on"][0]))


def _unchanged(setting: Setting) -> bool:
    return setting.digests["unlearned"] == setting.digests["original"]


def _shared(setting: Setting) -> str:
    """Why a class or a concept isn't judged, and what can be stated all the same."""
    right = {role: setting.evidence[role].signals for role in ("unlearned", "original")}
    stated = [
        f"of {split} it gets {right['unlearned'][split].correct.mean():.0%} right, "
        f"the original {right['original'][split].correct.mean():.0%}"
        for split in ("forget", "holdout")
        if len(setting.request[split])
    ]
    shared = "which forget and holdout share" if len(setting.request.holdout) else "which a holdout would share"
    return (
        f"a whole {setting.request.kind} is to be forgotten, {shared}. Stated: "
        f"{'; '.join(stated)}. What a model gets right that never met it, only retrained models show, or small ones "
        "that were trained on retain."
    )


def _parameters(fixed: FixedAttack) -> dict[str, object]:
    return {} if fixed.attack is None else fixed.attack.as_dict()


def _correct(setting: Setting) -> dict[str, np.ndarray]:
    """What the unlearned model and the original get right of each split that there is, `[2, examples]`.

    A recommender hardly ever names the one item first: of it, recall at 10 of each user in the test set `[2, users]`.
    """
    if offers(setting.task, Recommending):
        by_role = setting.models.by_role()
        values = recalls([by_role["unlearned"], by_role["original"]], setting.task, setting.request)
        return {"test": values} if values.size else {}
    signals = [setting.evidence[role].signals for role in ("unlearned", "original")]
    splits: list[Split] = [split for split in SPLITS if split in COMPARED and len(setting.request[split])]
    return {split: np.stack([by_split[split].correct for by_split in signals]) for split in splits}


class ModelScores(NamedTuple):
    """One model's scores `[n]` and losses by attack, steps of relearning, and why some attacks could not be run."""

    shown: Mapping[str, np.ndarray]
    losses: Mapping[str, dict[str, float]]
    steps: Mapping[str, list[int]]
    absent: Mapping[str, str]


def scores_of(
    role: str, suite: tuple[FixedAttack, ...], mixed: MixedArms, setting: Setting, time_left: TimeLeft | None = None
) -> ModelScores:
    """What each attack shows of each example of the pool under one model; computed once for the same inputs.

    `time_left`: what people are told while they wait.
    """
    model = setting.models.by_role()[role]
    own = without_arms(setting, role)
    shown, losses = dict[str, np.ndarray](), dict[str, dict[str, float]]()
    steps, absent = dict[str, list[int]](), dict[str, str]()
    for fixed in suite:
        left = time_left.words() if time_left else ""
        setting.session.say(f"beside never-trained records: {fixed.title}, {role}{left}")
        code = code_key(fixed.attack or observe, _attacked)
        key = (repr(fixed), *setting.key, setting.model_keys[role], str(setting.seed), code)
        try:
            arrays = setting.cache.get("never-trained", key, ARRAYS, _attacked(fixed, model, mixed, own))
        except NotSupported as reason:
            absent[fixed.name] = str(reason)
            continue
        shown[fixed.name] = arrays["shown"]
        losses[fixed.name] = dict(zip(("retain", "pool"), arrays["losses"].tolist(), strict=True))
        if fixed.steps:
            steps[fixed.name] = arrays["steps"].tolist()
    return ModelScores(shown, losses, steps, absent)


def judgeable(request: Request) -> bool:
    """Whether a request's records can be held beside others that were never trained on."""
    return request.kind not in SHARED and len(request.holdout) >= FEWEST_HOLDOUT


def shown_by_original(suite: tuple[FixedAttack, ...], setting: Setting) -> ModelScores:
    """What attacks show of the original."""
    seed = seed_of(setting.request.fingerprint, setting.seed)
    return scores_of("original", suite, mix_arms(setting.request, seed), setting.with_seed(seed))


def z_of_original(setting: Setting) -> float:
    """The z by which the original, as it is, knows forget beyond holdout: the audit's own figure before any attack."""
    seed, as_it_is = seed_of(setting.request.fingerprint, setting.seed), fixed_suite(setting.task)[:1]
    own, mixed = setting.with_seed(seed), mix_arms(setting.request, seed)
    shown = scores_of("original", as_it_is, mixed, own)
    both = {"unlearned": shown, "original": shown}
    scores = _pool_scores(as_it_is, both, mixed, _difficulty(mixed, own), {})
    return judge(scores, Stated(setting.request.control, unchanged=False, seed=seed)).attacks[0].z_original


def _pool_scores(
    suite: Sequence[FixedAttack],
    by_role: Mapping[str, ModelScores],
    mixed: MixedArms,
    covariates: Covariates,
    correct: dict[str, np.ndarray],
) -> PoolScores:
    """What the verdict follows from: the scores of both models, who is forgotten, and how hard each example is."""
    return PoolScores(
        attacks=tuple(fixed.name for fixed in suite),
        unlearned=np.stack([by_role["unlearned"].shown[fixed.name] for fixed in suite]),
        original=np.stack([by_role["original"].shown[fixed.name] for fixed in suite]),
        forget=mixed.forget,
        half=mixed.half,
        stratum=mixed.stratum,
        group=mixed.group,
        covariates=covariates.values,
        kinds=covariates.groups,
        correct=correct,
    )


def without_arms(setting: Setting, role: str) -> Setting:
    """What an attack of the fixed suite may read: one model, the task, retain; not forget, holdout, or the original."""
    only = replace(setting, models=setting.models.alone(role), request=setting.request.only("retain"), defender=None)
    return only.with_seed(setting.seed)


def _attacked(
    fixed: FixedAttack, model: nn.Module, mixed: MixedArms, setting: Setting
) -> Callable[[], dict[str, np.ndarray]]:
    """What computes an attack's scores of one model.

    `shown` [n]; `losses` [2], the means on retain and on the pool; `steps`, what each attacked copy had cost.
    """

    def arrays() -> dict[str, np.ndarray]:
        task, n = setting.task, len(mixed.examples)
        ask_for(model)
        sample = Selection(setting.request.retain, evenly(len(setting.request.retain), RETAIN_SAMPLE))
        shown, retain, pool, steps = np.full(n, np.nan), [], [], []
        for (cost, attacked), places, examples in _models(fixed, model, mixed, setting):
            losses = observe(attacked, task, examples).loss
            steps.append(cost)
            shown[places] = confidence(losses, task)
            retain.append(mean_loss(attacked, task, sample))
            pool.append(losses.mean())
        means = np.array([np.mean(retain), np.mean(pool)])
        return {"shown": shown, "losses": means, "steps": np.array(steps, np.int64)}

    return arrays


def _models(
    fixed: FixedAttack, model: nn.Module, mixed: MixedArms, setting: Setting
) -> Iterator[tuple[tuple[int, nn.Module], np.ndarray, Selection]]:
    """The attacked model with its cost, which examples of the pool it scores, and these: once, or once for each half.

    An attack that diverges, or moves no weight, leaves the model as it was and has cost nothing.
    """
    whole, everywhere = mixed.examples, np.arange(len(mixed.examples))
    if fixed.attack is None:
        yield (0, model), everywhere, whole
        return
    state = seeded(setting.seed).get_state()
    if not (fixed.taught and mixed.crossed):
        pool = Pool(whole if fixed.taught else (), (whole,), state)
        yield _last(fixed.attack, model, pool, setting), everywhere, whole
        return
    for half in (0, 1):
        tested = mixed.of_half(1 - half)
        pool = Pool(mixed.of_half(half), (tested,), state)
        yield _last(fixed.attack, model, pool, setting), np.flatnonzero(mixed.half == 1 - half), tested


def _last(attack: RecoveryAttack, model: nn.Module, pool: Pool, setting: Setting) -> tuple[int, nn.Module]:
    """What the attacker has spent in the end, and the model that it has then; nothing where it diverged on the way."""
    cost, attacked = 0, model
    for step in attack.recover(model, pool, setting):
        cost, attacked = int(step.budget), step.model
    # An attack goes on training the model that it gave, so that one which diverges later has spoiled that one too.
    finite = all(bool(p.isfinite().all()) for p in attacked.parameters())
    return (cost, attacked) if finite else (0, model)


def confidence(losses: np.ndarray, task: Task) -> np.ndarray:
    """How sure a model is of each example, from its losses `[n]`: log(p / (1 - p)), or for texts the mean log p.

    Cut off at -15 and 20.
    """
    scores = -losses if offers(task, Textual) else logit(losses)
    return np.asarray(np.clip(scores, LOWEST, HIGHEST))
