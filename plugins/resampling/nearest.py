"""Nearest-neighbour up, area down: the paper's pair."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Area, AreaDownsample, NearestUpsample, conv2d


class FusedNearestUpsample(NearestUpsample):
    """Repeating pixels and then convolving is one transposed convolution: its kernel is the given one, smeared out.

    With factor f and a k x k kernel, the fused kernel is (k + f - 1) wide and has stride f. For f = 2, k = 3 that is
    16 multiplications for each 4 outputs and input channel instead of 36.
    """

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Upsample.conv2d`; equal to it up to rounding."""
        kernel = weight.transpose(0, 1).flip(2, 3)
        if x.is_contiguous(memory_format=torch.channels_last):
            # Else the convolution would do the same with the larger, fused kernel.
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(x, smear(kernel, self.factor), stride=self.factor, padding=weight.shape[-1] // 2)


class FusedAreaDownsample(AreaDownsample):
    """Convolving and then averaging is one strided convolution: its kernel is the given one, smeared out."""

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Downsample.conv2d`; equal to it up to rounding."""
        kernel = smear(weight, self.factor) / self.factor**2
        return conv2d(x, kernel, stride=self.factor, padding=weight.shape[-1] // 2)


def smear(weight: Tensor, factor: int) -> Tensor:
    """The sum of factor^2 shifted copies of a kernel: (C', C, k, k) -> (C', C, k + factor - 1, k + factor - 1)."""
    kernel: Tensor = _Smear.apply(weight, factor)
    return kernel


def sums(x: Tensor, factor: int) -> Tensor:
    """Over all factor x factor windows: (..., h, w) -> (..., h - factor + 1, w - factor + 1)."""
    return F.avg_pool2d(x, factor, stride=1, divisor_override=1)


class _Smear(torch.autograd.Function):
    """Its derivative is the same sum over windows, which torch's derivative of a pool is ten times as slow at."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return sums(F.pad(weight, (factor - 1, factor - 1, factor - 1, factor - 1)), factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sums(grad, ctx.factor), None


class Nearest(Area):
    """Up: every pixel becomes a square. Down: every square becomes its mean (Karras et al. 2018, section 2)."""

    def up(self, channels: int, factor: int) -> FusedNearestUpsample:
        """A module that upsamples by repeating pixels."""
        return FusedNearestUpsample(factor)

    def down(self, channels: int, factor: int) -> FusedAreaDownsample:
        """A module that downsamples by averaging."""
        return FusedAreaDownsample(factor)
