"""Weights on disk: safetensors only, so that opening a file never runs code."""

import hashlib
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile, zip_longest
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unrecall.disk.files import unwritable, writing
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput, MissingDependency, one_line

HALF = (torch.float16, torch.bfloat16)
"""Number formats whose values are all among float32's."""
PRECISIONS = {"F16": "float16", "BF16": "bfloat16"}
"""PyTorch's names for what safetensors calls formats of two bytes."""
PART = 2**22
"""Numbers that are hashed or compared at once: no tensor is copied whole."""


def digest_of(model: nn.Module) -> str:
    """sha256 over names and values of all weights and buffers; the same where float32 holds values of two bytes."""
    return _digest(model.state_dict())


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models hold the same weights and buffers in the same order, whatever a wrapper calls them.

    Nothing is read beyond the first that differs.
    """
    pairs = [list(model.state_dict().values()) for model in (first, second)]
    return len(pairs[0]) == len(pairs[1]) and all(map(_same, *pairs))


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same bytes, those of two bytes a number in float32, whatever their shapes."""
    parts = zip_longest(_parts(first), _parts(second))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in parts)


def digest_of_file(path: Path) -> str:
    """The same of a checkpoint: a file, or the folder of a Transformers model."""
    return _digest(_of_model(path) if path.is_dir() else read(path))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    state = hashlib.sha256()
    for key in sorted(tensors):
        state.update(key.encode())
        for part in _parts(tensors[key]):
            state.update(part.numpy().data)
    return state.hexdigest()


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The bytes of a tensor, part by part, on the host; those of two bytes a number are those of float32."""
    for part in torch.split(tensor.detach().reshape(-1), PART):
        on_host = part.cpu()
        yield (on_host.float() if on_host.dtype in HALF else on_host).view(torch.uint8)


def save(model: nn.Module, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes all weights and buffers, with notes in the file's header, whole or not at all."""
    with writing(path) as temporary:
        fill(model, temporary, notes)


def fill(model: nn.Module, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes all weights and buffers into a file, with notes in its header."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    try:
        save_file(tensors, path, dict(notes or {}))
    except SafetensorError as error:
        raise unwritable(path, error) from error


def notes_of(path: Path) -> dict[str, str]:
    """The notes in the header of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


class TooLarge(BadInput):
    """A weight is too large for the number format that it must be written in."""


def rounded(model: nn.Module, precision: str | None) -> nn.Module:
    """Rounds all weights and buffers that are floats to the numbers of a format, in place; they are held as before.

    `precision`: float16, bfloat16, ...; None changes nothing. TooLarge where a weight is too large for the format.
    """
    for name, value in model.state_dict().items():
        if precision is not None and value.is_floating_point():
            whole = bool(torch.isfinite(value).all())
            value.copy_(value.to(getattr(torch, precision)))
            if whole and not bool(torch.isfinite(value).all()):
                raise TooLarge(
                    f"{name}: expected weights that {precision} can hold, got larger ones. Lower lr, or say "
                    "precision=float32."
                )
    return model


def load(model: nn.Module, path: Path) -> nn.Module:
    """Puts the weights of a safetensors file, or of a Transformers folder, into `model`, in place.

    Names may hold what wrappers put into them, on either side: "module.", "_orig_mod.", or whatever all begin with. A
    folder may hold the experts of a mixture under older names. BadInput says what does not fit.
    """
    state = model.state_dict()
    tensors = _fitted(state, read(path))
    if path.is_dir() and tensors.keys() != state.keys():
        tensors = _fitted(state, _of_model(path))
    missing, extra = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    if missing or extra:
        difference = f"missing {missing[:3]}" if missing else f"unknown {extra[:3]}"
        raise BadInput(f"{path}: expected the weights of this architecture, got {difference}. Check scenario and file.")
    for key, value in tensors.items():
        if value.shape != state[key].shape:
            raise BadInput(
                f"{path}: expected {key} of shape {tuple(state[key].shape)}, got {tuple(value.shape)}. Name a "
                "checkpoint of this model."
            )
        if not (is_float(value.dtype) if state[key].is_floating_point() else value.dtype == state[key].dtype):
            raise BadInput(
                f"{path}: expected {key} in {_kind(state[key])}, got {_kind(value)}. Give the weights before they were "
                "quantised."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value.to(state[key].dtype)).all()):
            raise BadInput(
                f"{path}: expected finite weights in {_kind(state[key])}, got NaN or infinity in {key}. Name a sound "
                "checkpoint."
            )
    model.load_state_dict(tensors)
    return model


def is_float(dtype: torch.dtype) -> bool:
    """Whether numbers of a format are weights as they were trained: real ones, of more than one byte each."""
    return dtype.is_floating_point and dtype.itemsize > 1


def _kind(tensor: Tensor) -> str:
    """The number format of a tensor, as people write it."""
    return str(tensor.dtype).removeprefix("torch.")


WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module"}
"""What data parallelism, compiling and checkpointing put into a weight's name."""


def bare_name(name: str) -> str:
    """A weight's name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _named_as(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that the model has for them; BadInput where one of its names is two tensors'."""
    own_names, places = _own_names(state, tensors), dict[str, str]()
    for name, own in own_names.items():
        if (other := places.setdefault(own, name)) != name:
            raise BadInput(f"weights: expected one tensor for {own}, got {other} and {name}. Leave out one of them.")
    return {own: tensors[name] for own, name in places.items()}


def _own_names(state: Mapping[str, Tensor], tensors: Iterable[str]) -> dict[str, str]:
    """The model's name for each tensor's, where only wrappers' parts or the beginning differ; else the tensor's own."""
    names = {bare_name(name): name for name in state}
    for shorter in _beginnings(names):
        for short in _beginnings({bare_name(name) for name in tensors}):
            full_name_of = {name[len(shorter) :]: full for name, full in names.items()}
            full_names = {name: full_name_of.get(bare_name(name)[len(short) :], "") for name in tensors}
            if all(full_names.values()):
                return full_names
    return {name: name if name in state else names.get(bare_name(name), name) for name in tensors}


def _fitted(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the model's names for them, each of two tied names among them, one of which files leave out."""
    named = _named_as(state, tensors)
    places = {state[key].data_ptr(): key for key in named if key in state}
    tied = {key: places.get(value.data_ptr()) for key, value in state.items() if key not in named}
    return named | {key: named[place] for key, place in tied.items() if place is not None}


def _beginnings(names: Iterable[str]) -> list[str]:
    """What all these dotted names begin with, from nothing on to the longest."""
    split = [name.split(".") for name in names]
    common = list(takewhile(lambda column: len(set(column)) == 1, zip(*split, strict=False)))
    return ["".join(f"{column[0]}." for column in common[:i]) for i in range(len(common) + 1)]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a Transformers folder, in one file or in several.

    Pickles are refused: opening one can run code.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise BadInput(f"{path}: expected a checkpoint file, got none there. Check the path.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            start = file.read(2)
        if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise BadInput(
                f"{path}: expected safetensors, got a pickle, which can run code when opened. "
                "Convert it: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
            ) from error
        raise BadInput(
            f"{path}: expected a whole safetensors file, got a damaged or truncated one. Copy it again."
        ) from error
    return tensors


def _of_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Transformers folder: of model.safetensors, or of the files that its index names."""
    tensors: dict[str, Tensor] = {}
    for file in files_of(folder):
        tensors |= read(file)
    return tensors


def _of_model(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Transformers folder by the names that its model has for them, floats of two bytes in float32.

    Its files may lack one of two tied weights, and hold the experts of a mixture one by one. A folder that doesn't say
    whose model it is gives the names of its files. BadInput where Transformers can't open it, or weights are missing.
    """
    files_of(folder)  # BadInput where there are none of its kind
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    config = config if isinstance(config, dict) else {}
    if config.get("quantization_config"):
        raise BadInput(
            f"{folder}: expected weights in floats, got quantised ones. Give those before they were quantised."
        )
    names = config.get("architectures")
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency("transformers", "llm") from error
    kind: Any = getattr(library, str(names[0]), None) if isinstance(names, list) and names else None
    if not hasattr(kind, "from_pretrained"):
        return read(folder)
    shown, level = library.utils.logging.is_progress_bar_enabled(), library.utils.logging.get_verbosity()
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    try:
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # whatever a library makes of files that are damaged
        raise BadInput(f"{folder}: expected a Transformers model in safetensors, got: {one_line(error)}") from error
    finally:
        library.utils.logging.set_verbosity(level)
        if shown:
            library.utils.logging.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):
        raise BadInput(f"{folder}: expected every weight of its model, got none that fits {missing[0]}.")
    state: dict[str, Tensor] = model.state_dict()
    return state


def files_of(folder: Path) -> list[Path]:
    """The files that hold a Transformers folder's weights; BadInput for pickles, GGUF, and parts without an index.

    A missing model.safetensors is reported by whoever reads it; here only where an adapter, GGUF, a pickle or parts lie
    in its place.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.is_file():
        if (folder / "adapter_config.json").is_file() and not whole.is_file():
            raise BadInput(f"{folder}: expected a whole model, got an adapter. Merge it into its base first.")
        if (gguf := sorted(folder.glob("*.gguf"))) and not whole.is_file():
            raise BadInput(
                f"{folder}: expected safetensors, got GGUF ({gguf[0].name}), which is made from a model to run it. "
                "Give the model that it was made from."
            )
        pickles, parts = sorted(folder.glob("pytorch_model*.bin")), sorted(folder.glob("model-*.safetensors"))
        if pickles and not whole.is_file():
            raise BadInput(
                f"{folder}: expected safetensors, got a pickle ({pickles[0].name}), which can run code when opened. "
                "Convert it: load the model with Transformers, and save it again with save_pretrained."
            )
        if parts and not whole.is_file():
            raise BadInput(
                f"{folder}: expected {index.name} beside {parts[0].name}, got none. Copy it from where the model "
                "comes from, or save the model again with save_pretrained."
            )
        return [whole]
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise BadInput(f"{index}: expected a weight_map of names and files, got none. Save the model again.")
    for file in set(places.values()):
        if Path(file).name != file:
            raise BadInput(f"{index}: expected files of this folder, got '{file}'. Save the model again.")
    return [folder / file for file in sorted(set(places.values()))]


def formats(path: Path) -> dict[str, str]:
    """The number format of each tensor of a file, by name, as safetensors calls it; nothing where it can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return {}


def precision_of(files: Iterable[Path]) -> str:
    """The number format of most weights of these files: float16 or bfloat16, and float32 for every other."""
    counts: Counter[str] = Counter()
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                counts[part.get_dtype()] += prod(part.get_shape())
    return PRECISIONS.get(max(counts, key=lambda kind: counts[kind], default=""), "float32")
