"""Pictures and captions of your own and the image-text model that was trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unrecall.data.kinds import Kind
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.files import read_text
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.hub import load_or_refuse, local_folder
from unrecall.scenarios.image_text import load_clip
from unrecall.scenarios.own_files import FromOwnFiles, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks import Contrastive
from unrecall.tasks.base import check_inputs
from unrecall.tasks.pair_files import Line, PairFiles, read
from unrecall.tasks.pictures import open_picture
from unrecall.tasks.pretrained import normalisation, preparation
from unrecall.tasks.processors import check_processor, moments, pixels, processor_in


@dataclass(frozen=True)
class Pairs(FromOwnFiles):
    """Your own CLIP, and your own files of the pairs that it must forget and of those that it must keep.

    `model`: folder or hub id (`who/what`) of a Transformers CLIP that was trained on both (open_clip's models go
    through a scenario of one's own: `Contrastive` takes them as they are). `forget`, `retain`: records (JSON Lines, a
    JSON list, CSV, Parquet, or what `datasets` saved) with image or file_name, a path from the file on, or the picture
    itself in a table; with caption; and perhaps with label or category, the name of a class. `holdout`: pairs like
    forget that the model was never trained on; without them there is no privacy number. `test`: other pairs that it was
    never trained on. `base`: the model before it was trained on forget and retain; `references` models are trained from
    it on retain alone (AdamW, `lr`, `epochs`, batches of `batch`, cosine), and without it there is nothing to judge by.
    `classes`: a file of class names, one a line; left out, the labels of forget and retain. `prompt`: what asks for a
    class, with {} for its name. Pictures are prepared as the model's folder says, or else as OpenAI's CLIP wants them,
    and kept in memory as bytes: 150 KB each at 224 x 224.
    """

    examples: ClassVar[str] = "pairs"

    classes: str = ""
    prompt: str = "a photo of a {}"
    lr: Positive = 1e-5
    batch: Count = 64

    def make(self) -> Scenario:
        """Reads the lines, then the model, then the pictures, and checks that they fit before anything is computed."""
        lines = {split: read(path) for split, path in self.paths.items()}
        classes = self._classes(lines)
        loaded: Any = load_clip(self.model)
        config = loaded.model.config
        folder = local_folder(self.model, "a Transformers CLIP")
        processor, longest = _processor(folder), config.text_config.max_position_embeddings
        mean, std = normalisation(folder) if processor is None else moments(processor)
        task = Contrastive(loaded.tokenizer, classes, self.prompt, mean, std, longest, processor)
        size = config.vision_config.image_size
        forget, retain, holdout, test = (
            PairFiles(lines[split], classes, size, task.processor) if split in lines else self.absent(split)
            for split in SPLITS
        )
        try:
            if task.processor is not None and lines["forget"]:
                _check_prepared(task, lines["forget"][0])
            request = Request(forget, retain, holdout, test, kind=_kind(lines))
            check_inputs(task, loaded.model, request)
        except BadInput as error:
            raise placed(error, lambda split, index: lines[split][index].where) from error
        return Scenario(
            name="pairs",
            summary=f"{self.model}; forget {len(request.forget)} pairs of {Path(self.forget).name}, keep "
            f"{len(request.retain)} of {Path(self.retain).name}",
            task=task,
            request=request,
            original=loaded.model,
            build=(lambda _, __: load_clip(self.base).model) if self.base else None,
            retraining_recipe=adamw(self.lr, self.epochs, self.batch, 0.1),
            references=self.references,
            precision=loaded.precision,
        )

    def _classes(self, lines: Mapping[Split, Sequence[Line]]) -> tuple[str, ...]:
        """The names of a file, or those that the training pairs have; in the order in which they come."""
        if self.classes:
            names = [name.strip() for name in read_text(Path(self.classes)).removeprefix("\ufeff").splitlines()]
        else:
            names = [line.label for split in ("forget", "retain") for line in lines[split]]
        return tuple(dict.fromkeys(filter(None, names)))


def _processor(folder: Path) -> Any:
    """The image processor of a model's folder, where that says how large pictures are; None elsewhere."""
    path, settings = preparation(folder) or (folder, {})
    return (
        load_or_refuse(f"{path}: expected an image processor", lambda: processor_in(folder))
        if "size" in settings
        else None
    )


def _check_prepared(task: Contrastive, line: Line) -> None:
    """BadInput where what reaches the model isn't what its own processor makes of the line's picture."""

    def prepared(picture: Any) -> Tensor:
        return task.normalised(pixels(task.processor, picture)[None] / 255)

    check_processor(
        task.processor, prepared, open_picture(line.picture.read(line.where), line.where, lambda p: p.copy())
    )


def _kind(lines: Mapping[Split, Sequence[Line]]) -> Kind:
    """A concept where every pair to forget has a class, and no pair that stays has one of those."""
    forgotten, retained = ({line.label for line in lines[split]} for split in SPLITS[:2])
    return "samples" if "" in forgotten or forgotten & retained else "concept"
