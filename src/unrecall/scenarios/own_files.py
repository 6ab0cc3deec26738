"""What cases of a user's own share: a model, and the files of what it must forget and of what it must keep."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from unrecall.data.examples import Absent
from unrecall.data.request import SPLITS, Split
from unrecall.errors import BadInput, nearest
from unrecall.scenarios.base import Builder
from unrecall.spec.parameters import Count, Index


@dataclass(frozen=True)
class FromOwnFiles(Builder):
    """A model of a user's own, and where its examples are: what each set holds, the scenario says.

    `examples`: what they are called, in the plural; so is the scenario.
    """

    examples: ClassVar[str]

    model: str = ""
    forget: str = ""
    retain: str = ""
    holdout: str = ""
    test: str = ""
    base: str = ""
    epochs: Count = 5
    references: Index = 3

    @property
    def paths(self) -> dict[Split, Path]:
        """The file or folder of each set that was named; BadInput where model, forget or retain wasn't."""
        for option in ("model", "forget", "retain"):
            if not getattr(self, option):
                raise BadInput(
                    f"{self.examples}: expected {option}=PATH, got none. Needed are model, forget and retain."
                )
        return {split: Path(path) for split in SPLITS if (path := getattr(self, split))}

    def absent(self, split: Split) -> Absent:
        """What stands for a set that wasn't named, and says what to name."""
        what, like = ("holdout", " like forget") if split == "holdout" else (f"{split} set", "")
        return Absent(
            f"no {what} was given: name {self.examples}{like} that the model was never trained on (--{split})"
        )


def no_owner(place: str, group: str, record: Mapping[str, Any]) -> BadInput:
    """What to raise where a record doesn't say whose it is: its key is missing, or holds nothing."""
    hint = "Name somebody." if group in record else nearest(group, map(str, record))
    return BadInput(
        f"{place}: expected '{group}' to say whose it is, got {'none' if group in record else 'no such key'}. {hint}"
    )


def placed(error: BadInput, place: Callable[[Split, int], str | None]) -> BadInput:
    """The error with file and line, which `place` knows, wherever it names an example by its index."""

    def located(match: re.Match[str]) -> str:
        return place(cast(Split, match[1]), int(match[2])) or match[0]

    return BadInput(re.sub(rf"\b({'|'.join(SPLITS)})\[(\d+)\]", located, str(error)))
