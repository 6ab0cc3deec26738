"""The numbers of an array or tensor, as texts and bytes that tell it from others, without a copy of the whole."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

AT_ONCE = 2**20
"""Of so many bytes a copy does no harm."""
PART = 2**16
"""How many elements are read at once."""
BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}
"""The types of numpy and torch with which numbers of any type can be read, by how many bytes one has."""


def numbers_in(value: Any) -> list[Any] | None:
    """What tells an array or tensor from others: its type, shape and digest; None of what holds no plain numbers.

    An array that is mapped from a file, to be read alone, has in place of a digest the file's path, time and size, and
    which part of it it is.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        plain = value.detach().cpu().resolve_conj().resolve_neg()
        bits = plain.view(getattr(torch, BITS[plain.element_size()])).numpy()
        return [repr((value.dtype, tuple(value.shape), value.requires_grad)), _digest(bits)]
    if type(value) not in (np.ndarray, np.memmap) or value.dtype.hasobject or value.dtype.kind not in "biufcmMSUV":
        return None
    form = repr((type(value).__name__, value.dtype, value.shape))
    return [form, _place_in_file(value) or _digest(value)]


def _place_in_file(array: np.ndarray) -> str:
    """Which part of which file an array is, where it is mapped from one to be read alone; empty of all others."""
    part: Any = array
    mapped: np.memmap | None = None
    while isinstance(part, np.ndarray):
        mapped, part = part if isinstance(part, np.memmap) else mapped, part.base
    if mapped is None or mapped.mode != "r" or mapped.filename is None:
        return ""
    file = Path(mapped.filename).stat()
    first = array.__array_interface__["data"][0] - mapped.__array_interface__["data"][0] + mapped.offset
    return repr((str(mapped.filename), file.st_mtime_ns, file.st_size, first, array.strides))


def _digest(array: np.ndarray) -> bytes:
    """The sha256 of an array's numbers in the order of its axes, read part by part."""
    state = hashlib.sha256()
    if array.nbytes <= AT_ONCE:
        state.update(array.tobytes())
        return state.digest()
    ways = ["external_loop", "buffered"]
    for part in np.nditer(array, ways, [["readonly", "contig"]], order="C", buffersize=PART):  # type: ignore
        state.update(np.asarray(part).reshape(-1).view(np.uint8).data)
    return state.digest()
