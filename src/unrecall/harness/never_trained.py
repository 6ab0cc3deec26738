"""The fixed suite, run on the unlearned and the original model: scores of forget and holdout, to be judged together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import nn

from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.lira import logit
from unrecall.data.covariates import Covariates
from unrecall.data.examples import Absent, Selection, evenly
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.cache import ARRAYS
from unrecall.disk.code_key import code_key
from unrecall.errors import NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.harness.fixed_suite import FixedAttack, fixed_suite, is_large
from unrecall.harness.memory_left import HIGHEST, LOWEST
from unrecall.harness.mixed_arms import MixedArms, mix_arms
from unrecall.metrics.ranking import recalls
from unrecall.models.observe import mean_loss, observe
from unrecall.nn.waiting import ask_for
from unrecall.record.never_trained import FEWEST_HOLDOUT, SHARED, judge, not_judged, seed_of
from unrecall.record.pool_scores import COMPARED, PoolScores, Stated
from unrecall.record.schema import NeverTrained
from unrecall.tasks.base import Task
from unrecall.tasks.difficulty import difficulty
from unrecall.tasks.protocols import Recommending, Textual, offers
from unrecall.training.randomness import seeded
from unrecall.training.session import TimeLeft

RETAIN_SAMPLE = 500
"""Retain examples on which an attacked model's loss is looked at."""


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
        code = code_key(fixed.attack or observe, _scores_after)
        key = (repr(fixed), *setting.key, setting.model_keys[role], str(setting.seed), code)
        try:
            arrays = setting.cache.get("never-trained", key, ARRAYS, _scores_after(fixed, model, mixed, own))
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


def _scores_after(
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
        for (cost, attacked), places, examples in _attacked_models(fixed, model, mixed, setting):
            losses = observe(attacked, task, examples).loss
            steps.append(cost)
            shown[places] = confidence(losses, task)
            retain.append(mean_loss(attacked, task, sample))
            pool.append(losses.mean())
        means = np.array([np.mean(retain), np.mean(pool)])
        return {"shown": shown, "losses": means, "steps": np.array(steps, np.int64)}

    return arrays


def _attacked_models(
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
        yield _after_the_attack(fixed.attack, model, pool, setting), everywhere, whole
        return
    for half in (0, 1):
        tested = mixed.of_half(1 - half)
        pool = Pool(mixed.of_half(half), (tested,), state)
        yield _after_the_attack(fixed.attack, model, pool, setting), np.flatnonzero(mixed.half == 1 - half), tested


def _after_the_attack(attack: RecoveryAttack, model: nn.Module, pool: Pool, setting: Setting) -> tuple[int, nn.Module]:
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
