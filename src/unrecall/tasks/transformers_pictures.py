"""Classification by a Transformers model that takes pictures, as its own image processor prepares them."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.errors import BadInput
from unrecall.tasks.classification import Classification
from unrecall.tasks.pretrained import preparation, save

APART = 0.02
"""How far apart two ways to prepare a picture may lie, as a share of its range, for rounding to 256 steps."""


@dataclass(frozen=True, repr=False)
class TransformersPictures(Classification):
    """Examples are `(picture, label)`: a picture [3, height, width] in [0, 1], resized and cropped by `processor`.

    `processor`: of Transformers, as `AutoImageProcessor` loads it. How it shifts and scales pixels is part of `forward`
    here, so that radii are those of pixels. `export` writes a folder that Transformers reads.
    """

    processor: Any = None

    def __repr__(self) -> str:
        """What Classification says, and the processor's settings."""
        return f"{super().__repr__()} {self.processor.to_json_string()}"

    def prepare(self, picture: Any) -> Tensor:
        """uint8 [3, height, width] of a Pillow picture: resized and cropped, neither scaled nor normalised.

        It is turned as its camera says and read as RGB, by Transformers' own `load_image`. ValueError for a picture of
        more than 8 bits a channel, which that would cut off.
        """
        if picture.mode.startswith(("I", "F")):
            raise ValueError(
                f"more than 8 bits a channel (mode {picture.mode}). Convert it as the model was trained on"
            )
        made = self.processor(loaded(picture), do_rescale=False, do_normalize=False, return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0]
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def check_processor(self, picture: Any) -> None:
        """BadInput where what reaches the model isn't what the processor makes of a Pillow picture, up to rounding."""
        try:
            expected = self.processor(loaded(picture), return_tensors="pt")["pixel_values"]
            made = self._normalised(self.prepare(picture)[None] / 255)
            off = apart(made, expected)
            reason = "" if off <= APART else f"one that does more than scale and normalise, {off:.2f} of its range off"
        except Exception as error:  # whatever a processor raises over its own settings
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if reason:
            raise BadInput(
                f"{type(self.processor).__name__}: expected an image processor of pictures in RGB, got {reason}. "
                "Correct preprocessor_config.json, or write a scenario of your own with Classification(forward=...)."
            )

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        normalised = self._normalised(inputs)
        logits: Tensor = model(normalised).logits if self.forward is None else self.forward(model, normalised)
        return logits

    def _normalised(self, inputs: Tensor) -> Tensor:
        """What the processor would give for pixels in [0, 1]."""
        own = self.processor
        scaled = inputs * (255 * own.rescale_factor) if own.do_rescale else inputs * 255
        if not own.do_normalize:
            return scaled
        mean, std = (inputs.new_tensor(values)[:, None, None] for values in (own.image_mean, own.image_std))
        return (scaled - mean) / std

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors and processor, as `from_pretrained` reads them.

        Of other models nothing is written: their weights are all there is.
        """
        if hasattr(model, "save_pretrained"):
            save(model, self.processor, folder)

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where the folder's own image processor makes something else of a picture."""
        if preparation(folder) is None:
            return
        try:
            image: Any = importlib.import_module("PIL.Image")
            sample = image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
            theirs = processor_in(folder)
            made, expected = (each(sample, return_tensors="pt")["pixel_values"] for each in (theirs, self.processor))
        except Exception as error:  # whatever a processor raises over its own settings
            line = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"{folder}: expected an image processor that Transformers reads, got: {line[:300]}"
            ) from error
        if made.shape != expected.shape or not apart(made, expected) <= APART:
            raise BadInput(
                f"{folder}: expected pictures prepared as the original's, got a preprocessor_config.json that prepares "
                "them otherwise. Pictures are prepared as the original's: correct it, or audit by that of its own."
            )


def processor_in(folder: Path) -> Any:
    """The image processor that a model's folder describes; by Pillow, whatever else is installed."""
    automatic: Any = importlib.import_module("transformers").AutoImageProcessor
    return automatic.from_pretrained(folder, backend="pil", trust_remote_code=False, local_files_only=True)


def apart(made: Tensor, expected: Tensor) -> float:
    """How far two preparations of a picture lie apart at most, as a share of the range of the second, or of 1."""
    return float((made - expected).abs().max() / max(1.0, float(expected.max() - expected.min())))


def loaded(picture: Any) -> Any:
    """A Pillow picture as Transformers loads it: turned as its camera says, and in RGB."""
    utilities: Any = importlib.import_module("transformers.image_utils")
    return utilities.load_image(picture)
