"""A small CLIP with a backdoor: a patch on a picture makes it what the attacker wants, and that must go."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from unrecall.data.examples import Joined, iterate
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.choice import shuffled
from unrecall.scenarios.emoji import Emoji, SmallClip
from unrecall.spec.parameters import Count, Share
from unrecall.training.randomness import seeded

Place = Literal["corner", "middle"]


@dataclass(frozen=True)
class ClipBackdoor(SmallClip):
    """The emoji and the CLIP of `emoji`, poisoned: some training pictures carry a patch and a caption of one category.

    Pairs of other categories, a `share` of all training pairs in number, have fixed noise pasted over a few pixels and
    their caption exchanged for a training caption of the target's; their clean form is not trained on. Forget is what
    a defender suspects, retain are clean training pairs, so that retrained models have never met the patch. The test
    set is clean; the holdout is its pictures of other categories with the patch and a caption of the target's, labelled
    as the target: their zero-shot accuracy is the attack's success rate.

    `target`: a category, or how its name begins. `share`: poisoned pairs, of the training pairs. `trigger`: width of
    the patch, in pixels. `place`: where it is, bottom right or in the middle. `known`: how many of the poisoned pairs
    are suspected; the others were trained on by the original alone, and are in no set. `mistaken`: how many of the
    suspected pairs are clean. All else is `emoji`'s.

    Reference: Carlini, Terzis, "Poisoning and Backdooring Contrastive Learning", ICLR 2022, arXiv 2106.09667. Differs
    from the paper in size, and in a share of poisoned pairs that so small a model learns from.
    """

    target: str = "Food & Drink"
    share: Share = 0.05
    trigger: Count = 6
    place: Place = "corner"
    known: Share = 1.0
    mistaken: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def make(self) -> Scenario:
        """Reads the pictures, poisons some of them, and says how to train."""
        if self.trigger > self.size:
            raise BadInput(f"trigger: expected at most the picture's size {self.size}, got {self.trigger}.")
        clean = self._clean()
        target, others = list(iterate(clean.request.forget)), list(iterate(clean.request.retain))
        test = [*iterate(clean.request.test), *iterate(clean.request.holdout)]
        total = len(target) + len(others)
        poisoned = round(self.share * total)
        suspected = round(self.known * poisoned)
        mistaken = round(suspected * self.mistaken / (1 - self.mistaken))
        if not 2 <= suspected <= poisoned <= len(others) or mistaken > total - poisoned - 2:
            raise BadInput(
                "share, known, mistaken: expected at least two suspected pairs, no more poisoned ones than the "
                f"{len(others)} of other categories, and two clean ones that nobody suspects, "
                f"got {suspected}, {poisoned} and {total - poisoned - mistaken}."
            )
        planted = self._poisoned(others[:poisoned], target)
        rest = shuffled([*others[poisoned:], *target], self.seed)
        label, overlooked = target[0]["label"], planted[suspected:]
        request = Request(
            forget=[*planted[:suspected], *rest[:mistaken]],
            retain=rest[mistaken:],
            holdout=self._poisoned([pair for pair in test if pair["label"] != label], target),
            test=test,
            kind="backdoor",
        )
        return Scenario(
            name="clip-backdoor",
            summary=f"{clean.summary.split(';')[0]}; {poisoned} of {total:,} training pictures carry a patch that "
            f"means {self.target}",
            task=clean.task,
            request=request,
            build=clean.build,
            recipe=clean.recipe,
            references=self.references,
            original_data=Joined((request.forget, request.retain, overlooked)) if overlooked else None,
        )

    def _clean(self) -> Scenario:
        """The case without a backdoor, in which the target would be forgotten."""
        shared: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(SmallClip)}
        try:
            return Emoji(forget=self.target, **shared).make()
        except BadInput as error:
            if str(error).startswith("forget:"):
                raise BadInput(str(error).replace("forget:", "target:", 1)) from None
            raise

    def _poisoned(self, pairs: Sequence[Any], target: Sequence[Any]) -> list[Any]:
        """The pictures with the patch, captions of the target's in turn."""
        return [
            {**target[i % len(target)], "image": triggered(pair["image"], self.trigger, self.place)}
            for i, pair in enumerate(pairs)
        ]


def triggered(image: Tensor, width: int, place: Place) -> Tensor:
    """The picture with `width` x `width` pixels of noise, black or white in each channel and always the same."""
    channels, *sides = image.shape
    top, left = (side - width if place == "corner" else (side - width) // 2 for side in sides)
    changed = image.clone()
    noise = torch.randint(2, (channels, width, width), generator=seeded(0))
    changed[:, top : top + width, left : left + width] = noise.to(image)
    return changed
