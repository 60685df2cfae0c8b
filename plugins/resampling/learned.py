"""Pairs whose filters are learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import Downsample, Upsample, conv2d


def scaled(weight: Tensor, fan_in: float, equalized: bool) -> tuple[nn.Parameter, float]:
    """A parameter and the factor that makes it `weight` at run time.

    Equalized (Karras et al. 2018, section 4.1), the factor is 1 / sqrt(fan_in), so that an optimizer whose steps do not
    depend on the gradient's size changes it as fast as the convolutions beside it; else it is 1.
    """
    scale = fan_in**-0.5 if equalized else 1.0
    return nn.Parameter(weight / scale), scale


class TransposedConvolution(Upsample):
    """A convolution with (factor + 2)^2 taps and stride 1 / factor; at first it repeats pixels."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        kernel = factor + 2
        weight = torch.zeros(channels, channels, kernel, kernel)
        weight[range(channels), range(channels), 1:-1, 1:-1] = 1.0
        self.weight, self.scale = scaled(weight, channels * (kernel / factor) ** 2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, factor * h, factor * w)."""
        return F.conv_transpose2d(x, self.weight * self.scale, stride=self.factor, padding=1)


class StridedConvolution(Downsample):
    """A convolution with (factor + 2)^2 taps and stride factor; at first it averages."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        kernel = factor + 2
        weight = torch.zeros(channels, channels, kernel, kernel)
        weight[range(channels), range(channels), 1:-1, 1:-1] = 1.0 / factor**2
        self.weight, self.scale = scaled(weight, channels * kernel**2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, factor * h, factor * w) -> (N, C, h, w)."""
        return conv2d(x, self.weight * self.scale, stride=self.factor, padding=1)


class Learned:
    """Transposed convolution up, strided convolution down, without bias (Radford et al. 2016 in place of pooling).

    The kernels overlap by one pixel on each side: 4 x 4 for factor 2, as there. They begin as the pair `Nearest`, so
    the new block of a grown network begins as it would with that pair. Not for images, whose pair has no parameters.

    Args:
        equalized: scale the weights at run time, as `architectures.PGGAN` does; off suits architectures that do not.
    """

    def __init__(self, equalized: bool = True) -> None:
        self.equalized = equalized

    def up(self, channels: int, factor: int) -> TransposedConvolution:
        """A module that begins by repeating pixels."""
        return TransposedConvolution(channels, factor, self.equalized)

    def down(self, channels: int, factor: int) -> StridedConvolution:
        """A module that begins by averaging."""
        return StridedConvolution(channels, factor, self.equalized)


class SubPixelConvolution(Upsample):
    """3x3 to factor^2 times the channels, which become pixels; at first it repeats pixels."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        weight = torch.zeros(channels, factor**2, channels, 3, 3)
        weight[range(channels), :, range(channels), 1, 1] = 1.0
        self.weight, self.scale = scaled(weight.flatten(0, 1), channels * 9, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, factor * h, factor * w)."""
        return F.pixel_shuffle(F.conv2d(x, self.weight * self.scale, padding=1), self.factor)


class PixelUnshuffle(Downsample):
    """Pixels become channels, which a 1x1 brings back to their number; at first it averages."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        weight = torch.zeros(channels, channels, factor**2)
        weight[range(channels), range(channels)] = 1.0 / factor**2
        self.weight, self.scale = scaled(weight.view(channels, -1, 1, 1), channels * factor**2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, factor * h, factor * w) -> (N, C, h, w)."""
        return conv2d(F.pixel_unshuffle(x, self.factor), self.weight * self.scale)


class PixelShuffle:
    """Sub-pixel convolution up (Shi et al. 2016), its inverse rearrangement and a 1x1 down, without bias.

    All sub-pixels begin with the same kernel, which keeps checkerboards out (Aitken et al. 2017), and that kernel with
    the identity: the pair begins as `Nearest`. Not for images, whose pair has no parameters.

    Args:
        equalized: see `Learned`.
    """

    def __init__(self, equalized: bool = True) -> None:
        self.equalized = equalized

    def up(self, channels: int, factor: int) -> SubPixelConvolution:
        """A module that begins by repeating pixels."""
        return SubPixelConvolution(channels, factor, self.equalized)

    def down(self, channels: int, factor: int) -> PixelUnshuffle:
        """A module that begins by averaging."""
        return PixelUnshuffle(channels, factor, self.equalized)
