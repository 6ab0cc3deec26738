"""Classification by a Transformers model that takes pictures, as its own image processor prepares them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrecall.errors import BadInput
from unrecall.tasks.classification import Classification
from unrecall.tasks.pretrained import save


@dataclass(frozen=True, repr=False)
class TransformersPictures(Classification):
    """Examples are `(picture, label)`: a picture [3, height, width] in [0, 1], resized and cropped by `processor`.

    `processor`: of Transformers, as `AutoImageProcessor` loads it. How it shifts and scales pixels is part of `forward`
    here, so that radii are those of pixels. `export` writes a folder that Transformers reads.
    """

    processor: Any = None

    def __post_init__(self) -> None:
        """A processor that does with pixels what isn't done here is refused."""
        super().__post_init__()
        if getattr(self.processor, "rescale_offset", False):
            raise BadInput(
                f"{type(self.processor).__name__}: expected pixels that are scaled and normalised, got an offset too "
                "(rescale_offset). Give Classification(forward=...) in a scenario of your own."
            )

    def __repr__(self) -> str:
        """What Classification says, and the processor's settings."""
        return f"{super().__repr__()} {self.processor.to_json_string()}"

    def prepare(self, picture: Any) -> Tensor:
        """uint8 [3, height, width] of a Pillow picture: resized and cropped, neither scaled nor normalised."""
        made = self.processor(picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0]
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(self._normalised(inputs)).logits
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
