"""Models and tokenizers as Transformers keeps them: a folder with configuration, safetensors and vocabulary."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from unrecall.disk.files import unwritable, writing_folder
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput, NotSupported, one_line

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


def preparation(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """What a model's folder says of how pictures are prepared, and in which file; None where it says nothing of that.

    BadInput where the file holds no settings.
    """
    for path in (folder / name for name in PREPARATION):
        content = read_json(path) if path.is_file() else {}
        settings = content.get("image_processor", content) if isinstance(content, Mapping) else content
        if not isinstance(settings, Mapping):
            raise BadInput(f"{path}: expected the settings of an image processor, got {settings!r:.60}.")
        if any(name.startswith(("image_", "do_", "size")) for name in settings):
            return path, settings
    return None


def normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels as the model's folder has them; OpenAI's where it says nothing."""
    path, settings = preparation(folder) or (folder, {})
    if not settings.get("do_normalize", True):
        return (), ()
    try:
        mean, std = (
            tuple(float(v) for v in settings.get(key, usual))
            for key, usual in (("image_mean", MEAN), ("image_std", STD))
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected image_mean and image_std, a number each channel, got: {error!r}") from error
    return mean, std


def check_tokenizer(own: Any, folder: Path, texts: Sequence[str]) -> None:
    """BadInput where the tokenizer in a model's folder reads words or these texts otherwise than `own`.

    A folder without a vocabulary, and words and numbers that one of the two alone has, are no reason.
    """
    if not any((folder / name).is_file() for name in VOCABULARY):
        return
    try:
        automatic: Any = importlib.import_module("transformers").AutoTokenizer
        other = automatic.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ours, theirs = own.get_vocab(), other.get_vocab()
        both = [[each(text, add_special_tokens=False)["input_ids"] for text in texts] for each in (own, other)]
    except Exception as error:  # whatever Transformers raises over files that are not what they should be
        raise BadInput(f"{folder}: expected a tokenizer that Transformers reads, got: {one_line(error)}") from error
    words = {number: word for word, number in theirs.items()}
    differing = (w for w, i in sorted(ours.items()) if theirs.get(w, i) != i or words.get(i, w) != w)
    otherwise = "" if both[0] == both[1] else "forget is other words"
    if what := next((f"'{word}' is another word" for word in differing), otherwise):
        raise BadInput(
            f"{folder}: expected the tokenizer of the original, got one by which {what}. Texts are read by the "
            "original's: bring the models to one vocabulary."
        )
