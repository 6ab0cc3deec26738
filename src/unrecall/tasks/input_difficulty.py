"""How hard labelled inputs are, from other labelled inputs alone: their classes, neighbours, and a cheap classifier."""

import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrecall.data.covariates import Covariates

CONFIDENCES = (-15.0, 20.0)
"""Between what logit confidences are clipped."""
NEIGHBOURS = 3
SEARCHED = 4000
"""Among how many examples of retain neighbours are looked for, at most."""
SIDE = 32
"""To how many rows and columns larger pictures are averaged."""
LONGEST = 4096
"""To how many values longer inputs are averaged, where they are no pictures."""
WIDTH = 1024
"""Random features of inputs that are no pictures."""
PATCHES = 200
"""Random patches of pictures; each gives eight features."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CHOOSING = 5000
"""By how many examples of retain, at most, a penalty is chosen."""
BUDGET = 1e11
"""Multiplications that a fit may take, about."""
AT_ONCE = 256

Features: TypeAlias = Callable[[Tensor], Tensor]
"""Inputs `[n, ...]` to features `[n, d]`."""


class Labelled(NamedTuple):
    """Inputs `[n, ...]` and their classes `[n]`."""

    inputs: Tensor
    labels: Tensor


def difficulty_of_inputs(retain: Labelled, pool: Labelled, seed: int) -> Covariates:
    """What retain alone says of each example of the pool `[n]`, in columns of these groups:

    - "class": a column for each class of the pool but the first, 1 for its examples and 0 for others;
    - "distance": mean squared distance to the nearest 3 of up to 4,000 retain examples of the same class, to the
      nearest 3 of other classes, and the logarithm of the first over the second. Where retain has no such examples the
      other distance stands for both;
    - "confidence" and "square": c and c^2, c = z_y - log sum over k != y of exp z_k, clipped to [-15, 20], z from a
      logistic regression on random features (`features_of`) that is fitted to all of retain; its penalty gives a fifth
      of up to 5,000 retain examples the highest probability when it is fitted to the rest of them.
    """
    generator = torch.Generator().manual_seed(seed)
    features = features_of(retain.inputs, generator)
    order = torch.randperm(len(retain.inputs), generator=generator)
    retain = Labelled(retain.inputs[order], retain.labels[order])
    classes = sorted(set(pool.labels.tolist()))
    dummies = pool.labels.numpy()[:, None] == np.array(classes[1:], int)
    near = distances(Labelled(retain.inputs[:SEARCHED], retain.labels[:SEARCHED]), pool)
    c = confidence(retain, pool, features)
    return Covariates(
        (*(f"class {c}" for c in classes[1:]), "distance to same", "distance to others", "log ratio", "c", "c^2"),
        (*["class"] * (len(classes) - 1), *["distance"] * 3, "confidence", "square"),
        np.concatenate([dummies, near, np.stack([c, c**2], 1)], 1),
    )


def confidence(retain: Labelled, pool: Labelled, features: Features) -> np.ndarray:
    """The logit confidence `[n]` of a logistic regression fitted to retain in each example of the pool; see above."""
    retain_features, pool_features = features(retain.inputs), features(pool.inputs)
    mean = retain_features.mean(0)
    spread = (retain_features - mean).square().mean().sqrt().clamp_min(1e-12)
    x, y, own = ((retain_features - mean) / spread).numpy(), retain.labels.numpy(), pool.labels.numpy()
    penalty = _penalty(x[:CHOOSING], y[:CHOOSING])
    p = _probabilities(x, y, penalty)(((pool_features - mean) / spread).numpy(), own)
    c: np.ndarray = np.clip(np.log(p) - np.log1p(-p), *CONFIDENCES)
    return c


def _penalty(x: np.ndarray, y: np.ndarray) -> float:
    """The penalty of `PENALTIES` with which a fit on the rest predicts the last fifth of these examples best."""
    first = len(x) * 4 // 5
    if len(x) < 10:
        return PENALTIES[0]
    losses = [-np.log(_probabilities(x[:first], y[:first], each)(x[first:], y[first:])).mean() for each in PENALTIES]
    return PENALTIES[int(np.argmin(losses))]


def _probabilities(x: np.ndarray, y: np.ndarray, penalty: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Fits a multinomial logistic regression of y `[n]` on x `[n, d]`; gives the probability of each row's class.

    A class that y lacks has probability 1 / (n + 1). `penalty`: on half the squared weights, beside a mean loss.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes, n = np.unique(y), len(y)
    iterations = int(np.clip(BUDGET / (x.size * len(classes)), 20, 200))
    layer = LogisticRegression(C=1 / (penalty * n), max_iter=iterations, tol=1e-3)
    if len(classes) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            layer.fit(x, y)

    def probabilities(x: np.ndarray, own: np.ndarray) -> np.ndarray:
        table = layer.predict_proba(x) if len(classes) > 1 else np.ones((len(x), 1))
        places = np.searchsorted(classes, own).clip(max=len(classes) - 1)
        shown = np.where(classes[places] == own, table[np.arange(len(x)), places], 1 / (n + 1))
        return np.clip(shown.astype(np.float64), 1e-12, 1 - 1e-12)

    return probabilities


def distances(retain: Labelled, pool: Labelled) -> np.ndarray:
    """Mean squared distances to the nearest of the same class and of others, and the log of their ratio, `[n, 3]`."""
    retain_inputs = retain.inputs.flatten(1).double()
    parts = []
    for inputs, labels in zip(torch.split(pool.inputs, AT_ONCE), torch.split(pool.labels, AT_ONCE), strict=True):
        own = inputs.flatten(1).double()
        squares = own.square().sum(1)[:, None] + retain_inputs.square().sum(1) - 2 * own @ retain_inputs.T
        same = labels[:, None] == retain.labels
        parts.append(torch.stack([_nearest(squares.clamp_min(0), mask) for mask in (same, ~same)], 1))
    both = torch.cat(parts)
    both = torch.where(both.isnan(), both.flip(1), both)
    floor = both.mean() * 1e-9 + 1e-12
    return torch.cat([both, ((both[:, :1] + floor) / (both[:, 1:] + floor)).log()], 1).numpy()


def _nearest(squares: Tensor, allowed: Tensor) -> Tensor:
    """The mean `[n]` of the smallest of the allowed ones of each row `[n, m]`; NaN where none is allowed."""
    smallest = squares.masked_fill(~allowed, torch.nan).nan_to_num(torch.inf)
    smallest = smallest.topk(min(NEIGHBOURS, squares.shape[1]), 1, largest=False).values
    return torch.where(smallest.isfinite(), smallest, torch.nan).nanmean(1)


def shrunk(inputs: Tensor) -> Tensor:
    """Inputs `[n, ...]`, pictures averaged to at most 32 x 32, anything else flattened, to at most 4,096 values."""
    if _are_pictures(inputs):
        side = min(SIDE, inputs.shape[2]), min(SIDE, inputs.shape[3])
        return F.adaptive_avg_pool2d(inputs, side)
    flat = inputs.flatten(1)
    return F.adaptive_avg_pool1d(flat, LONGEST) if flat.shape[1] > LONGEST else flat


def _are_pictures(inputs: Tensor) -> bool:
    return inputs.ndim == 4 and inputs.shape[1] <= 4 and min(inputs.shape[2:]) >= 16


def features_of(inputs: Tensor, generator: torch.Generator) -> Features:
    """Random features for inputs like these: of patches for pictures of 16 x 16 or more, else of the whole."""
    return patch_features(inputs, generator) if _are_pictures(inputs) else random_features(inputs, generator)


def random_features(inputs: Tensor, generator: torch.Generator, width: int = WIDTH) -> Features:
    """5 z and max(0, A z + b), z: the input less its mean, over the root mean square of that.

    A and b are random: normal with variance 1 / d and 0.09. Inputs lie within common bounds, so one scale serves all of
    their d values; values that hardly change stay small. That z counts for more was chosen on digits.

    Reference: Rahimi, Recht, "Weighted Sums of Random Kitchen Sinks", NIPS 2008.
    """
    flat = inputs.flatten(1)
    mean = flat.mean(0)
    spread = (flat - mean).square().mean().sqrt().clamp_min(1e-12)
    directions = torch.randn(flat.shape[1], width, generator=generator) / flat.shape[1] ** 0.5
    shifts = 0.3 * torch.randn(width, generator=generator)

    def features(inputs: Tensor) -> Tensor:
        z = (inputs.flatten(1) - mean) / spread
        return torch.cat([5 * z, F.relu(z @ directions + shifts)], 1)

    return features


def patch_features(inputs: Tensor, generator: torch.Generator, count: int = PATCHES) -> Features:
    """max(0, u - t) and max(0, -u - t) averaged over each quarter of a picture, u: how alike it is to a patch there.

    Patches of 6 x 6 are drawn from `inputs` `[n, channels, height, width]` and whitened (ZCA); u is the inner product
    with a whitened patch of length 1, at every second place; t is half the mean of |u|.

    Reference: Coates, Ng, "The Importance of Encoding Versus Training with Sparse Coding and Vector Quantization", ICML
    2011. Differs from the paper in leaving each patch's contrast as it is.
    """
    channels, size = inputs.shape[1], 6
    patches = _patches(inputs, size, generator)
    values, axes = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
    whitening = (axes * (values + 0.1 * values.mean()).clamp_min(1e-12).rsqrt() @ axes.T).float()
    varied = patches[patches.std(1) >= 0.1 * patches.std()]
    filters = F.normalize(varied[:count] @ whitening) @ whitening
    filters = (filters - filters.mean(1, keepdim=True)).view(-1, channels, size, size)
    threshold = 0.5 * F.conv2d(inputs[:100], filters, stride=2).abs().mean()

    def features(inputs: Tensor) -> Tensor:
        parts = []
        for some in torch.split(inputs, AT_ONCE):
            likeness = F.conv2d(some, filters, stride=2)
            both = [F.adaptive_avg_pool2d(F.relu(sign * likeness - threshold), 2).flatten(1) for sign in (1, -1)]
            parts.append(torch.cat(both, 1))
        return torch.cat(parts)

    return features


def _patches(inputs: Tensor, size: int, generator: torch.Generator, count: int = 4096) -> Tensor:
    """Random patches `[count, channels * size * size]`, each less its mean."""
    n, _, height, width = inputs.shape
    draws = [torch.randint(most, (count,), generator=generator) for most in (n, height - size + 1, width - size + 1)]
    places = zip(*(draw.tolist() for draw in draws), strict=True)
    patches = torch.stack([inputs[i, :, y : y + size, x : x + size].flatten() for i, y, x in places])
    return patches - patches.mean(1, keepdim=True)
