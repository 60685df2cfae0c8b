"""A resampling pair of your own: here upsampling repeats pixels, and downsampling keeps the largest ones."""

import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Component, Downsample, Upsample, hookimpl


class Repeat(Upsample):
    """Upsampling that turns every pixel into a square.

    Override `conv2d` as well to fuse it with the convolution that follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Upsample, (N, C, h, w) -> (N, C, factor * h, factor * w)."""
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")


class Largest(Downsample):
    """Downsampling that turns every square into its largest value."""

    def forward(self, x: Tensor) -> Tensor:
        """Downsample, (N, C, factor * h, factor * w) -> (N, C, h, w)."""
        return F.max_pool2d(x, self.factor)


class Mine:
    """Nearest-neighbour upsampling and max pooling, for any whole factor of at least 2."""

    def up(self, channels: int, factor: int) -> Upsample:
        """Return a module that upsamples features or images; it may have parameters."""
        return Repeat(factor)

    def down(self, channels: int, factor: int) -> Downsample:
        """Return a module that downsamples features or images; it may have parameters."""
        return Largest(factor)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@resampling.Mine()`."""
    return [Component("resampling", "Mine", Mine)]
