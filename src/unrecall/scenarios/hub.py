"""Models of Transformers, from a folder or the hub, opened so that no code of theirs runs."""

import importlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import nn

from unrecall.disk.json_files import read_json
from unrecall.disk.weights import files_of, formats
from unrecall.errors import BadInput, MissingDependency, one_line
from unrecall.nn.usable import BEFORE_QUANTISING

BROKEN = (AttributeError, ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)
"""What Transformers and PEFT raise over files that are not what they should be."""

PATIENCE = 2.0
"""Seconds that the hub has to answer at all; it is asked twice."""

FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
"""What a model and its tokenizer are made of on the hub; pickles are left there."""


class Loaded(NamedTuple):
    """A model, in eval mode, and the tokenizer that belongs to it.

    `precision`: the number format in which what is made of the model is written.
    """

    model: nn.Module
    tokenizer: Any
    precision: str = "float32"


def transformers() -> Any:
    """The package, with its own progress bars and advice off; MissingDependency with the install line otherwise."""
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency("transformers", "llm") from error
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def check_unquantised(name: str, config: Path) -> None:
    """BadInput where a folder says that its weights are quantised, by whatever method."""
    content = read_json(config) if config.is_file() else {}
    if isinstance(content, dict) and (how := content.get("quantization_config")):
        method = how.get("quant_method") if isinstance(how, dict) else None
        method = method or ("bitsandbytes" if "bnb" in str(how) or "load_in" in str(how) else "an unknown method")
        raise BadInput(f"{name}: expected weights in floats, got quantised ones ({method}). {BEFORE_QUANTISING}")


FLOATS = {"F16", "BF16", "F32", "F64"}
"""How safetensors calls the formats of weights as they were trained."""


def check_floats(owner: str, files: Iterable[Path], model: nn.Module | None = None) -> None:
    """BadInput where a weight in these files is in whole numbers, single bytes, complex or truth values.

    A weight is what is called so and, by its name or how that ends, what `model` has in floats. What else a file holds,
    such as positions and masks, may be in whole numbers.
    """
    state = {} if model is None else model.state_dict()
    weight_names = {ending for name, value in state.items() if value.is_floating_point() for ending in _endings(name)}
    for file in files:
        for name, kind in formats(file).items():
            is_weight = name.endswith("weight") or not weight_names.isdisjoint(_endings(name))
            if is_weight and kind not in FLOATS:
                raise BadInput(f"{owner}: expected weights in floats, got {name} in {kind}. {BEFORE_QUANTISING}")


def _endings(name: str) -> list[str]:
    """A weight's name in its model, in the one that holds that, and in the first part of it."""
    return [name, name.partition(".")[2]]


def load_or_refuse(expected: str, opening: Callable[[], Any]) -> Any:
    """What `opening` gives; where it fails, BadInput with what was expected and the reason in one line."""
    try:
        return opening()
    except BROKEN as error:
        raise BadInput(f"{expected}, got: {one_line(error)}") from error


def check_whole(expected: str, lacking: Iterable[str]) -> None:
    """BadInput, beginning with what was expected, where a checkpoint is `lacking` weights."""
    if names := sorted(lacking):
        raise BadInput(
            f"{expected} whose checkpoint holds every weight, got none that fits {names[0]} ({len(names)} in all). "
            "Check that config.json and weights belong together."
        )


def open_model(kind: str, folder: Path, name: str, expected: str, **options: Any) -> tuple[Any, set[str]]:
    """A model of a class of Transformers from a folder, and the weights that its files lack or have in other sizes.

    `kind`: the name of the class, as AutoModelForCausalLM. `name`: what the user calls the folder. `expected`: what it
    should hold, for people. `options`: for `from_pretrained`. Only safetensors are read, and no code of the folder's
    runs. BadInput for quantised weights and files that can't be read.
    """
    check_unquantised(name, folder / "config.json")
    check_floats(name, files := files_of(folder))
    model, report = load_or_refuse(
        f"{name}: expected {expected}",
        lambda: getattr(transformers(), kind).from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        ),
    )
    check_floats(name, files, model)
    return model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def local_folder(name: str, kind: str) -> Path:
    """The folder of a model: the one that is named, or the local copy of that of a hub id with its owner, `who/what`.

    BadInput, which says of what `kind` it was to be, where there is none.
    """
    if Path(name).is_dir() and name:
        return Path(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Path(from_hub(name))
    raise BadInput(f"{name or 'model'}: expected a folder with {kind}, got nothing there.")


@cache
def from_hub(name: str) -> str:
    """The local copy of a hub model, completed where the hub can be reached; says at once where there is none."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise BadInput(f"{name or 'model'}: expected a folder with a Transformers model, got nothing there.")
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    reason: Exception | str = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE and not os.environ.get("HF_HUB_OFFLINE"):
        try:
            HfApi().model_info(name, timeout=PATIENCE)
            return str(snapshot_download(name, allow_patterns=FILES))
        except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
            reason = error
        except Exception as error:
            # The hub's HTTP library raises errors of its own that share no base with the built-in ones.
            if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
                raise
            reason = error
    try:
        return str(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        line = (str(reason).strip().splitlines() or [type(reason).__name__])[0].rstrip(".")
        raise BadInput(
            f"{name}: expected a folder or a hub id that can be reached, got no such folder, and from the hub: {line}. "
            "Give the path of a local folder that holds config.json, the weights and the tokenizer."
        ) from error
