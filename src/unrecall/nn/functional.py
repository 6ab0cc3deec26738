"""Losses and divergences: tensors in, tensors out. Rows are `[n, classes]` logits or log-probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unrecall.errors import BadInput


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the negative log-likelihood of each row's target, `[n]`, in nats.

    Raises BadInput where a target is no class.
    """
    try:
        return F.cross_entropy(logits, targets, reduction="none")
    except IndexError:
        raise BadInput(
            f"labels: expected 0 to {logits.shape[1] - 1}, as many as the model has outputs, got "
            f"{int(targets.min())} to {int(targets.max())}. Mend the labels, or give the model more outputs."
        ) from None


def exact_log_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Computes all log-probabilities `[n, classes]` and those of the targets `[n]`, in float64, in nats.

        -log p_y = log(1 + sum over k != y of exp(z_k - z_y))        log p_k = (z_k - z_y) + log p_y

    From margins, so that a target that is all but certain keeps its place: 1 - p is 0 in float32 from a margin of 17
    on, and here only from 745 on. NaN where the target's logit isn't finite.
    """
    target_logits = logits.gather(1, targets[:, None]).double()
    margins = logits.double() - target_logits
    others = margins.scatter(1, targets[:, None], float("-inf")).logsumexp(1)
    log_prob = torch.where(
        target_logits.squeeze(1).isfinite(), -torch.logaddexp(torch.zeros_like(others), others), torch.nan
    )
    return margins + log_prob[:, None], log_prob


def exact_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the negative log-likelihood of each row's target, `[n]`, in float64, in nats; see `exact_log_softmax`.

    For scores. Training takes `nll`, which is cheaper.
    """
    return -exact_log_softmax(logits, targets)[1]


def own_moments(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Computes mean and standard deviation of log p(k), k drawn from p itself, of each row, `[n]` both, in nats."""
    p, finite = log_p.exp(), log_p.clamp_min(-1e4)  # 0 log 0 = 0 without 0 times infinity
    mean = (p * finite).sum(-1)
    return mean, (finite - mean[:, None]).square_().mul_(p).sum(-1).sqrt()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Computes KL(P || Q) of each row, `[n]`, in nats, from log-probabilities; 0 log 0 = 0, so masked P is fine."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum(-1)


def js(p: Tensor, q: Tensor) -> Tensor:
    """Computes the Jensen-Shannon divergence of each row, `[n]`, in nats, from *probabilities*; lies in [0, ln 2]."""
    m = (p + q) / 2
    return (_entropy_to(p, m) + _entropy_to(q, m)) / 2


def _entropy_to(p: Tensor, m: Tensor) -> Tensor:
    """Computes KL(P || M) of each row, `[n]`, from probabilities."""
    return torch.where(p > 0, p * (p.clamp_min(1e-12) / m.clamp_min(1e-12)).log(), torch.zeros_like(p)).sum(-1)


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the logit margin z_y - max_{k != y} z_k of each row, `[n]`; positive where z_y is the largest."""
    target_logits = logits.gather(1, targets[:, None]).squeeze(1)
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return target_logits - others.max(1).values


def masked_softmax(logits: Tensor, masked: Tensor) -> Tensor:
    """Takes the softmax, sets the `masked` classes to zero and renormalises the rest; `[n, classes]`.

    `masked` is a boolean `[classes]`, the same for all rows, or `[n, classes]`, one mask a row.
    """
    return F.softmax(logits.masked_fill(masked, float("-inf")), -1)


def one_hot_mask(targets: Tensor, classes: int) -> Tensor:
    """Makes a boolean `[n, classes]` that is true at each row's target."""
    mask = torch.zeros(len(targets), classes, dtype=torch.bool, device=targets.device)
    return mask.scatter_(1, targets[:, None], True)


def pairwise_same_label_cosine(features: Tensor, targets: Tensor) -> Tensor:
    """Computes the mean cosine over ordered pairs i != j with y_i = y_j; a scalar, 0 where there is no such pair."""
    unit = F.normalize(features, dim=1)
    same = targets[:, None].eq(targets[None, :]).fill_diagonal_(False)
    return (unit @ unit.T).mul(same).sum() / same.sum().clamp_min(1)


def contrastive_forgetting(
    forget: Tensor, forget_classes: Tensor, retain: Tensor, retain_classes: Tensor, temperature: float
) -> Tensor:
    """Computes L_UL of Contrastive Unlearning; it falls as forget moves to retain of other classes than its own.

        -mean_u( mean_{p in P(u)} z_u.z_p / tau  -  log sum_{n in N(u)} exp(z_u.z_n / tau) );   0 for a u without P(u)

    `forget` `[n, d]` and `retain` `[m, d]` are scaled to length 1, `forget_classes` `[n]` and `retain_classes` `[m]`
    whole numbers. P(u) is retain of other classes than u's, N(u) retain of its own; without N(u) there is no logarithm.
    """
    cosine = F.normalize(forget, dim=1) @ F.normalize(retain, dim=1).T / temperature
    same = forget_classes[:, None].eq(retain_classes[None, :])
    positives = (~same).sum(1)
    near = cosine.masked_fill(same, 0).sum(1) / positives.clamp_min(1)
    far = torch.where(same.any(1), cosine.masked_fill(~same, float("-inf")).logsumexp(1), 0.0)
    return -((near - far) * (positives > 0)).mean()
