"""Models and tokenizers as Transformers keeps them: a folder with configuration, safetensors and vocabulary."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from unrecall.disk.files import unwritable, writing_folder
from unrecall.errors import NotSupported


def save(model: nn.Module, tokenizer: Any, folder: Path, beside: Mapping[str, str] | None = None) -> None:
    """Writes both under a temporary name and renames it, so that `folder` is whole or not there; an older one goes.

    `beside`: the text of further files, by name.
    """
    write: Any = getattr(model, "save_pretrained", None)
    if write is None:
        raise NotSupported(f"export: expected a Transformers model, got {type(model).__name__}. Save its weights.")
    with writing_folder(folder) as temporary:
        try:
            with _without_bars():
                write(temporary)
                tokenizer.save_pretrained(temporary)
        except SafetensorError as error:
            raise unwritable(folder, error) from error
        for name, text in (beside or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")


@contextmanager
def _without_bars() -> Iterator[None]:
    """Transformers draws a progress bar for each file that it writes; none is drawn in this block."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def checkpoint(model: nn.Module) -> None:
    """Switches gradient checkpointing on, by Transformers' newer name for it or its older one."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable: Any = next((getattr(model, name) for name in names if hasattr(model, name)), None)
    if enable is None:
        raise NotSupported(f"checkpointing: expected a Transformers model, got {type(model).__name__}. Leave it off.")
    enable({"use_reentrant": False})
