"""A resampling pair of your own: here pixels are repeated on the way up, and the largest is kept on the way down."""

import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Component, Downsample, Upsample, hookimpl


class Repeat(Upsample):
    """Every pixel becomes a square. Override `conv2d` to do it in one operation with the convolution that follows."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, factor * h, factor * w)."""
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")


class Largest(Downsample):
    """Every square becomes its largest value."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, factor * h, factor * w) -> (N, C, h, w)."""
        return F.max_pool2d(x, self.factor)


class Mine:
    """Nearest up, max pooling down; between features, for any whole factor of at least 2."""

    def up(self, channels: int, factor: int) -> Upsample:
        """A module; it may have parameters."""
        return Repeat(factor)

    def down(self, channels: int, factor: int) -> Downsample:
        """A module; it may have parameters."""
        return Largest(factor)


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@resampling.Mine()`."""
    return [Component("resampling", "Mine", Mine)]
