"""What membership attacks and metrics read: the signals of one model, and of those that it is held against."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from unrecall.data.request import Request, Split
from unrecall.data.signals import Signals, SplitSignals


@dataclass(frozen=True)
class Evidence:
    """What one model (the subject) showed, and the models it is held against.

    `signals`: the subject's, by split. `references`: the retrained models', never the subject itself. `original`: the
    model before unlearning. `extra`: what an attack asked for beyond that one pass, by split.
    """

    request: Request
    signals: Mapping[Split, Signals]
    references: tuple[Mapping[Split, Signals], ...]
    original: Mapping[Split, Signals]
    extra: Mapping[Split, np.ndarray] = field(default_factory=dict)

    def between(self, forget: np.ndarray, holdout: np.ndarray) -> "Evidence":
        """The evidence as if these examples of the holdout, by their places in it, were forget and holdout."""
        arms: dict[Split, np.ndarray] = {"forget": forget, "holdout": holdout}

        def moved(signals: Mapping[Split, Signals]) -> SplitSignals:
            reasons = signals.reasons if isinstance(signals, SplitSignals) else {}
            return SplitSignals({**signals, **{arm: signals["holdout"].part(arms[arm]) for arm in arms}}, reasons)

        extra = {arm: self.extra["holdout"][chosen] for arm, chosen in arms.items() if "holdout" in self.extra}
        references = tuple(map(moved, self.references))
        return replace(
            self,
            signals=moved(self.signals),
            references=references,
            original=moved(self.original),
            extra=dict(self.extra) | extra,
        )
