"""Pairs with a fixed filter: zeros between the pixels and then the filter up, the filter and every n-th pixel down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Downsample, Upsample


class FilteredUpsample(Upsample):
    """Zeros between the pixels, then the filter, with gain factor^2 so that brightness stays.

    Args:
        factor: of the growth.
        taps: the filter in each direction, symmetric; whole numbers, which every precision holds exactly.
        padding: zeros around what is filtered, as `conv_transpose2d` counts them.
        fill: where the filter reaches beyond the image, scale the weights inside to the sum of all; else there are
            zeros beyond.
    """

    kernel: Tensor

    def __init__(self, factor: int, taps: Sequence[int], padding: int, fill: bool) -> None:
        super().__init__(factor)
        self.register_buffer("kernel", square(taps), persistent=False)
        self.gain = factor**2 / sum(taps) ** 2
        self.padding = padding
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, factor * h, factor * w)."""
        kernel = like(self.kernel, x) * self.gain
        y = self._spread(x, kernel.expand(x.shape[1], 1, -1, -1))
        return y / self._spread(x.new_ones(1, 1, *x.shape[2:]), kernel) if self.fill else y

    def _spread(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv_transpose2d(x, kernel, stride=self.factor, padding=self.padding, groups=len(kernel))


class FilteredDownsample(Downsample):
    """The filter, then every factor-th pixel: but for `fill`, the transpose of `FilteredUpsample` over factor^2."""

    kernel: Tensor

    def __init__(self, factor: int, taps: Sequence[int], padding: int, fill: bool) -> None:
        super().__init__(factor)
        self.register_buffer("kernel", square(taps), persistent=False)
        self.gain = 1 / sum(taps) ** 2
        self.padding = padding
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, factor * h, factor * w) -> (N, C, h, w)."""
        kernel = like(self.kernel, x) * self.gain
        y = self._gather(x, kernel.expand(x.shape[1], 1, -1, -1))
        return y / self._gather(x.new_ones(1, 1, *x.shape[2:]), kernel) if self.fill else y

    def _gather(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, stride=self.factor, padding=self.padding, groups=len(kernel))


class Bilinear:
    """Up: linear between pixel centres (`align_corners=False`). Down: means weighted by the same triangle, 2 factor
    pixels wide. Without parameters.

    Away from the border, down is up's transpose over factor^2. At the border the weights that remain inside are scaled
    to sum to 1, which for up means the outermost pixels' values beyond their centres; so both leave constants as they
    are. down(up(x)) is a little smoother than x: as the pair for images it lets a grown discriminator see fakes softer
    than before, so the fade of an architecture that preserves its function does so only nearly.
    """

    def up(self, channels: int, factor: int) -> FilteredUpsample:
        """A module that interpolates between pixels."""
        return FilteredUpsample(factor, triangle(factor), factor // 2, fill=True)

    def down(self, channels: int, factor: int) -> FilteredDownsample:
        """A module that averages with a triangle's weights."""
        return FilteredDownsample(factor, triangle(factor), factor // 2, fill=True)


class Blur:
    """The filtered pair of StyleGAN2 (Karras et al. 2020; the filter after Zhang 2019), without parameters.

    For factor 2 the filter is [1, 3, 3, 1] / 8 in each direction: three boxes of 2, convolved with each other. For
    factor f it is three boxes of f, which is 3 f - 2 taps; four taps at factor 3 would stripe a constant. down is up's
    transpose over factor^2. Outside the image there are zeros, as in StyleGAN2: within one pixel of the smaller
    image's border both darken towards 0, as they do with images where this is the pair for those. And down(up(x)) is
    smoother than x, so with it for images a fade preserves the function only nearly.
    """

    def up(self, channels: int, factor: int) -> FilteredUpsample:
        """A module that inserts zeros and filters."""
        return FilteredUpsample(factor, three_boxes(factor), factor - 1, fill=False)

    def down(self, channels: int, factor: int) -> FilteredDownsample:
        """A module that filters and drops pixels."""
        return FilteredDownsample(factor, three_boxes(factor), factor - 1, fill=False)


def triangle(factor: int) -> list[int]:
    """Falling from the centre to 0 at a distance of `factor` pixels. An even factor has its centre between pixels."""
    length = 2 * factor - factor % 2
    return [2 * factor - abs(2 * i - (length - 1)) for i in range(length)]


def three_boxes(factor: int) -> list[int]:
    """A box, convolved with a box, convolved with a box."""
    box = np.ones(factor, np.int64)
    found: list[int] = np.convolve(np.convolve(box, box), box).tolist()
    return found


def square(taps: Sequence[int]) -> Tensor:
    """(1, 1, k, k): the filter in both directions."""
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line)[None, None]


def like(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel where x is and of its type: the pair that fades reals is no part of a network that would move it."""
    return kernel.to(x.device, x.dtype, non_blocking=True)
