"""Where numbers come from: command, versions, commit, device, and the sha256 of data and weights."""

import datetime
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unrecall.record.schema import Provenance

PACKAGES = ("unrecall", "torch", "numpy", "scipy", "scikit-learn", "accelerate")
OF_TEXTS = ("transformers", "tokenizers", "peft")
FOLDERS = re.compile(
    r"(?<![\w.~:/\\-])(?:~|file:(?://[^/\\\s]*)?|[A-Za-z]:)?[/\\]+(?:(?!\s)[^/\\,=:()<>]+(?<!\s)[/\\]+)+"
)
"""The folders of an absolute path, wherever one stands in a line such as "texts:model=PATH,forget=PATH"."""
TEMPLATE = "{prompt}"
"""What each template of prompts holds, and no path."""


def provenance(
    fingerprint: str, digests: Mapping[str, str], device: torch.device, identity: Mapping[str, str]
) -> Provenance:
    """The present state of all that a record's numbers depend on."""
    return Provenance(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=" ".join(map(without_folders, sys.argv)),
        versions=versions(),
        commit=commit(),
        dirty=dirty(),
        device=f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads",
        fingerprint=fingerprint,
        weights=dict(digests),
        identity=dict(identity),
    )


def versions() -> dict[str, str]:
    """The versions of Python, of what every audit computes with, and of libraries for texts where they were used."""
    used = [name for name in OF_TEXTS if name in sys.modules]
    return {"python": platform.python_version(), **{name: version(name) for name in (*PACKAGES, *used)}}


def without_folders(value: Any) -> Any:
    """A text with each absolute path cut down to its last name, as folders say who somebody is; texts in parts too.

    A template of prompts, which is a part of a line between , or ; stays as it is: what it breaks lines by is no path.
    """
    if isinstance(value, str):
        parts = re.split("([,;])", value)
        return "".join(part if TEMPLATE in part else FOLDERS.sub("", part) for part in parts)
    if isinstance(value, dict):
        return {key: without_folders(part) for key, part in value.items()}
    return [without_folders(part) for part in value] if isinstance(value, list | tuple) else value


def commit() -> str:
    """The commit that this code is of; empty where it is no checkout."""
    return _git("rev-parse", "HEAD") or ""


def dirty() -> bool | None:
    """Whether the code differs from its commit; None where it is no checkout."""
    status = _git("status", "--porcelain")
    return None if status is None else bool(status)


def _git(*words: str) -> str | None:
    """What git says about the checkout that this code runs from; None where it is none (an installed package)."""
    folder = Path(__file__).parents[1]
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    inside = folder.parent.parent / ".git"
    return result.stdout.strip() if inside.exists() else None
