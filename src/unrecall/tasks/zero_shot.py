"""Zero-shot classification: an image-text model that is asked which of a few prompts a picture belongs to."""

from dataclasses import dataclass

import torch
from torch import nn

from unrecall.data.batches import Batch
from unrecall.data.signals import Rows, View
from unrecall.errors import NotSupported
from unrecall.tasks import dual_encoder
from unrecall.tasks.base import Task
from unrecall.tasks.pairs import Pairs


@dataclass(frozen=True, repr=False)
class ZeroShot(Pairs):
    """The pairs of a contrastive task by their label alone; a row's classes are the prompts, as the model reads them.

    logits[i, c] = scale cos(v_i, t_c),    t_c of prompt c under the same weights; the target is the label
    """

    def classified(self) -> Task:
        """The task itself: a row is an example already."""
        return self

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are the picture's unit vector. NotSupported where a pair has no label."""
        if bool(batch["labels"].lt(0).any()):
            raise NotSupported(
                "ZeroShot: expected every pair to have a label, got one without. Label it, or leave it out."
            )
        pictures = dual_encoder.pictures(model, self.normalised(batch["images"]))
        prompts = self.encoded_prompts(model)
        logits = (dual_encoder.unwrapped(model).logit_scale.exp() * pictures @ prompts.T).float()
        n = len(logits)
        return View(Rows(logits, batch["labels"], torch.arange(n, device=logits.device), n), pictures)

    def endings(self, model: nn.Module, batch: Batch) -> list[nn.Module]:
        """The last module of the tower for pictures."""
        return dual_encoder.endings(model)[:1]
