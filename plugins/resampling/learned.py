"""Pairs whose filters are learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import Downsample, Upsample, conv2d


def make_scaled_parameter(weight: Tensor, fan_in: float, equalized: bool) -> tuple[nn.Parameter, float]:
    """Return a parameter and the factor that turns it into `weight` at run time.

    Equalized (Karras et al. 2018, section 4.1), the factor is 1 / sqrt(fan_in), so that an optimizer whose steps do not
    depend on the gradient's size changes the weight as fast as those of the convolutions beside it; otherwise it is 1.
    """
    scale = 1.0
    if equalized:
        scale = fan_in**-0.5
    return nn.Parameter(weight / scale), scale


class TransposedConvolution(Upsample):
    """A convolution with (factor + 2)^2 taps and stride 1 / factor, which repeats pixels at first."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        kernel = factor + 2
        weight = torch.zeros(channels, channels, kernel, kernel)
        weight[range(channels), range(channels), 1:-1, 1:-1] = 1.0
        self.weight, self.scale = make_scaled_parameter(weight, channels * (kernel / factor) ** 2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, factor * h, factor * w)."""
        return F.conv_transpose2d(x, self.weight * self.scale, stride=self.factor, padding=1)


class StridedConvolution(Downsample):
    """A convolution with (factor + 2)^2 taps and stride factor, which averages at first."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        kernel = factor + 2
        weight = torch.zeros(channels, channels, kernel, kernel)
        weight[range(channels), range(channels), 1:-1, 1:-1] = 1.0 / factor**2
        self.weight, self.scale = make_scaled_parameter(weight, channels * kernel**2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, factor * h, factor * w) to (N, C, h, w)."""
        return conv2d(x, self.weight * self.scale, stride=self.factor, padding=1)


class Learned:
    """A transposed convolution up and a strided convolution down, without bias (Radford et al. 2016: no pooling).

    The kernels overlap by one pixel on each side: 4 x 4 for factor 2, as in that paper. They start as the pair
    `Nearest`, so the new block of a grown network starts as it would with that pair. The pair for images has no
    parameters, so it cannot be this one.

    Args:
        equalized: Whether to scale the weights at run time, as `architectures.PGGAN` does. Use False for architectures
            that do not.
    """

    def __init__(self, equalized: bool = True) -> None:
        self.equalized = equalized

    def up(self, channels: int, factor: int) -> TransposedConvolution:
        """Return a module that repeats pixels at first."""
        return TransposedConvolution(channels, factor, self.equalized)

    def down(self, channels: int, factor: int) -> StridedConvolution:
        """Return a module that averages at first."""
        return StridedConvolution(channels, factor, self.equalized)


class SubPixelConvolution(Upsample):
    """A 3x3 convolution to factor^2 times the channels, which become pixels; it repeats pixels at first."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        weight = torch.zeros(channels, factor**2, channels, 3, 3)
        weight[range(channels), :, range(channels), 1, 1] = 1.0
        self.weight, self.scale = make_scaled_parameter(weight.flatten(0, 1), channels * 9, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, factor * h, factor * w)."""
        return F.pixel_shuffle(F.conv2d(x, self.weight * self.scale, padding=1), self.factor)


class PixelUnshuffle(Downsample):
    """A rearrangement of pixels to channels, which a 1x1 reduces to the old number; it averages at first."""

    def __init__(self, channels: int, factor: int, equalized: bool) -> None:
        super().__init__(factor)
        weight = torch.zeros(channels, channels, factor**2)
        weight[range(channels), range(channels)] = 1.0 / factor**2
        weight = weight.view(channels, -1, 1, 1)
        self.weight, self.scale = make_scaled_parameter(weight, channels * factor**2, equalized)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, factor * h, factor * w) to (N, C, h, w)."""
        return conv2d(F.pixel_unshuffle(x, self.factor), self.weight * self.scale)


class PixelShuffle:
    """Sub-pixel convolution up (Shi et al. 2016), its inverse rearrangement and a 1x1 down, without bias.

    All sub-pixels start with the same kernel, which prevents checkerboards (Aitken et al. 2017), and that kernel starts
    as the identity, so the pair starts as `Nearest`. The pair for images has no parameters, so it cannot be this one.

    Args:
        equalized: See `resampling.Learned`.
    """

    def __init__(self, equalized: bool = True) -> None:
        self.equalized = equalized

    def up(self, channels: int, factor: int) -> SubPixelConvolution:
        """Return a module that repeats pixels at first."""
        return SubPixelConvolution(channels, factor, self.equalized)

    def down(self, channels: int, factor: int) -> PixelUnshuffle:
        """Return a module that averages at first."""
        return PixelUnshuffle(channels, factor, self.equalized)
