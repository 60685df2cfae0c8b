"""Modules that change the size of features and images: the bases of resampling plugins, and the default pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.layers.derivatives import conv2d


class Upsample(nn.Module):
    """A module from features (N, C, h, w) to (N, C, factor * h, factor * w). Subclasses define `forward`.

    Args:
        factor: Whole factor of enlargement.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Upsample, then convolve with `weight` (C', C, k, k), k odd, with zero padding that keeps the size.

        A subclass may do both in one operation, as long as the result is the same.
        """
        return conv2d(self(x), weight, padding=weight.shape[-1] // 2)


class Downsample(nn.Module):
    """A module from features (N, C, factor * h, factor * w) to (N, C, h, w). Subclasses define `forward`.

    Args:
        factor: Whole factor of reduction.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve with `weight` (C', C, k, k), k odd, with zero padding that keeps the size; then downsample.

        A subclass may do both in one operation, as long as the result is the same.
        """
        features: Tensor = self(conv2d(x, weight, padding=weight.shape[-1] // 2))
        return features


class NearestUpsample(Upsample):
    """Upsampling that repeats every pixel in a square of factor x factor."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the features with every pixel repeated."""
        n, c, h, w = x.shape
        f = self.factor
        squares = x[:, :, :, None, :, None].expand(n, c, h, f, w, f)
        return squares.reshape(n, c, h * f, w * f)


class AreaDownsample(Downsample):
    """Downsampling to the mean of every square of factor x factor."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of every square."""
        return F.avg_pool2d(x, self.factor)


class Area:
    """Nearest upsampling and area downsampling, without parameters.

    down(up(x)) = x is what lets a fade preserve the function.
    """

    def up(self, channels: int, factor: int) -> Upsample:
        """Return a module that upsamples `channels` maps by `factor`."""
        return NearestUpsample(factor)

    def down(self, channels: int, factor: int) -> Downsample:
        """Return a module that downsamples `channels` maps by `factor`."""
        return AreaDownsample(factor)
