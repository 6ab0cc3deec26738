"""NIB, a reconstruction: notes on its paper were read, the formula of its loss and its networks were not found."""

from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.nn.hooks import mode
from unrecall.spec.parameters import Count, NonNegative
from unrecall.tasks.protocols import Classifying, Perturbable, check_offers
from unrecall.training.loop import Batches
from unrecall.training.objectives.base import STREAM, Course, Objective, Start

ADVICE = "Train by objective=plain."
QUIET = -5.0
"""Where the logarithm of the noise's variance starts."""


@dataclass(frozen=True)
class NIB(Objective):
    """What tells the class, z, is kept apart from everything else that an input holds, the nuisance n.

        L = CE(h(z), y) + beta KL(q(z|x) || N(0, I)) + alpha |x - g(z, n)|^2
            + nuisance [CE(h_n(n'), y) + CE(h_n'(n), 1/C)]
            + independence [BCE(D(z', n'), 0) + BCE(D(e), 1) + BCE(D'(z, n), 1)],   e ~ N(0, I)

    z is what enters the model's head h, and noise of a variance that a layer says, q(z|x) = N(z(x), sigma^2(x)); n
    comes from a network of its own. Both are scaled to mean 0 and deviation 1 over the batch. A prime is a detached
    value, or frozen weights: the classifier h_n and the discriminator D learn from codes that stand still, and codes
    learn against them. The networks beside the model, each with one hidden layer, are thrown away. KL sums over units,
    |.|^2 is the mean over inputs. At beta 0 there is no noise; with all weights at 0 the loss is cross-entropy.

    Args:
        beta: weight of the information bottleneck. alpha: of the reconstruction of the input from both codes.
        nuisance: of what keeps the class out of n. independence: of what keeps z and n apart; at 1 a small network on
            digits, under plain SGD, gets 11 % of what it is trained on wrong, at 0.1 nothing.
        size: of the nuisance. hidden: units of the hidden layers.

    Expected to fail: to help where what must go is needed to tell the classes; z then holds it as before.

    Reference: Jeong, Yu, Lee, Shin, "Enhancing Multiple Reliability Measures via Nuisance-extended Information
    Bottleneck", CVPR 2023, arXiv 2303.14096. A reconstruction: the two codes, the autoencoder, the bottleneck and the
    adversary are the paper's; the weights, the sizes and how the terms are written are ours. Differs from the paper in
    an encoder of its own for the nuisance, so that the model's architecture stays as it is, and in one optimiser.
    """

    beta: NonNegative = 1e-4
    alpha: NonNegative = 10.0
    nuisance: NonNegative = 1.0
    independence: NonNegative = 0.1
    size: Count = 32
    hidden: Count = 128

    def course(self, start: Start) -> Course:
        """The model, and the networks beside it."""
        check_offers(self, start.task, Perturbable, Classifying, advice=ADVICE)
        task, able = start.task, cast(Perturbable, start.task)
        head, device = task.head(start.model, start.probe), next(start.model.parameters()).device
        networks = _Networks(start.model, *self._beside(start)).to(device)

        def loss(networks: nn.Module, batches: Batches) -> Tensor:
            own, batch = cast(_Networks, networks), batches[STREAM]
            rows, features = task.view(own.model, batch)
            inputs = able.inputs(batch).flatten(1)
            codes, bottleneck = own.codes(features, inputs, noisy=self.beta > 0)
            if self.beta > 0:
                rows = replace(rows, logits=head(features + (codes.z - codes.mean) * codes.scale))
            total = rows.losses().mean() + self.beta * bottleneck
            if self.alpha > 0:
                total = total + self.alpha * F.mse_loss(own.decoder(codes.both), inputs)
            if self.nuisance > 0:
                total = total + self.nuisance * told_apart(own.classifier, codes.n, rows.targets)
            if self.independence > 0:
                total = total + self.independence * against(own.discriminator, codes.both)
            return total

        return Course(networks, loss)

    def _beside(self, start: Start) -> list[nn.Module]:
        """Noise, encoder of the nuisance, decoder, classifier and discriminator, for these inputs and features."""
        able = cast(Perturbable, start.task)
        with torch.no_grad(), mode(start.model, training=False):
            _, features = start.task.view(start.model, start.probe)
        inputs, units = able.inputs(start.probe)[0].numel(), features.shape[1]
        noise = nn.Linear(units, units)
        nn.init.zeros_(noise.weight)
        nn.init.constant_(noise.bias, QUIET)
        sizes = (
            (inputs, self.size),
            (units + self.size, inputs),
            (self.size, start.outputs),
            (units + self.size, 1),
        )
        return [noise, *(_two_layers(first, self.hidden, last) for first, last in sizes)]


class Codes(NamedTuple):
    """What tells the class, with and without its noise, what doesn't, and by what a unit's scale was divided."""

    z: Tensor
    mean: Tensor
    n: Tensor
    scale: Tensor

    @property
    def both(self) -> Tensor:
        """Both codes of each example, side by side."""
        return torch.cat([self.z, self.n], 1)


class _Networks(nn.Module):
    """The model and the networks that it is trained beside."""

    def __init__(self, model: nn.Module, *beside: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.noise, self.encoder, self.decoder, self.classifier, self.discriminator = beside

    def codes(self, features: Tensor, inputs: Tensor, *, noisy: bool) -> tuple[Codes, Tensor]:
        """Both codes of each example, and KL(q(z|x) || N(0, I)), its mean over them."""
        (mean, scale), (n, _) = standardised(features), standardised(self.encoder(inputs))
        log_variance = self.noise(mean)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp() if noisy else mean
        return Codes(z, mean, n, scale), divergence(mean, log_variance)


def standardised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values `[examples, units]` with mean 0 and deviation 1 over the examples, and what they were divided by."""
    scale = (values.var(0, correction=0) + 1e-5).sqrt()
    return (values - values.mean(0)) / scale, scale


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)), summed over units, mean over examples: 1/2 (m^2 + s^2 - 1 - log s^2)."""
    return ((mean.square() + log_variance.exp() - 1 - log_variance) / 2).sum(1).mean()


def told_apart(classifier: nn.Module, nuisance: Tensor, targets: Tensor) -> Tensor:
    """CE(h(n'), y), by which the classifier learns, and CE(h'(n), 1/C), by which the nuisance evades it."""
    learns = F.cross_entropy(classifier(nuisance.detach()), targets)
    evades = -F.log_softmax(_frozen(classifier, nuisance), 1).mean()
    return learns + evades


def against(discriminator: nn.Module, codes: Tensor) -> Tensor:
    """BCE(D(c'), 0) + BCE(D(e), 1), by which the discriminator learns, and BCE(D'(c), 1), by which codes evade it."""
    drawn, zeros, judged = torch.randn_like(codes), codes.new_zeros(len(codes), 1), F.binary_cross_entropy_with_logits
    learns = judged(discriminator(codes.detach()), zeros) + judged(discriminator(drawn), zeros + 1)
    return learns + judged(_frozen(discriminator, codes), zeros + 1)


def _frozen(network: nn.Module, inputs: Tensor) -> Tensor:
    """What the network gives, whose weights learn nothing from it."""
    weights = {name: value.detach() for name, value in network.named_parameters()}
    outputs: Tensor = torch.func.functional_call(network, weights, (inputs,))
    return outputs


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
