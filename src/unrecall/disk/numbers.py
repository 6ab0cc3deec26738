"""The numbers of an array or tensor, as texts and bytes that tell it from others, without a copy of the whole."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

WHOLE = 64 * 2**20
"""Of more bytes than these a sample counts."""
SAMPLE = 2**20
"""How many bytes a sample has at most."""
RUN = 2**10
"""How many bytes next to each other are in it."""
PART = 2**16
"""How many elements are read at once."""
BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}
"""The types of numpy and torch with which numbers of any type can be read, by how many bytes one has."""


def numbers_in(value: Any) -> list[Any] | None:
    """What tells an array or tensor from others: its type, shape and digest; None of what holds no plain numbers.

    Of more than 64 MB the digest is of an evenly spread sample of 1 MB at most, and of the path, time and size of the
    file where the array is mapped from one.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach()
        if flat.nbytes > WHOLE:
            flat = flat[_spread(tuple(flat.shape), flat.element_size())]
        flat = flat.cpu().resolve_conj().resolve_neg()
        bits = flat.view(getattr(torch, BITS[flat.element_size()])).numpy()
        return [repr((value.dtype, tuple(value.shape), value.requires_grad)), _digest(bits)]
    if type(value) not in (np.ndarray, np.memmap) or value.dtype.hasobject or value.dtype.kind not in "biufcmMSUV":
        return None
    said = [repr((type(value).__name__, value.dtype, value.shape))]
    if value.nbytes <= WHOLE:
        return [*said, _digest(value)]
    return [*said, _digest(value[_spread(value.shape, value.dtype.itemsize)]), *_mapped(value)]


def _spread(shape: tuple[int, ...], size: int) -> tuple[Any, ...]:
    """Where evenly spread elements of `size` bytes stand, in runs, the first and the last of all among them."""
    run = max(1, RUN // size)
    runs = max(1, SAMPLE // (run * size))
    starts = np.linspace(0, int(np.prod(shape)) - run, runs).astype(np.int64)
    return np.unravel_index((starts[:, None] + np.arange(run)).ravel(), shape)


def _mapped(array: np.ndarray) -> list[str]:
    """The path, time and size of the file from which an array is mapped, if it is."""
    whole: Any = array
    while whole is not None and not isinstance(whole, np.memmap):
        whole = getattr(whole, "base", None)
    file = getattr(whole, "filename", None)
    if file is None:
        return []
    found = Path(file).stat()
    return [repr((str(file), found.st_mtime_ns, found.st_size))]


def _digest(array: np.ndarray) -> bytes:
    """The sha256 of an array's numbers in the order of its axes, read part by part."""
    state = hashlib.sha256()
    if array.nbytes <= SAMPLE:
        state.update(array.tobytes())
        return state.digest()
    ways = ["external_loop", "buffered"]
    for part in np.nditer(array, ways, [["readonly", "contig"]], order="C", buffersize=PART):  # type: ignore
        state.update(np.asarray(part).reshape(-1).view(np.uint8).data)
    return state.digest()
