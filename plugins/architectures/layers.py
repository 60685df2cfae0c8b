"""Layers that architectures share. Features are (N, C, h, w)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.resampling import Downsample, Upsample

LEAK = 0.2
EPSILON = 1e-8


class EqualizedConv2d(nn.Module):
    """A convolution whose weights are N(0, 1) and scaled by gain / sqrt(fan-in) at run time, so that all learn at one
    speed (Karras et al. 2018, section 4.1). Zero padding keeps the size; the bias starts at 0 and is not scaled.

    Args:
        in_channels, out_channels, kernel_size: of the convolution; kernel_size is odd.
        gain: sqrt(2) suits a (leaky) ReLU behind it, 1 a linear output.
        up, down: fuse a change of size before or after the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gain: float = math.sqrt(2),
        up: Upsample | None = None,
        down: Downsample | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.resample = up or down

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        weight = self.weight * self.scale
        if self.resample is not None:
            return self.resample.conv2d(x, weight) + self.bias.view(-1, 1, 1)
        return F.conv2d(x, weight, self.bias, padding=self.weight.shape[-1] // 2)


class EqualizedLinear(nn.Module):
    """A dense layer with run-time scaled weights: see `EqualizedConv2d`."""

    def __init__(self, in_features: int, out_features: int, gain: float = math.sqrt(2), bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.scale = gain / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return F.linear(x, self.weight * self.scale, self.bias)


class PixelNorm(nn.Module):
    """`x / sqrt(mean over channels of x^2 + 1e-8)` (Karras et al. 2018, section 4.2), for (N, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


class MinibatchStddev(nn.Module):
    """Appends one map that tells how much samples differ (Karras et al. 2018, section 3).

    Samples are grouped with a stride: with G in a group and M groups, sample g * M + m is in group m. G is the largest
    divisor of the batch that is not above `group_size`. The statistic is the biased standard deviation over the group,
    `sqrt(var + 1e-8)`, averaged over channels and pixels.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C + 1, h, w)."""
        n, c, h, w = x.shape
        group = next(size for size in range(min(self.group_size, n), 0, -1) if n % size == 0)
        deviation = x.view(group, n // group, c, h, w).var(0, unbiased=False).add(EPSILON).sqrt()
        statistic = deviation.mean((1, 2, 3)).repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)
        return torch.cat([x, statistic], 1)
