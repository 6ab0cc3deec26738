"""Weights on disk: safetensors only, so that opening a file never runs code."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unrecall.disk.files import unwritable, writing
from unrecall.errors import BadInput


def digest_of(model: nn.Module) -> str:
    """sha256 over names and values of all weights and buffers."""
    return _digest(model.state_dict())


def digest_without_names(model: nn.Module) -> str:
    """sha256 over the values of all weights and buffers in their order, whatever a wrapper calls them."""
    return _digest({f"{i:09}": value for i, value in enumerate(model.state_dict().values())})


def digest_of_file(path: Path) -> str:
    """The same of a checkpoint."""
    return _digest(read(path))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    state = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key]
        state.update(key.encode())
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        state.update(flat.numpy().tobytes())
    return state.hexdigest()


def save(model: nn.Module, path: Path) -> None:
    """Writes all weights and buffers, whole or not at all."""
    with writing(path) as temporary:
        fill(model, temporary)


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


def load(model: nn.Module, path: Path) -> nn.Module:
    """Puts the weights of a safetensors file into `model`, in place; BadInput says what does not fit."""
    tensors, own = read(path), model.state_dict()
    places = {own[key].data_ptr(): key for key in tensors if key in own}
    # Transformers leaves one of two tied names out of its files.
    tensors |= {
        key: tensors[places[v.data_ptr()]] for key, v in own.items() if key not in tensors and v.data_ptr() in places
    }
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        difference = f"missing {missing[:3]}" if missing else f"unknown {extra[:3]}"
        raise BadInput(f"{path}: expected the weights of this architecture, got {difference}. Check scenario and file.")
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise BadInput(f"{path}: expected {key} of shape {tuple(own[key].shape)}, got {tuple(value.shape)}.")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(f"{path}: expected finite weights, got NaN or infinity in {key}.")
    model.load_state_dict(tensors)
    return model


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a Transformers folder; pickles are refused: opening one can run code."""
    path = path / "model.safetensors" if path.is_dir() else path
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
        raise BadInput(f"{path}: expected a whole safetensors file, got a damaged or truncated one.") from error
    return tensors
