"""What a discriminator may know of the samples beside one in its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit import at_least_float32, count_batches
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.layers import EPSILON

MINIBATCH = ("stddev", "discrimination", "none")


def stddev_group_size(largest: int, samples: int) -> int:
    """Return the largest divisor of the number of samples that is not above `largest`."""
    return next(size for size in range(min(largest, samples), 0, -1) if samples % size == 0)


def describe_minibatch(minibatch: str, stddev_group: int, samples: int) -> list[BatchStatistic]:
    """Return the statistic of D's head for a batch of so many samples, where it has one.

    Args:
        minibatch: one of `MINIBATCH`.
        stddev_group: see `MinibatchStddev`.
        samples: of a batch.
    """
    if minibatch == "stddev":
        group = stddev_group_size(stddev_group, samples)
        return [BatchStatistic("discriminator", "minibatch stddev", group, "a constant, whatever the images")]
    if minibatch == "discrimination":
        alone = "a constant, whatever the images"
        return [BatchStatistic("discriminator", "minibatch discrimination", samples, alone)]
    return []


class MinibatchStddev(nn.Module):
    """Appends one map that tells how much samples differ (Karras et al. 2018, section 3).

    Samples are grouped with a stride: with G in a group and M groups, sample g * M + m is in group m. G is the largest
    divisor of the batch that is not above `group_size`. The statistic is the biased standard deviation over the group,
    `sqrt(var + 1e-8)`, averaged over channels and pixels. Batches that are side by side have groups of their own.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C + 1, h, w)."""
        n, c, h, w = x.shape
        count = count_batches()
        alone = n // count
        group = stddev_group_size(self.group_size, alone)
        groups = at_least_float32(x).view(count, group, alone // group, c, h, w)
        deviation: Tensor = _MeanDeviation.apply(groups)
        statistic = deviation.repeat(1, group).view(n, 1, 1, 1).expand(n, 1, h, w)
        return torch.cat([x, statistic.to(x.dtype)], 1)


def centred(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The groups' (K, G, M, C, h, w) deviations d from their mean over G, and `r = 1 / sqrt(mean d^2 + 1e-8)`."""
    # torch's var over an outer dimension takes ten times as long on a CPU.
    deviations = groups - groups.mean(1, keepdim=True)
    return deviations, deviations.square().mean(1, keepdim=True).add(EPSILON).rsqrt()


class _MeanDeviation(torch.autograd.Function):
    """(K, G, M, C, h, w) -> (K, M): the standard deviation over G, averaged over C, h and w.

    With its derivatives written out: torch takes three times as many operations for the second one, which is a
    twentieth of a step at 4x4 pixels. The first one is `d r / (G C h w)`, see `centred`.
    """

    @staticmethod
    def forward(ctx: Any, groups: Tensor) -> Tensor:
        deviations, inverse = centred(groups)
        ctx.save_for_backward(groups, deviations, inverse)
        return inverse.reciprocal().mean((1, 3, 4, 5))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope: Tensor = _MeanDeviationSlope.apply(*ctx.saved_tensors, grad)
        return slope


class _MeanDeviationSlope(torch.autograd.Function):
    """The first derivative, as a function of the groups (their d and r come along) and of the gradient (K, M)."""

    @staticmethod
    def forward(ctx: Any, groups: Tensor, deviations: Tensor, inverse: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(groups, deviations, inverse, grad)
        return deviations * (inverse * _share(groups, grad))

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, Tensor]:
        groups, deviations, inverse, grad = ctx.saved_tensors
        if torch.is_grad_enabled():  # for whoever differentiates a third time
            deviations, inverse = centred(groups)
        along = (outer * deviations).mean(1, keepdim=True) * inverse
        straight = outer - outer.mean(1, keepdim=True)
        to_groups = (straight - deviations * (along * inverse)) * (inverse * _share(groups, grad))
        return to_groups, None, None, along.mean((1, 3, 4, 5))


def _share(groups: Tensor, grad: Tensor) -> Tensor:
    """What of the gradient (K, M) of a mean over (G, C, h, w) falls to each: (K, 1, M, 1, 1, 1)."""
    return (grad * (grad.numel() / groups.numel()))[:, None, :, None, None, None]


class MinibatchDiscrimination(nn.Module):
    """Appends, for each of B learned kernels, how close a sample is to all in its batch (Salimans et al. 2016, section
    3.2): `o_b(x_i) = sum over j of exp(-|M_b(x_i) - M_b(x_j)|_1)`, where M_b maps features linearly to C numbers.

    As in the paper the sum includes the sample itself, which adds a constant 1. Needs memory for N * N * B * C numbers.

    Args:
        features: F.
        dense: makes M: a dense layer (inputs, outputs) without bias.
        kernels: B, by default that of the paper's code.
        size: C, likewise.
    """

    def __init__(
        self, features: int, dense: Callable[[int, int], nn.Module], kernels: int = 100, size: int = 5
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.project = dense(features, kernels * size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) -> (N, F + B)."""
        points = self.project(x).view(len(x), self.kernels, -1)
        distance = (points[:, None] - points[None]).abs().sum(3)
        return torch.cat([x, torch.exp(-distance).sum(1)], 1)
