"""Checkpoints that somebody else made, read into a network of the same architecture."""

import copy
from pathlib import Path
from typing import Any

from torch import nn

from unrecall.disk import weights
from unrecall.disk.files import content_key, file_key
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput


def load_checkpoint(like: nn.Module, path: Path) -> nn.Module:
    """Somebody's checkpoint of the architecture of `like`: safetensors, a Transformers folder, or an adapter of it."""
    if is_adapter(path):
        from unrecall.scenarios.language import with_adapter

        return with_adapter(copy.deepcopy(like), str(path))
    _check_classes(like, path / "config.json")
    return weights.load(copy.deepcopy(like), path).eval()


def _check_classes(like: nn.Module, config: Path) -> None:
    """BadInput where a folder's configuration names the classes otherwise, so that its outputs mean something else."""
    own: Any = getattr(getattr(like, "config", None), "id2label", None)
    content = read_json(config) if config.is_file() else {}
    theirs = content.get("id2label") if isinstance(content, dict) else None
    if not isinstance(own, dict) or not isinstance(theirs, dict):
        return
    for number, name in own.items():
        other = theirs.get(str(number), name)
        if other != name and not any(str(label).startswith("LABEL_") for label in (name, other)):  # which nobody named
            raise BadInput(
                f"{config}: expected id2label to name the classes as the original's does, got '{other}' for '{name}'. "
                "Only weights are read: bring the outputs into one order."
            )


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter of PEFT."""
    return (path / "adapter_config.json").is_file()


def checkpoint_key(path: Path) -> str:
    """sha256 of a checkpoint's weights, or of an adapter's, with what its configuration makes of them."""
    from unrecall.scenarios.language import ADAPTER_FILES, check_adapter

    if not is_adapter(path):
        return weights.digest_of_file(path)
    check_adapter(path)
    return content_key(*(file_key(path / file) for file in ADAPTER_FILES))
