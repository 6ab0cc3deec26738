"""What is constant over an audit: the models by role, the request, the task, the seed and where it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn

from unrecall.data.examples import Absent
from unrecall.data.request import SAMPLED, SPLITS, Request, Split
from unrecall.data.signals import Signals, SplitSignals
from unrecall.data.sizes import SAMPLE
from unrecall.disk.cache import ARRAYS, Cache, shared
from unrecall.disk.code_key import code_key
from unrecall.disk.files import content_key
from unrecall.disk.weights import digest_of, same_weights
from unrecall.errors import BadInput
from unrecall.evidence.evidence import Evidence
from unrecall.evidence.model_keys import first_answers_digest, first_two, inputs_digest, model_key
from unrecall.models.observe import observe, one_size
from unrecall.nn.waiting import ask_for
from unrecall.record.schema import Cost
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

ExtraSignals: TypeAlias = Callable[[nn.Module, Job], Mapping[Split, np.ndarray]]


class Subject(NamedTuple):
    """One model of an audit, by its role: original, unlearned, null, retrained 0, retrained 1, ..."""

    role: str
    model: nn.Module


@dataclass(frozen=True)
class Models:
    """The models of one audit by role. `null`: the same method at learning rate 0."""

    original: nn.Module
    unlearned: nn.Module
    retrained: tuple[nn.Module, ...] = ()
    null: nn.Module | None = None

    def by_role(self) -> dict[str, nn.Module]:
        """All models, named as the record names them."""
        models = {"original": self.original, "unlearned": self.unlearned}
        if self.null is not None:
            models["null"] = self.null
        return models | self.references()

    def references(self) -> dict[str, nn.Module]:
        """The retrained models, by role."""
        return {f"retrained {i}": model for i, model in enumerate(self.retrained)}

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each model's weights, by role. Each model is read once, for nobody changes it during an audit."""
        by_model = {model: digest_of(model) for model in dict.fromkeys(self.by_role().values())}
        return {role: by_model[model] for role, model in self.by_role().items()}

    def alone(self, role: str) -> "Models":
        """One of the models, as the original and as the unlearned one."""
        model = self.by_role()[role]
        models = Models(model, model)
        vars(models)["digests"] = dict.fromkeys(models.by_role(), self.digests[role])
        return models


@dataclass(frozen=True)
class Defender:
    """Who honours requests, from the original model on.

    `name`: everything that decides what its method does. `unlearn(request, seed)`: the method's model.
    `retrain(request, index)`: a model that was trained without `request.forget`; None where none can be had.
    """

    name: str
    unlearn: Callable[[Request, int], nn.Module]
    retrain: Callable[[Request, int], nn.Module] | None = None


@dataclass(frozen=True)
class Setting:
    """Everything that metrics and attacks read; the same for all of them.

    `defender`: the method itself, for attacks on it. `costs`: what unlearning and retraining took, by role. `sample`:
    on how many examples of retain and of the test set models are looked at, at most; None for all.
    """

    models: Models
    request: Request
    task: Task
    seed: int = 0
    session: Session = field(default_factory=Session)
    defender: Defender | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    sample: int | None = SAMPLE
    memory: Cache = field(default_factory=Cache, repr=False, compare=False)

    @cached_property
    def subjects(self) -> list[Subject]:
        """All models, each by its role."""
        return [Subject(role, model) for role, model in self.models.by_role().items()]

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each model's weights, by role."""
        return self.models.digests

    @cached_property
    def model_keys(self) -> dict[str, str]:
        """What decides what each model computes, by role; see `model_key`."""
        roles = {model: role for role, model in self.subjects}
        by_model = {model: self.answering_key(model, self.digests[role]) for model, role in roles.items()}
        return {role: by_model[model] for role, model in self.subjects}

    def answering_key(self, model: nn.Module, weights: str = "") -> str:
        """What decides what a model computes (see `model_key`), and what it answers to a few examples."""
        return content_key(model_key(model, weights), first_answers_digest(model, self.task, self.request))

    def check_roles(self) -> None:
        """BadInput where two roles hold the same model.

        A retrained model must differ from all others in its weights, and from the original in its answers too: another
        wrapper, number format or order of layers changes weights but not answers. Retrained models may answer alike:
        where there is one best model for the data, all who find it do.
        """
        retrained = self.models.references()
        for i, (role, model) in enumerate(self.subjects):
            others = self.subjects[:i] if role in retrained else []
            alike = (other for other, held in others if same_weights(ask_for(held), ask_for(model)))
            if other := next(alike, None):
                raise BadInput(_twice(role, "weights", other))
        for role, model in retrained.items():
            rounded = max(50 * _rounding(self.models.original, model), 1e-4)
            if _answer_alike(self.evidence["original"].signals, self.evidence[role].signals, rounded):
                raise BadInput(_twice(role, "answers", "original"))

    @cached_property
    def observed(self) -> Request:
        """The request with those examples on which models are looked at: what `evidence` is of."""
        return self.request.sampled(self.sample)

    @cached_property
    def cache(self) -> Cache:
        """Where values that other runs can use are kept: on disk if this session has a folder, else in memory."""
        return self.memory if self.session.folder is None else shared(on_disk=True, say=self.session.say)

    @property
    def key(self) -> tuple[str, ...]:
        """What decides every value of this setting but the model that is asked: data, task, original and device."""
        place = str(self.session.torch_device())
        counts = repr([len(self.observed[split]) for split in SAMPLED])
        return (self.request.fingerprint, counts, repr(self.task), self.task_key, self.model_keys["original"], place)

    @cached_property
    def task_key(self) -> str:
        """sha256 of the task's code and of what it reads of a few examples: a chat template may change tomorrow."""
        return content_key(code_key(self.task), inputs_digest(self.task, first_two(self.request)))

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """What each model showed in one forward pass over each split, by role.

        A retrained model is compared with the others, not with itself. Raises BadInput where outputs aren't finite.
        """
        absent = {split: part.reason for split in SPLITS if isinstance(part := self.request[split], Absent)}
        signals = {subject.role: SplitSignals(dict(self._signals(subject)), absent) for subject in self.subjects}
        for role, by_split in signals.items():
            if not all(np.isfinite(part.loss).all() for part in by_split.values()):
                raise BadInput(
                    f"{role}: expected finite outputs, got NaN or infinity. It has diverged: lower lr, or set clip."
                )
        references = self.models.references()
        return {
            role: Evidence(
                self.observed, own, tuple(signals[name] for name in references if name != role), signals["original"]
            )
            for role, own in signals.items()
        }

    def with_extra(self, subject: Subject, extra_signals: ExtraSignals, key: tuple[str, ...]) -> Evidence:
        """The subject's evidence and, beside it, what `extra_signals(model, job)` gives, computed once a model.

        `key`: what decides those arrays beyond the model, this setting's key and the code.
        """

        def arrays() -> dict[str, np.ndarray]:
            return {str(split): array for split, array in extra_signals(subject.model, self.job()).items()}

        whole_key = (self.model_keys[subject.role], *self.key, *key, code_key(extra_signals))
        by_name = self.cache.get("extra", whole_key, ARRAYS, arrays)
        extra = {split: by_name[split] for split in SPLITS if split in by_name}
        return replace(self.evidence[subject.role], extra=extra)

    def job(self, generator: torch.Generator | None = None) -> Job:
        """One piece of work in this setting, quiet; the generator starts from the setting's seed unless given."""
        return Job(self.request, self.task, generator or seeded(self.seed), self.session.quiet())

    def with_task(self, task: Task) -> "Setting":
        """The same setting with another task, which sees the same examples in another form."""
        return self if task is self.task else replace(self, task=task)

    def with_seed(self, seed: int) -> "Setting":
        """The same setting, whose jobs start from another seed; evidence and digests aren't computed again."""
        setting = replace(self, seed=seed)
        shared = ("evidence", "model_keys")
        vars(setting).update({name: vars(self)[name] for name in shared if name in vars(self)})
        return setting

    def _signals(self, subject: Subject) -> Iterator[tuple[Split, Signals]]:
        """The model's signals on each split that is there."""
        present: Sequence[Split] = [split for split in SPLITS if len(self.observed[split])]
        size = one_size(self.task, (self.observed[split] for split in present))
        code = code_key(observe)
        for split in present:

            def arrays(split: Split = split) -> dict[str, np.ndarray]:
                signals = observe(subject.model, self.task, self.observed[split], size)
                return {name: getattr(signals, name) for name in Signals.__dataclass_fields__}

            key = (self.model_keys[subject.role], *self.key, split, code)
            yield split, Signals(**self.cache.get("signals", key, ARRAYS, arrays))


def _twice(role: str, what: str, other: str) -> str:
    return (
        f"{role}: expected a model of its own, got the same {what} as {other}. Give each retrained model once, and "
        "none that plays another role."
    )


def _rounding(first: nn.Module, second: nn.Module) -> float:
    """How far two number formats of one model's weights round apart; 0 where both models have the same."""
    kinds = [{p.dtype for p in model.parameters()} for model in (first, second)]
    return 0.0 if kinds[0] == kinds[1] else max(torch.finfo(kind).eps for kind in kinds[0] | kinds[1])


def _answer_alike(first: Mapping[Split, Signals], second: Mapping[Split, Signals], rounded: float) -> bool:
    """Whether two models give each target the same loss on all splits, up to a share of it.

    A share, as losses near 0 still differ where both models are sure. Where both are 0 nothing is told.
    """
    pairs = [(-first[split].log_prob, -second[split].log_prob) for split in first]
    first_losses, second_losses = (np.concatenate(losses) for losses in zip(*pairs, strict=True))
    telling = (first_losses > 0) | (second_losses > 0)
    return bool(telling.any()) and bool(
        np.allclose(first_losses[telling], second_losses[telling], rtol=rounded, atol=0)
    )
