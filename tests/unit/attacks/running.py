"""Runs an attack on models of a world, in the way in which the harness does it."""

import copy
from dataclasses import replace

from torch import nn

from tests.worlds import CPU, World
from unrecall.attacks import Attacked, RecoveryAttack, ScoredAttack
from unrecall.data.request import Request
from unrecall.evidence.pool import Draw
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.evaluation import draw_for
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.randomness import seeded


def setting_of(world: World, unlearned: nn.Module | None = None, seed: int = 0) -> Setting:
    """An audit of `unlearned`, which is the original where none is named."""
    models = Models(world.original, unlearned or world.original, world.retrained)
    return Setting(models, world.request, world.task, seed, CPU)


def job_of(world: World, seed: int = 0, request: Request | None = None, task: Task | None = None) -> Job:
    """The work that an attack is given beside a model."""
    return Job(request or world.request, task or world.task, seeded(seed), CPU)


def draw_of(attack: ScoredAttack, world: World, seed: int = 0) -> Draw:
    """The pool on which the attack is run, and where the examples of each arm stand in it."""
    return draw_for(attack, setting_of(world, seed=seed))


def attacked(attack: RecoveryAttack, model: nn.Module, world: World, seed: int = 0) -> list[Attacked]:
    """What the attacker has at each budget; models are copied, since the next step may change them."""
    setting = setting_of(replace(world, task=attack.adapted(world.task)), seed=seed)
    steps = attack.recover(model, draw_for(attack, setting).pool, setting)
    return [step._replace(model=copy.deepcopy(step.model)) for step in steps]
