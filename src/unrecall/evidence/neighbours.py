"""Which examples that stay lie near an arm, as the original sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unrecall.data.examples import Joined
from unrecall.data.request import Split
from unrecall.data.signals import Signals
from unrecall.evidence.setting import Setting

STAYING: tuple[Split, ...] = ("retain", "test")


@dataclass(frozen=True)
class Neighbours:
    """The retain and test examples of a setting, those of classes that are forgotten whole left out."""

    setting: Setting

    @cached_property
    def examples(self) -> Joined:
        """Those of retain, then those of the test set, on which models are looked at."""
        return Joined([self.setting.observed[split] for split in STAYING])

    @cached_property
    def centre(self) -> np.ndarray:
        """The mean of their features in the original `[d]`."""
        return np.asarray(self._features.mean(0))

    def nearest(self, arm: Split) -> list[int]:
        """Their places, nearest to any example of the arm first, by the cosine of centred features."""
        from sklearn.metrics import pairwise_distances_argmin_min

        anchors = self._signals(arm).features - self.centre
        _, far = pairwise_distances_argmin_min(self._features - self.centre, anchors, metric="cosine")
        return [int(i) for i in np.argsort(far, kind="stable") if not self._masked[i]]

    @cached_property
    def _features(self) -> np.ndarray:
        return np.concatenate([self._signals(split).features for split in self._present])

    @cached_property
    def _masked(self) -> np.ndarray:
        """Which are of a class that is forgotten whole; none where an example has more rows than one."""
        targets = np.concatenate([self._signals(split).target for split in self._present])
        masked = self.setting.request.masked
        return np.isin(targets, masked) if len(targets) == len(self.examples) else np.zeros(len(self.examples), bool)

    @property
    def _present(self) -> Sequence[Split]:
        return [split for split in STAYING if len(self.setting.observed[split])]

    def _signals(self, split: Split) -> Signals:
        return self.setting.evidence["original"].signals[split]
