"""How hard examples are that a model may have been trained on, without asking any model of an audit.

A test that takes difficulty out of scores stays exact only while difficulty knows neither which arm an example is of
nor what the models under audit answer. So nothing here takes a model, and the order of the pool decides nothing.
"""

import hashlib
from dataclasses import replace

import numpy as np
import torch

from unrecall.data.covariates import Covariates, no_covariates
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, Selection, iterate
from unrecall.errors import BadInput
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import WithDifficulty

MOST = 20_000
"""How many retain examples are read, at most: a sample drawn by the seed where there are more."""


def difficulty(task: Task, retain: Examples, pool: Examples, seed: int, most: int = MOST) -> Covariates:
    """How hard each example of the pool is (forget and holdout together), row by row in the pool's order.

    No columns where the task doesn't grade its examples. Each row is the same bit for bit in whatever order the pool
    comes: rows are made in the order of the examples' digests. BadInput where an example of the pool is one of those
    that are read of retain, or a task's own covariates aren't one row of finite numbers an example.
    """
    if not isinstance(task, WithDifficulty):
        return no_covariates(len(pool))
    if len(retain) > most:
        generator = torch.Generator().manual_seed(seed)
        retain = Selection(retain, torch.randperm(len(retain), generator=generator)[:most].tolist())
    retain_digests, pool_digests = ([digest(item) for item in iterate(examples)] for examples in (retain, pool))
    if shared := set(retain_digests) & set(pool_digests):
        raise BadInput(
            f"difficulty: expected retain and the pool to share no example, got {len(shared)} shared. Take what is "
            "asked about out of retain."
        )
    order = sorted(range(len(pool_digests)), key=lambda i: pool_digests[i])
    graded = task.difficulty(retain, Selection(pool, order), seed)
    _check(graded, task, len(pool))
    back = np.argsort(np.array(order, int))
    trained_on = hashlib.sha256(",".join(retain_digests).encode()).hexdigest()
    values = np.asarray(graded.values, np.float64)[back]
    return replace(graded, values=values, read=len(retain_digests), trained_on=trained_on)


def _check(graded: object, task: Task, n: int) -> None:
    """BadInput unless a task gave one row of finite numbers for each of `n` examples."""
    name = f"{type(task).__name__}.difficulty"
    if not isinstance(graded, Covariates):
        raise BadInput(f"{name}: expected Covariates, got {type(graded).__name__}. Return unrecall's Covariates.")
    shape, columns = np.shape(graded.values), len(graded.names)
    if shape != (n, columns) or len(graded.groups) != columns:
        raise BadInput(f"{name}: expected values [{n}, {columns}], got {list(shape)}. Give a row for each example.")
    if not np.isfinite(np.asarray(graded.values, np.float64)).all():
        raise BadInput(f"{name}: expected finite values, got NaN or infinity. Clip what has no bounds.")
