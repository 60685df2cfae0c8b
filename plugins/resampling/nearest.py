"""Nearest-neighbour up, area down: the paper's pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pggan_kit.derivatives import conv2d
from pggan_kit.resampling import Area, AreaDownsample, NearestUpsample


class FusedNearestUpsample(NearestUpsample):
    """Repeating pixels and then convolving is one transposed convolution: its kernel is the given one, smeared out.

    With factor f and a k x k kernel, the fused kernel is (k + f - 1) wide and has stride f. For f = 2, k = 3 that is
    16 multiplications for each 4 outputs and input channel instead of 36.
    """

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Upsample.conv2d`; equal to it up to rounding."""
        kernel = smear(weight.flip(2, 3), self.factor).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, stride=self.factor, padding=weight.shape[-1] // 2)


class FusedAreaDownsample(AreaDownsample):
    """Convolving and then averaging is one strided convolution: its kernel is the given one, smeared out."""

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Downsample.conv2d`; equal to it up to rounding."""
        kernel = smear(weight, self.factor) / self.factor**2
        return conv2d(x, kernel, stride=self.factor, padding=weight.shape[-1] // 2)


def smear(weight: Tensor, factor: int) -> Tensor:
    """The sum of factor^2 shifted copies of a kernel: (C', C, k, k) -> (C', C, k + factor - 1, k + factor - 1)."""
    wide = F.pad(weight, (factor - 1, factor - 1, factor - 1, factor - 1))
    return F.avg_pool2d(wide, factor, stride=1, divisor_override=1)


class Nearest(Area):
    """Up: every pixel becomes a square. Down: every square becomes its mean (Karras et al. 2018, section 2)."""

    def up(self, channels: int, factor: int) -> FusedNearestUpsample:
        """A module that upsamples by repeating pixels."""
        return FusedNearestUpsample(factor)

    def down(self, channels: int, factor: int) -> FusedAreaDownsample:
        """A module that downsamples by averaging."""
        return FusedAreaDownsample(factor)
