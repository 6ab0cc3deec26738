"""Pictures as tensors, as bytes and as files; every complaint names the file."""

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from unrecall.disk.files import exists
from unrecall.errors import BadInput
from unrecall.tasks.strings import string

T = TypeVar("T")


IMAGE = ("image", "file_name")
"""Keys of records that name a picture; the second as `datasets` has it in the metadata of its image folders."""


class Source(NamedTuple):
    """Where a picture's bytes are: in a file; or in `data`, where a table holds them, and `file` is what it calls them.

    Tables of `datasets` hold pictures so: `{"bytes": ..., "path": ...}`.
    """

    file: Path
    data: bytes = b""

    def at(self, place: str) -> "Source":
        """The same, called after its place in a table: FILE[INDEX]."""
        return self._replace(file=Path(place))

    def read(self, where: str) -> bytes:
        """The bytes; BadInput, with `where`, for a file that can't be read."""
        try:
            return self.data or self.file.read_bytes()
        except OSError as error:
            raise BadInput(f"{where}: expected a file that can be read, got: {error.strerror}.") from error


def source_of(record: Mapping[str, Any], where: str, folder: Path) -> Source | None:
    """The picture that a record has: `image` or `file_name`, a path from `folder` on, or what a table holds.

    None where it has neither key. BadInput, with `where`, where there is no such file.
    """
    key = next((key for key in IMAGE if record.get(key) is not None), None)
    if key is None:
        return None
    value: Any = record[key]
    if isinstance(value, Mapping):
        data, value = value.get("bytes"), value.get("path")
        if isinstance(data, bytes) and data:
            return Source(folder / string(value, f"{where}: {key}"), data) if value else Source(Path(where), data)
    file = folder / string(value, f"{where}: {key}")
    if not (exists(str(file)) and file.is_file()):
        raise BadInput(f"{where}: expected {key} to be a file, from {folder} on, got nothing at '{value:.60}'.")
    return Source(file)


def coarse(value: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The value in 256 steps between its bounds, as bytes."""
    low, high = bounds
    return ((value - low) / (high - low)).clamp(0, 1).mul(255).byte()


def png(value: Tensor, bounds: tuple[float, float]) -> str:
    """A data URI of an 8-bit grey or RGB PNG, from `[1 or 3, height, width]`."""
    from PIL import Image

    pixels, file = coarse(value, bounds).permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def open_picture(data: bytes, where: str | Path, convert: Callable[[Any], T]) -> T:
    """What `convert` makes of the Pillow picture in a file's bytes; BadInput, with `where`, for no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return convert(picture)
    except UnidentifiedImageError as error:
        raise BadInput(f"{where}: expected a picture that decodes, got no format that Pillow knows.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{where}: expected a picture that decodes, got: {line}") from error


def _on_white(picture: Any) -> Any:
    """The picture in RGB, turned as its camera says; transparent parts are white."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at white
        picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


def decoded(data: bytes, size: int, where: str | Path) -> Tensor:
    """`[3, size, size]` in [0, 1], RGB, as CLIP's own preparation gives it; BadInput, with `where`, for no picture.

    The shorter side becomes `size`, and the middle of the longer one is kept. Transparent parts are white.
    """
    from PIL import Image

    picture = open_picture(data, where, _on_white)
    width, height = (size * side // min(picture.size) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
