"""Classification by a Transformers model that takes pictures, as its own image processor prepares them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unrecall.data.examples import Examples
from unrecall.tasks import processors
from unrecall.tasks.classification import Classification
from unrecall.tasks.pretrained import save


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
        """uint8 [3, height, width] of a Pillow picture: resized and cropped, neither scaled nor normalised."""
        return processors.pixels(self.processor, picture)

    def check_processor(self, picture: Any) -> None:
        """BadInput where what reaches the model isn't what the processor makes of a Pillow picture, up to rounding."""

        def prepared(picture: Any) -> Tensor:
            return self._normalised(self.prepare(picture)[None] / 255)

        processors.check_processor(self.processor, prepared, picture)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        normalised = self._normalised(inputs)
        logits: Tensor = model(normalised).logits if self.forward is None else self.forward(model, normalised)
        return logits

    def _normalised(self, inputs: Tensor) -> Tensor:
        """What the processor would give for pixels in [0, 1]."""
        return processors.normalised(self.processor, inputs)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors and processor, as `from_pretrained` reads them.

        Of other models nothing is written: their weights are all there is.
        """
        if hasattr(model, "save_pretrained"):
            save(model, self.processor, folder)

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where the folder's own image processor makes something else of a picture."""
        processors.check_same_preparation(self.processor, folder)
