"""Linear probe: what a new linear layer reads off the features that the model has kept."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unrecall.attacks.base import Attacked, FewShotAttack, Success
from unrecall.data.examples import Examples, split_off
from unrecall.errors import NotSupported
from unrecall.evidence.pool import Dose, Pool
from unrecall.evidence.setting import Setting
from unrecall.models.observe import observe
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed, classed
from unrecall.training.ascent import head_of
from unrecall.training.job import Job


@dataclass(frozen=True)
class LinearProbe(FewShotAttack):
    """Fits a logistic regression on frozen features of retain and k forgotten examples; the model is left as it is.

        z_i  = (f(x_i) - m) / s                   f: what enters the head; m, s: its mean and deviation over i
        W, b = argmin  (1/n) sum_i v_i CE(W z_i + b, y_i) + penalty |W|^2 / 2,        v_i = n / (classes n_{y_i})

    over n examples, n_y of them of class y: each class counts the same, or k examples would be outvoted. Success is the
    accuracy of W, b on the forget examples that the attacker doesn't hold.

    Args:
        ks: forget examples that the attacker holds, one point of the curve each: of each forgotten class, or in all
            where no class is forgotten whole. Those that half of forget can't serve are left out.
        retain_sample: retain examples beside them, drawn at random.
        penalty: on the squared weights, beside a mean loss: it means the same however many examples there are. 1 is
            ours, chosen on the original of `emoji`: with five examples the layer puts 0.45 of the rest in their class,
            zero-shot 0.52; at a tenth of the penalty 0.35, at a thousandth 0.13 (means over four draws).
        iterations: of L-BFGS, at most.
        dose: "forget", or "both": the attacker's examples come from forget and holdout alike.

    Expected to fail: on features that no longer separate the forgotten class. It succeeds on a retrained model in part,
    since features of a class never seen may still cluster, and on samples, whose classes are known from retain: the
    curve means something beside that one.

    Reference: Alain, Bengio, "Understanding Intermediate Layers Using Linear Classifier Probes", ICLR 2017 workshop,
    arXiv 1610.01644. Differs from the paper in reading the last features alone, in k examples of what was forgotten,
    and in a retrained model beside it.
    """

    title: ClassVar[str] = "Linear probe"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="the features that enter the head; the weights stay as they are",
        data="k examples of each forgotten class (of forget, where no class is), and retain examples, with labels",
        budget="k, the number of forgotten examples; one linear layer is fitted",
    )
    needs: ClassVar[tuple[type, ...]] = (Classed,)
    axis: ClassVar[str] = "forgotten examples held, of each class that is forgotten whole"
    judged: ClassVar[str] = "mean"

    ks: tuple[Count, ...] = (1, 5, 10, 50)
    retain_sample: Count = 2000
    penalty: Positive = 1.0
    iterations: Count = 1000
    dose: Dose = "forget"

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """Whether the read-out names the class of each example; before the attack, whether the model does."""
        by_class = classed(self, task).classified()
        if not isinstance(model, ReadOut):
            return super().success(model, by_class, examples)
        signals = observe(model.model, by_class, examples)
        return Success((model.read(signals.features) == signals.target).astype(np.float64))

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """One read-out for each k."""
        task = classed(self, setting.task).classified()
        shots, groups, ks = self.shots(model, pool, setting.with_task(task))
        sample, _ = split_off(setting.request.retain, self.retain_sample, pool.generator())
        retain = observe(model, task, sample)
        for k in ks:
            first = np.concatenate([group[:k] for group in groups])
            features = np.concatenate((retain.features, shots.features[first]))
            targets = np.concatenate((retain.target, shots.target[first]))
            yield Attacked(k, ReadOut(model, self._fitted(features, targets)), pool.tested)

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original with a head that is wrong; None where there is no head, since then the features would be."""
        with suppress(NotSupported):
            head_of(original, job)
            return super().disguise(original, job)
        return None

    def _fitted(self, features: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """What names the class of each row of features `[n, d]`."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if len(np.unique(targets)) < 2:
            raise NotSupported("LinearProbe: expected examples of two classes or more to tell apart, got one class.")
        # scikit-learn minimises C times the sum of the losses, with half the squared weights beside it.
        strength = 1 / (self.penalty * len(targets))
        layer = LogisticRegression(C=strength, class_weight="balanced", max_iter=self.iterations, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = make_pipeline(StandardScaler(), layer).fit(features.astype(np.float64), targets)
        predict: Callable[[np.ndarray], np.ndarray] = fitted.predict
        return predict


class ReadOut(nn.Module):
    """A model, left as it is, and what names classes from its features: `[n, d]` to `[n]`."""

    def __init__(self, model: nn.Module, read: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.model, self.read = model, read
