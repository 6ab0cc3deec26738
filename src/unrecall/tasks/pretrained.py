"""Models and tokenizers as Transformers keeps them: a folder with configuration, safetensors and vocabulary."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from unrecall.disk.files import read_json, unwritable, writing_folder
from unrecall.errors import BadInput, NotSupported

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, of each channel."""
PREPARATION = ("preprocessor_config.json", "processor_config.json")
"""The files in a model's folder that say how it wants pictures."""
VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""The files in a model's folder of which one, at least, is there if it has a tokenizer of its own."""


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


def normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels as the model's folder has them; OpenAI's where it says nothing."""
    for name in PREPARATION:
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = read_json(path)
            settings = settings.get("image_processor", settings)
            if not settings.get("do_normalize", True):
                return (), ()
            mean, std = (tuple(float(v) for v in settings[key]) for key in ("image_mean", "image_std"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path}: expected image_mean and image_std, a number each channel, got: {error!r}"
            ) from error
        return mean, std
    return MEAN, STD


def check_tokenizer(own: Any, folder: Path) -> None:
    """BadInput where the tokenizer in a model's folder gives words other numbers than `own`; one there may be none."""
    if not any((folder / name).is_file() for name in VOCABULARY):
        return
    try:
        automatic: Any = importlib.import_module("transformers").AutoTokenizer
        theirs = automatic.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_vocab()
    except Exception as error:  # whatever Transformers raises over files that are not what they should be
        line = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{folder}: expected a tokenizer that Transformers reads, got: {line[:300]}") from error
    ours = own.get_vocab()
    other = next((word for word in sorted(ours) if theirs.get(word, ours[word]) != ours[word]), None)
    if other is not None:
        raise BadInput(
            f"{folder}: expected the tokenizer of the original, got one in which '{other}' is {theirs[other]} in place "
            f"of {ours[other]}. Texts are read by the original's: bring the models to one vocabulary."
        )
