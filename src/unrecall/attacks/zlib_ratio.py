"""The zlib attack: examples that the model finds easier than a compressor does were probably trained on."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unrecall.attacks.base import MembershipAttack, both_arms, one_query
from unrecall.data.examples import iterate
from unrecall.data.request import Split
from unrecall.evidence.evidence import Evidence
from unrecall.record.schema import ThreatModel
from unrecall.training.job import Job


@dataclass(frozen=True)
class ZlibRatio(MembershipAttack):
    """Scores an example by minus its loss, over the size to which zlib compresses it.

        score(x) = -loss(x) / len(zlib(x))        loss: mean nats a row; size: bytes

    What repeats itself is easy for any model; it also compresses well, so that its loss is divided by less. The sizes
    don't depend on the model, and the losses come from the pass that all membership attacks share.

    Expected to fail: on short texts and small images, where zlib's fixed cost of a few bytes hides what differs, and
    where the examples are much alike, so that only the loss is left.

    Reference: Carlini, Tramer, Wallace, Jagielski, Herbert-Voss, Lee, Roberts, Brown, Song, Erlingsson, Oprea, Raffel,
    "Extracting Training Data from Large Language Models", USENIX Security 2021, arXiv 2012.07805, section 5.2.
    Differs from the paper in compressing what the model predicts (a text's answer without its prompt), and in counting
    bytes (the paper's bits give the same order).
    """

    title: ClassVar[str] = "Loss over zlib size"
    threat: ClassVar[ThreatModel] = one_query("the unlearned model's probability of the true label")

    def extra_signals(self, model: nn.Module, job: Job) -> Mapping[Split, np.ndarray]:
        """The compressed size of each example `[n]`, in bytes; the model is not asked."""
        return {
            split: np.array([len(zlib.compress(job.task.raw(item))) for item in iterate(examples)])
            for split, examples in both_arms(job.request).items()
        }

    def score(self, evidence: Evidence, split: Split) -> np.ndarray:
        """Minus nats a row and byte; NotSupported for a split that was not looked at."""
        return np.asarray(-evidence.signals[split].loss / self.extra_of(evidence, split))
