"""The Language Model Evaluation Harness: what a model is still good for, on the user's own choice of tasks."""

import importlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from torch import nn

from unrecall.errors import BadInput, MissingDependency, nearest
from unrecall.nn.hooks import mode
from unrecall.record.schema import Estimate
from unrecall.record.stats import LEVEL
from unrecall.training.randomness import own_randomness


def evaluate(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> dict[str, Estimate]:
    """Scores of a Transformers model on tasks of lm-evaluation-harness, by name: "task metric", as the harness has it.

    The interval is value +- 1.96 standard errors, where the harness gives one above 0. Tasks of `folder` need no
    network if their data don't; the harness's own fetch data from the hub. Random states are left as they were.

    Args:
        tasks: names of tasks, groups or tags.
        folder: of task files (YAML) of one's own. Where it holds all of `tasks`, the harness's own aren't read at all.
        limit: at most so many examples a task, for trying things out.
        batch_size: examples in a forward pass.

    The harness: Gao et al., "The Language Model Evaluation Harness", Zenodo 2024, doi 10.5281/zenodo.12608602.
    """
    library, kinds, catalog = _library()
    manager = _manager(catalog, tasks, folder)
    with _same_random_states(), mode(model, training=False):
        try:
            results = library.simple_evaluate(
                model=kinds.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                log_samples=False,
            )
        except OSError as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"evaluate: expected the data of {', '.join(tasks)} to be there, got: {line} Go online, or give folder."
            ) from error
    return {
        f"{task} {name}": estimate
        for task, scores in results["results"].items()
        for name, estimate in _estimates(scores, results["n-samples"].get(task, {}).get("effective", 0))
    }


def _library() -> list[Any]:
    """The harness, its way to run a Transformers model, and its catalog of tasks."""
    try:
        return [importlib.import_module(f"lm_eval{part}") for part in ("", ".models.huggingface", ".tasks")]
    except ImportError as error:
        raise MissingDependency("lm-eval", "eval") from error


def _manager(catalog: Any, tasks: Sequence[str], folder: Path | None) -> Any:
    """What finds the tasks: those of the folder, or else the harness's own; BadInput for a task of neither."""
    if folder is not None and not folder.is_dir():
        raise BadInput(f"evaluate: expected folder to hold task files, got nothing at {folder}. Check the path.")
    manager = catalog.TaskManager(include_path=folder, include_defaults=folder is None)
    if not set(tasks) <= set(manager.all_tasks):
        manager = catalog.TaskManager(include_path=folder)
    for name in tasks:
        if name not in manager.all_tasks:
            hint = nearest(name, manager.all_tasks)
            hint = hint if len(hint) < 200 else "`lm-eval ls tasks` lists them."
            raise BadInput(f"evaluate: expected tasks that the harness knows, got '{name}'. {hint}")
    return manager


def _estimates(scores: Mapping[str, Any], n: int) -> Iterator[tuple[str, Estimate]]:
    """Each score with its interval; the harness writes "acc,none" and "acc_stderr,none", none being no filter."""
    for key, value in scores.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        name = metric if filtered == "none" else f"{metric} ({filtered})"
        error = scores.get(f"{metric}_stderr,{filtered}")
        if not isinstance(error, int | float) or error == 0:
            yield name, Estimate(value=float(value), n=n)
            continue
        half = float(norm.ppf((1 + LEVEL) / 2)) * float(error)
        yield name, Estimate(value=float(value), low=float(value) - half, high=float(value) + half, n=n)


@contextmanager
def _same_random_states() -> Iterator[None]:
    """Puts back the random states that the harness seeds."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with own_randomness(0):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
