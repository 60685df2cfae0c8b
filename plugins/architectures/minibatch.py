"""Statistics of a discriminator over the samples of its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit import at_least_float32, count_batches
from pggan_kit.components import BatchStatistic
from pggan_plugins.architectures.layers import EPSILON

MINIBATCH = ("stddev", "neighbour_stddev", "discrimination", "none")

CONSTANT = "a constant, whatever the images"
"""Meaning of a statistic of D's head with one sample in a call."""


def choose_stddev_group(largest: int, samples: int) -> int:
    """Return the largest divisor of the number of samples that is not above `largest`."""
    return next(size for size in range(min(largest, samples), 0, -1) if samples % size == 0)


def choose_neighbour_group(size: int, samples: int) -> int:
    """Return the size of groups of neighbours: `size` where it divides the number of samples, else all of them."""
    if samples % size == 0:
        return size
    return samples


def describe_minibatch(minibatch: str, stddev_group: int, samples: int) -> list[BatchStatistic]:
    """Return the statistic that D's head computes over a batch, if it has one.

    Args:
        minibatch: One of `MINIBATCH`.
        stddev_group: Group of `stddev` and of `neighbour_stddev`: see `MinibatchStddev` and `NeighbourStddev`.
        samples: Number of samples of the batch.
    """
    if minibatch == "stddev":
        group = choose_stddev_group(stddev_group, samples)
        return [BatchStatistic("discriminator", "minibatch stddev", group, CONSTANT)]
    if minibatch == "neighbour_stddev":
        group = choose_neighbour_group(stddev_group, samples)
        return [BatchStatistic("discriminator", "minibatch stddev of neighbours", group, CONSTANT, of_neighbours=True)]
    if minibatch == "discrimination":
        return [BatchStatistic("discriminator", "minibatch discrimination", samples, CONSTANT)]
    return []


class MinibatchStddev(nn.Module):
    """One more map that shows how much samples differ (Karras et al. 2018, section 3).

    Samples are grouped with a stride: with G samples in each of M groups, sample g * M + m is in group m. G is the
    largest divisor of the batch that is not above `group_size`. The statistic is the biased standard deviation over the
    group, `sqrt(var + 1e-8)`, averaged over channels and pixels. Batches that are side by side have separate groups.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """Append the map: (N, C, h, w) -> (N, C + 1, h, w)."""
        n, c, h, w = x.shape
        batches = count_batches()
        samples = n // batches
        group = choose_stddev_group(self.group_size, samples)

        groups = at_least_float32(x).view(batches, group, samples // group, c, h, w)
        deviation: Tensor = _MeanDeviation.apply(groups)
        statistic = deviation.repeat(1, group).view(n, 1, 1, 1).expand(n, 1, h, w)
        return torch.cat([x, statistic.to(x.dtype)], 1)


def compute_deviations(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deviations d of groups (K, G, M, C, h, w) from their mean over G, and `1 / sqrt(mean d^2 + 1e-8)`."""
    # torch's var over an outer dimension takes ten times as long on a CPU.
    deviations = groups - groups.mean(1, keepdim=True)
    variance = deviations.square().mean(1, keepdim=True)
    return deviations, variance.add(EPSILON).rsqrt()


class _MeanDeviation(torch.autograd.Function):
    """The standard deviation over G, averaged over C, h and w: (K, G, M, C, h, w) -> (K, M).

    Its derivatives are written out: torch needs three times as many operations for the second one, which is a twentieth
    of a step at 4x4 pixels. With d and r as `compute_deviations` returns them, the first one is `d r / (G C h w)`.
    """

    @staticmethod
    def forward(ctx: Any, groups: Tensor) -> Tensor:
        deviations, inverse = compute_deviations(groups)
        ctx.save_for_backward(groups, deviations, inverse)
        return inverse.reciprocal().mean((1, 3, 4, 5))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope: Tensor = _MeanDeviationSlope.apply(*ctx.saved_tensors, grad)
        return slope


class _MeanDeviationSlope(torch.autograd.Function):
    """The first derivative, as a function of the groups (with their d and r) and of the gradient (K, M)."""

    @staticmethod
    def forward(ctx: Any, groups: Tensor, deviations: Tensor, inverse: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(groups, deviations, inverse, grad)
        return deviations * (inverse * _divide_gradient(groups, grad))

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, Tensor]:
        groups, deviations, inverse, grad = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A third derivative follows, which needs d and r as functions of the groups.
            deviations, inverse = compute_deviations(groups)
        along = (outer * deviations).mean(1, keepdim=True) * inverse
        straight = outer - outer.mean(1, keepdim=True)
        to_groups = (straight - deviations * (along * inverse)) * (inverse * _divide_gradient(groups, grad))
        return to_groups, None, None, along.mean((1, 3, 4, 5))


def _divide_gradient(groups: Tensor, grad: Tensor) -> Tensor:
    """Return the share of each element in the gradient (K, M) of a mean over (G, C, h, w): (K, 1, M, 1, 1, 1)."""
    return (grad * (grad.numel() / groups.numel()))[:, None, :, None, None, None]


class NeighbourStddev(nn.Module):
    """One more map that shows how much neighbouring samples differ, as facebookresearch/pytorch_GAN_zoo computes it.

    Samples that follow each other are a group: the first G, the next G, and so on; all of the batch where G does not
    divide it. The statistic is the unbiased standard deviation over the group, `sqrt(var + 1e-8)`, averaged over
    channels and pixels; 0 for a single sample. Batches that are side by side have separate groups.

    Ranks and micro-batches take every k-th row of a batch, and so have other groups, also where G divides their rows.

    Args:
        group_size: G.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """Append the map: (N, C, h, w) -> (N, C + 1, h, w)."""
        n, c, h, w = x.shape
        group = choose_neighbour_group(self.group_size, n // count_batches())
        if group == 1:
            return torch.cat([x, x.new_zeros(n, 1, h, w)], 1)

        groups = at_least_float32(x).reshape(n // group, group, c, h, w)
        deviations = groups - groups.mean(1, keepdim=True)
        variance = deviations.square().sum(1) / (group - 1)
        statistic = variance.add(EPSILON).sqrt().mean((1, 2, 3))
        maps = statistic.repeat_interleave(group).view(n, 1, 1, 1).expand(n, 1, h, w)
        return torch.cat([x, maps.to(x.dtype)], 1)


class MinibatchDiscrimination(nn.Module):
    """One more feature for each of B learned kernels: how close a sample is to all samples of its batch.

    It is `o_b(x_i) = sum over j of exp(-|M_b(x_i) - M_b(x_j)|_1)`, where M_b maps features linearly to C numbers
    (Salimans et al. 2016, section 3.2). As in the paper the sum includes the sample itself, which adds a constant 1.
    It needs memory for N * N * B * C numbers.

    Args:
        features: Number F of features.
        make_dense: Factory of the layer M, dense and without bias: `make_dense(inputs, outputs)`.
        kernels: Number B of kernels, by default that of the paper's code.
        size: Number C of outputs of a kernel, by default that of the paper's code.
    """

    def __init__(
        self, features: int, make_dense: Callable[[int, int], nn.Module], kernels: int = 100, size: int = 5
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.project = make_dense(features, kernels * size)

    def forward(self, x: Tensor) -> Tensor:
        """Append the features: (N, F) -> (N, F + B)."""
        closeness = self._compute_closeness(at_least_float32(x))
        return torch.cat([x, closeness.to(x.dtype)], 1)

    def _compute_closeness(self, x: Tensor) -> Tensor:
        """Return the sums o (N, B): near 16 for 16 samples alike, where low precision does not tell them apart."""
        # Autocast would compute the products in low precision. A file for other software holds no autocast, not even
        # none.
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._compute_closeness(x)
        points = self.project(x).view(len(x), self.kernels, -1)
        distances = (points[:, None] - points[None]).abs().sum(3)
        return torch.exp(-distances).sum(1)
