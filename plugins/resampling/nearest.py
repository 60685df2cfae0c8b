"""Nearest-neighbour upsampling and area downsampling, the paper's pair."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Area, AreaDownsample, NearestUpsample, conv2d


class FusedNearestUpsample(NearestUpsample):
    """Nearest-neighbour upsampling that a convolution behind it is fused with, as one transposed convolution.

    The fused kernel is the sum of shifted copies of the given one. With factor f and a k x k kernel, it is (k + f - 1)
    wide and has stride f. For f = 2 and k = 3 that takes 16 multiplications for every 4 outputs and input channel,
    instead of 36.
    """

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Upsample, then convolve, in one operation: equal to `Upsample.conv2d` up to rounding."""
        kernel = weight.transpose(0, 1).flip(2, 3)
        if x.is_contiguous(memory_format=torch.channels_last):
            # Otherwise the convolution would convert the fused kernel, which is larger.
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        fused = sum_shifted_kernels(kernel, self.factor)
        return F.conv_transpose2d(x, fused, stride=self.factor, padding=weight.shape[-1] // 2)


class FusedAreaDownsample(AreaDownsample):
    """Area downsampling that a convolution before it is fused with, as one strided convolution.

    The fused kernel is the mean of shifted copies of the given one.
    """

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve, then downsample, in one operation: equal to `Downsample.conv2d` up to rounding."""
        fused = sum_shifted_kernels(weight, self.factor) / self.factor**2
        return conv2d(x, fused, stride=self.factor, padding=weight.shape[-1] // 2)


def sum_shifted_kernels(weight: Tensor, factor: int) -> Tensor:
    """Sum factor^2 shifted copies of a kernel (C', C, k, k) to one (C', C, k + factor - 1, k + factor - 1)."""
    kernel: Tensor = _SumShiftedKernels.apply(weight, factor)
    return kernel


def sum_windows(x: Tensor, factor: int) -> Tensor:
    """Sum over all factor x factor windows: (..., h, w) -> (..., h - factor + 1, w - factor + 1)."""
    return F.avg_pool2d(x, factor, stride=1, divisor_override=1)


class _SumShiftedKernels(torch.autograd.Function):
    """The sum of shifted kernels, whose derivative is the same sum over windows.

    torch's own derivative of a pool is ten times as slow.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return sum_windows(F.pad(weight, (factor - 1, factor - 1, factor - 1, factor - 1)), factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sum_windows(grad, ctx.factor), None


class Nearest(Area):
    """Upsampling that turns every pixel into a square, and downsampling that averages every square.

    Both are those of Karras et al. 2018, section 2.
    """

    def up(self, channels: int, factor: int) -> FusedNearestUpsample:
        """Return a module that upsamples by repeating pixels."""
        return FusedNearestUpsample(factor)

    def down(self, channels: int, factor: int) -> FusedAreaDownsample:
        """Return a module that downsamples by averaging squares of pixels."""
        return FusedAreaDownsample(factor)
