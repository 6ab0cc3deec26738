"""What a run leaves of the unlearned model: one copy of its weights, the adapter that made it, and its model card."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from unrecall.data.request import SPLITS, Request
from unrecall.disk import weights
from unrecall.disk.files import discard, write_text, writing_folder
from unrecall.experiment.run_identity import CHECKPOINT, EXPORTED
from unrecall.experiment.tuned_on import leave, notes
from unrecall.methods.base import Method
from unrecall.models.low_rank import ADAPTER, adapter_of
from unrecall.record.attest import LIMITS
from unrecall.record.provenance import versions
from unrecall.record.schema import Record
from unrecall.scenarios.base import Scenario
from unrecall.spec.lines import show
from unrecall.tasks.protocols import export

CARD = "README.md"
"""The model card, as the Hugging Face hub calls it."""
FIGURES = ("forget_accuracy", "holdout_accuracy", "retain_accuracy", "test_accuracy")
"""What a card shows of a record beside its verdict."""


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model and what its card says of it: the method, the seed, and the record where there is an audit.

    `tuned_by`: the sha256 of each example that tuning looked at; none where it wasn't tuned.
    """

    model: nn.Module
    method: Method
    seed: int
    record: Record | None = None
    tuned_by: Sequence[str] = ()

    @cached_property
    def digest(self) -> str:
        """sha256 of the model's weights."""
        return weights.digest_of(self.model)


def save_unlearned(unlearned: Unlearned, scenario: Scenario, folder: Path) -> Path:
    """Writes the model into `folder`, and gives where: a Transformers folder with a card, or a file of its weights.

    The low-rank change that made it, which the session kept among its parts, lies beside it, in `adapter`.
    """
    model, exported = unlearned.model, folder / EXPORTED
    adapter = adapter_of(folder / "parts", unlearned.digest)
    discard(folder / ADAPTER)
    if adapter.is_dir():
        with writing_folder(folder / ADAPTER) as temporary:
            shutil.copytree(adapter, temporary, dirs_exist_ok=True)
    discard(exported)
    if scenario.precision is not None:
        model = model.to(getattr(torch, scenario.precision))
    export(scenario.task, model, exported)
    if not exported.is_dir():
        weights.save(model, folder / CHECKPOINT, notes(unlearned.tuned_by))
        leave(unlearned.tuned_by, folder)
        return folder / CHECKPOINT
    discard(folder / CHECKPOINT)
    write_text(exported / CARD, card(unlearned, scenario.request, adapter.is_dir()))
    leave(unlearned.tuned_by, folder)
    return exported


def drop_parts(folder: Path) -> None:
    """Removes what `leave` has left elsewhere from the parts of a run that is finished."""
    for file in (folder / "parts").glob("unlearned-*.safetensors"):
        discard(file)
    for adapter in (folder / "parts").glob(f"{ADAPTER}*"):
        discard(adapter)


def card(unlearned: Unlearned, request: Request, adapter: bool) -> str:
    """The model card: what was asked, done and found, and how to check it; no text or picture of the request."""
    from huggingface_hub import ModelCardData

    model, record = unlearned.model, unlearned.record
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "")
    name = Path(name).name if Path(name).exists() else name
    written = hasattr(model, "can_generate") and bool(model.can_generate())  # type: ignore[operator]
    data = ModelCardData(
        base_model=name or None,
        library_name="transformers",
        tags=["unlearning", "unrecall"],
        pipeline_tag="text-generation" if written else None,
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {name or 'A model'}, without {len(request.forget)} records"]
    parts += ["## What was asked", "\n".join(_request_lines(request, record))]
    parts += ["## What was done", "\n".join(_done(unlearned))]
    parts += ["## What was found", *_result(record), "## How to check it", *_how(unlearned, adapter)]
    return "\n\n".join(parts) + "\n"


def _request_lines(request: Request, record: Record | None) -> Iterator[str]:
    sizes = {split: len(request[split]) for split in SPLITS} if record is None else record.sizes
    meaning = {
        "forget": "to be forgotten",
        "retain": "to be kept",
        "holdout": "like forget, never trained on",
        "test": "others, never trained on",
    }
    for split in SPLITS:
        yield f"- {split}: " + (f"{sizes[split]} records, {meaning[split]}" if sizes[split] else "none")
    if spent := sum(len(request[split]) - sizes[split] for split in SPLITS):
        yield f"- tuning: {spent} more records, never trained on, which the audit left out"
    yield f"- sha256 of the request: `{record.provenance.fingerprint if record else request.fingerprint}`"


def _done(unlearned: Unlearned) -> Iterator[str]:
    method, kinds = unlearned.method, sorted({str(p.dtype) for p in unlearned.model.parameters()})
    yield f"- method: {method.title}, `{show(method)}`"
    yield f"- parameters: {_listed(method.as_dict())}"
    yield f"- seed: {unlearned.seed}"
    yield f"- weights: {', '.join(kinds).replace('torch.', '')}"
    record = unlearned.record
    if record is not None and (tuning := record.tuning) is not None:
        yield f"- {tuning.parameter} was searched, and is {tuning.chosen:g} times the line's: {tuning.criterion}"
    if record is not None and (cost := record.costs.get("unlearned")) is not None:
        yield f"- optimiser steps that were taken: {cost.steps}"
    yield "- versions: " + ", ".join(
        f"{k} {v}" for k, v in (record.provenance.versions if record else versions()).items()
    )


def _listed(values: dict[str, object]) -> str:
    """Parameters as name=value, those of parameters in brackets."""
    parts = (f"{key}=({_listed(v)})" if isinstance(v, dict) else f"{key}={v}" for key, v in values.items())
    return ", ".join(parts)


def _result(record: Record | None) -> Iterator[str]:
    if record is None:
        yield "Nothing was measured. `unrecall audit` measures and attacks it."
        return
    yield record.verdict.line
    rows = [(m.title, m.original.value, m.unlearned.value) for m in record.measurements if m.name in FIGURES]
    lines = [f"| {t} | {before:.3f} | {after:.3f} |" for t, before, after in rows if None not in (before, after)]
    if lines:
        yield "\n".join(["| | before | after |", "|---|---|---|", *lines])
    limits = [*LIMITS[:2], *(doubt.message for doubt in record.doubts if doubt.severity != "note")]
    yield "Its limits:"
    yield "\n".join(f"- {line}" for line in limits)


def _how(unlearned: Unlearned, adapter: bool) -> Iterator[str]:
    yield f"The weights have the sha256 `{unlearned.digest}`, over their names and values."
    if unlearned.record is not None:
        yield "In the folder above this one, `unrecall check record.json` holds weights and figures against the record."
    if adapter:
        yield (
            "`adapter`, in the folder above this one, holds the change alone: `PeftModel.from_pretrained(base, "
            '"adapter")` gives the same answers within the rounding of the weights.'
        )
