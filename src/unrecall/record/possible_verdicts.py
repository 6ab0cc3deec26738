"""Which verdicts can come out at all, told from how many examples and models there are, before anything is run."""

from collections.abc import Iterator
from itertools import count
from math import comb
from typing import NamedTuple

from unrecall.data.request import Request
from unrecall.data.sizes import OTHERS
from unrecall.record.exchange import DRAWS
from unrecall.record.never_trained import FEWEST_HOLDOUT, SHARED, levels
from unrecall.record.never_trained_lines import FEWEST, SURE
from unrecall.record.share_of_memory import needed, smallest_share
from unrecall.record.verdict import ENOUGH

COUNTED = "told from counts alone; which of these it will be depends on what the models know."
LABELLINGS = 20
"""In how many ways "was trained on" must be dealt out so that one of them is 5 in 100."""
FEW, MANY = 10, 100
"""Records below which the original itself is hardly found, and from which on every label can come out."""


class Sizes(NamedTuple):
    """What there is to judge by. `forget`, `holdout`: units, which are persons where `grouped`, else records.

    `planted`: each unit of holdout is the other wording of one of forget.
    """

    kind: str
    forget: int
    holdout: int
    retrained: int
    grouped: bool = False
    planted: bool = False

    @staticmethod
    def of(request: Request, retrained: int) -> "Sizes":
        """Of a request as it is audited, beside so many retrained models."""
        groups, planted = request.groups, request.pairs is not None
        if groups is None:
            others = len(request.holdout) if planted else len(set(request.digests["holdout"]))
            return Sizes(request.kind, len(request.forget), others, retrained, planted=planted)
        forgotten, others = (len(set(groups[arm])) for arm in ("forget", "holdout"))
        return Sizes(request.kind, forgotten, others, retrained, grouped=True, planted=planted)

    @property
    def units(self) -> str:
        """What is counted, in the plural."""
        return "persons" if self.grouped else "records"

    @property
    def least_holdout(self) -> int:
        """How large a holdout gives a p of 5 % at all."""
        return next(n for n in count(FEWEST_HOLDOUT) if comb(self.forget + n, self.forget) >= LABELLINGS)

    @property
    def labellings(self) -> int:
        """In how many ways "was trained on" can be dealt out: of planted units within each pair alone."""
        return 2**self.forget if self.planted else comb(self.forget + self.holdout, self.forget)


def possible(sizes: Sizes) -> Iterator[str]:
    """What can be concluded, and what would allow more, a sentence each; docs/verdict.md has the rules."""
    if sizes.retrained >= 2:
        yield f"beside {sizes.retrained} retrained models: leaks, over-forgets, like retrained or inconclusive."
        yield COUNTED
        if sizes.retrained < ENOUGH:
            yield f"{ENOUGH} retrained models make the bounds much narrower."
        if sizes.forget < FEW:
            yield f"with {sizes.forget} forgotten, the original itself can look retrained by chance: pool requests."
        return
    reason = lacking(sizes)
    if reason:
        hint = "Give two retrained models or more, or what trains them: build and recipe, or --base."
        if sizes.kind not in SHARED and not sizes.planted:
            hint = f"Name {sizes.least_holdout} {sizes.units} or more in holdout. Or: {hint}"
        yield f"no verdict on what is still known: {reason}. {hint}"
        return
    yield from _beside_never_trained(sizes)


def lacking(sizes: Sizes) -> str:
    """Why there is no verdict without retrained models; empty where there can be one."""
    if sizes.kind in SHARED:
        shared = "which forget and holdout share" if sizes.holdout else "which a holdout would share"
        return f"a whole {sizes.kind} must go, {shared}"
    if sizes.holdout < FEWEST_HOLDOUT:
        return f"that needs a holdout of {FEWEST_HOLDOUT} at least, got {sizes.holdout}"
    if not levels(_smallest(sizes.labellings))[0]:
        ways = f"{sizes.labellings} ways, and {LABELLINGS} are needed"
        return f"{sizes.forget} against {sizes.holdout} can be dealt out in {ways}"
    return ""


def _smallest(labellings: int) -> float:
    """The smallest p that so many labellings can give."""
    return 1 / labellings if labellings <= DRAWS else 1 / (DRAWS + 1)


def _beside_never_trained(sizes: Sizes) -> Iterator[str]:
    units = sizes.units
    fewest = FEWEST["group" if sizes.grouped else "record"]
    least = _smallest(sizes.labellings)
    labels = [f"leaks (wrongly in at most {4 if least <= levels(0.0)[0] else 5} of 100)"]
    labels += ["stands out"] if levels(least)[1] else []
    labels += ["no more than 50 %"] if sizes.forget >= fewest else []
    labels += ["no more than 25 %"] if sizes.forget >= 2 * fewest else []
    also = "damaged, can't be told, inconclusive"
    yield f"beside {sizes.holdout} {units} never trained on it can be: {', '.join(labels)}, {also}."
    yield COUNTED
    if sizes.forget < fewest:
        yield f"how little is left can't be said of fewer than {fewest} {units}, got {sizes.forget}: pool requests."
    if sizes.grouped and sizes.forget == 1 and sizes.holdout < OTHERS:
        yield f"one person is held against {OTHERS} others at least, got {sizes.holdout}."
    if sizes.holdout < 4 * sizes.forget:
        yield f"more holdout helps up to {4 * sizes.forget} {units}."


def remembered(z: float, sizes: Sizes) -> Iterator[str]:
    """What the original's own statistic says: the smallest share of its memory that is noticed, and what is needed."""
    units, fewest = sizes.forget, FEWEST["group" if sizes.grouped else "record"]
    share = smallest_share(z)
    yield f"the original knows forget beyond the holdout by z = {z:.1f} standard deviations, as it is: " + (
        "so weakly that nobody could see whether it goes, though a leak may show after fine-tuning."
        if share is None
        else f"if {share:.0%} of that memory or more is left, it is noticed (4 times in 5); less may go unseen."
    )
    enough = None if share is None else needed(units, z, 0.5, SURE)
    if enough is not None and max(enough, fewest) > units:
        yield f"for no more than 50 %, about {max(enough, fewest):,} such {sizes.units} are needed."
