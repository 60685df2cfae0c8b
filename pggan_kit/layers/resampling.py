"""Changing the size of features and images: what a resampling plugin builds, and the default pair for images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.layers.derivatives import conv2d


class Upsample(nn.Module):
    """Features (N, C, h, w) to (N, C, factor * h, factor * w). Subclasses give `forward`."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Upsample, then convolve with `weight` (C', C, k, k), k odd, zero padding that keeps the size.

        A subclass may do both in one operation, as long as the result is the same.
        """
        return conv2d(self(x), weight, padding=weight.shape[-1] // 2)


class Downsample(nn.Module):
    """Features (N, C, factor * h, factor * w) to (N, C, h, w). Subclasses give `forward`."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve with `weight` (C', C, k, k), k odd, zero padding that keeps the size; then downsample.

        A subclass may do both in one operation, as long as the result is the same.
        """
        features: Tensor = self(conv2d(x, weight, padding=weight.shape[-1] // 2))
        return features


class NearestUpsample(Upsample):
    """Every pixel becomes a factor x factor square."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        f = self.factor
        return x[:, :, :, None, :, None].expand(n, c, h, f, w, f).reshape(n, c, h * f, w * f)


class AreaDownsample(Downsample):
    """Every factor x factor square becomes its mean."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)


class Area:
    """Nearest up, area down: parameter-free, and down(up(x)) = x, which is what makes a fade preserve the function."""

    def up(self, channels: int, factor: int) -> Upsample:
        """A module that upsamples `channels` maps by `factor`."""
        return NearestUpsample(factor)

    def down(self, channels: int, factor: int) -> Downsample:
        """A module that downsamples `channels` maps by `factor`."""
        return AreaDownsample(factor)
