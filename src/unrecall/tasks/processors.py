"""How a Transformers image processor prepares pictures: their pixels, and what it shifts and scales these by."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrecall.errors import BadInput, one_line
from unrecall.tasks.pretrained import preparation

APART = 0.02
"""How far apart two ways to prepare a picture may lie, as a share of its range, for rounding to 256 steps."""


def processor_in(folder: Path) -> Any:
    """The image processor that a model's folder describes; by Pillow, whatever else is installed."""
    automatic: Any = importlib.import_module("transformers").AutoImageProcessor
    return automatic.from_pretrained(folder, backend="pil", trust_remote_code=False, local_files_only=True)


def pixels(processor: Any, picture: Any) -> Tensor:
    """uint8 [3, height, width] of a Pillow picture: resized and cropped, neither scaled nor normalised.

    It is turned as its camera says and read as RGB, by Transformers' own `load_image`. ValueError for a picture of
    more than 8 bits a channel, which that would cut off.
    """
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a channel (mode {picture.mode}). Convert it as the model was trained on")
    made = processor(_loaded(picture), do_rescale=False, do_normalize=False, return_tensors="pt")
    values: Tensor = made["pixel_values"][0]
    return values.round().clamp(0, 255).to(torch.uint8)


def normalised(processor: Any, inputs: Tensor) -> Tensor:
    """What the processor would give for pixels in [0, 1]."""
    scaled = inputs * (255 * processor.rescale_factor) if processor.do_rescale else inputs * 255
    if not processor.do_normalize:
        return scaled
    mean, std = (inputs.new_tensor(values)[:, None, None] for values in moments(processor))
    return (scaled - mean) / std


def moments(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the processor subtracts from each channel and divides it by; nothing where it doesn't normalise."""
    if not processor.do_normalize:
        return (), ()
    return tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))


def check_processor(processor: Any, prepared: Callable[[Any], Tensor], picture: Any) -> None:
    """BadInput where what is `prepared` of a Pillow picture isn't what the processor makes of it, up to rounding."""
    try:
        expected = processor(_loaded(picture), return_tensors="pt")["pixel_values"]
        off = _apart(prepared(picture), expected)
        reason = "" if off <= APART else f"one that does more than scale and normalise, {off:.2f} of its range off"
    except Exception as error:  # whatever a processor raises over its own settings
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if reason:
        raise BadInput(
            f"{type(processor).__name__}: expected an image processor of pictures in RGB, got {reason}. "
            "Correct preprocessor_config.json, or write a scenario of your own."
        )


def check_same_preparation(processor: Any, folder: Path) -> None:
    """BadInput where a folder has an image processor of its own, which makes something else of a picture."""
    if preparation(folder) is None:
        return
    try:
        image: Any = importlib.import_module("PIL.Image")
        sample = image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
        theirs = processor_in(folder)
        made, expected = (each(sample, return_tensors="pt")["pixel_values"] for each in (theirs, processor))
    except Exception as error:  # whatever a processor raises over its own settings
        raise BadInput(
            f"{folder}: expected an image processor that Transformers reads, got: {one_line(error)}"
        ) from error
    if made.shape != expected.shape or not _apart(made, expected) <= APART:
        raise BadInput(
            f"{folder}: expected pictures prepared as the original's, got a preprocessor_config.json that prepares "
            "them otherwise. Pictures are prepared as the original's: correct it, or audit by that of its own."
        )


def _apart(made: Tensor, expected: Tensor) -> float:
    """How far two preparations of a picture lie apart at most, as a share of the range of the second, or of 1."""
    return float((made - expected).abs().max() / max(1.0, float(expected.max() - expected.min())))


def _loaded(picture: Any) -> Any:
    """A Pillow picture as Transformers loads it: turned as its camera says, and in RGB."""
    utilities: Any = importlib.import_module("transformers.image_utils")
    return utilities.load_image(picture)
