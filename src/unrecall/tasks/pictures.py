"""Pictures as tensors, as bytes and as files; every complaint names the file."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput

T = TypeVar("T")


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


def opened(data: bytes, where: str | Path, convert: Callable[[Any], T]) -> T:
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
    """The picture in RGB; transparent parts are white."""
    from PIL import Image

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

    picture = opened(data, where, _on_white)
    width, height = (size * side // min(picture.size) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
