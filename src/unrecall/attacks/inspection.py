"""What an attack promises that looks inside a model: lines over its layers or neurons, and one number."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import nn

from unrecall.attacks.base import Attack, AttackKind
from unrecall.evidence.setting import Setting
from unrecall.record.schema import Estimate, Side


class Inspection(NamedTuple):
    """What lies inside one model: lines over `x` by name, and the one number that sums them up.

    A model with nothing to draw has an empty `x`, and its value says why.
    """

    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]
    value: Estimate


def beside(sentence: str, others: str, reference: float | None) -> str:
    """The sentence, and what it comes to in retrained models: `others` and the number, where there are any."""
    if reference is None:
        return f"{sentence}; no retrained model tells how much would be usual."
    return f"{sentence}, {others} {reference:.2f}."


@dataclass(frozen=True)
class InspectionAttack(Attack):
    """Opens a model and looks for what its outputs no longer show.

    `shows`: what its value is. `axis` and `unit`: what x and y of its lines are. `sees`: what it
    finds in the copy that `disguise` makes, if it works.
    """

    kind: ClassVar[AttackKind] = "inspection"
    shows: ClassVar[str]
    axis: ClassVar[str]
    unit: ClassVar[str]
    sees: ClassVar[str] = "what a copy of the original only hides"

    @property
    def leak(self) -> Side | None:
        """The side of a retrained model's value on which the forgotten shows."""
        return "above"

    @abstractmethod
    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """Looks into `model`. NotSupported where the model has no such parts."""

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """Looks into each subject, by role, and into a model with several roles once.

        An attack overrides it to compare models with the setting's retrained ones.
        """
        by_model = {model: self.inspect(model, setting) for model in dict.fromkeys(subjects.values())}
        return {role: by_model[model] for role, model in subjects.items()}

    def disguise(self, setting: Setting) -> nn.Module | None:
        """A copy of the original that hides what this attack looks for; None for the one that serves most attacks."""
        return None

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """One plain sentence about the unlearned model, for people; empty where there is nothing to say."""
        return ""
