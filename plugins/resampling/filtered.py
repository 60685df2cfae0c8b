"""Pairs with a fixed filter: up inserts zeros and filters, down filters and keeps every n-th pixel."""

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
        factor: Growth factor.
        taps: Taps of the filter in each direction, symmetric; integers, which every precision holds exactly.
        padding: Number of zeros around the input, as `conv_transpose2d` counts them.
        fill: Whether to scale the weights inside the image to the sum of all, where the filter reaches beyond the
            image; otherwise there are zeros outside.
    """

    kernel: Tensor

    def __init__(self, factor: int, taps: Sequence[int], padding: int, fill: bool) -> None:
        super().__init__(factor)
        self.register_buffer("kernel", make_square_kernel(taps), persistent=False)
        self.gain = factor**2 / sum(taps) ** 2
        self.padding = padding
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, factor * h, factor * w)."""
        kernel = match_kernel(self.kernel, x) * self.gain
        y = self._spread_pixels(x, kernel.expand(x.shape[1], 1, -1, -1))
        if not self.fill:
            return y

        # What an image of ones becomes is the sum of the weights that lie inside.
        ones = x.new_ones(1, 1, *x.shape[2:])
        return y / self._spread_pixels(ones, kernel)

    def _spread_pixels(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv_transpose2d(x, kernel, stride=self.factor, padding=self.padding, groups=len(kernel))


class FilteredDownsample(Downsample):
    """The filter, then every factor-th pixel: without `fill`, the transpose of `FilteredUpsample` over factor^2.

    Args:
        factor, taps, padding, fill: See `FilteredUpsample`.
    """

    kernel: Tensor

    def __init__(self, factor: int, taps: Sequence[int], padding: int, fill: bool) -> None:
        super().__init__(factor)
        self.register_buffer("kernel", make_square_kernel(taps), persistent=False)
        self.gain = 1 / sum(taps) ** 2
        self.padding = padding
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, factor * h, factor * w) to (N, C, h, w)."""
        kernel = match_kernel(self.kernel, x) * self.gain
        y = self._gather_pixels(x, kernel.expand(x.shape[1], 1, -1, -1))
        if not self.fill:
            return y

        # What an image of ones becomes is the sum of the weights that lie inside.
        ones = x.new_ones(1, 1, *x.shape[2:])
        return y / self._gather_pixels(ones, kernel)

    def _gather_pixels(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, stride=self.factor, padding=self.padding, groups=len(kernel))


class Bilinear:
    """Linear interpolation up (`align_corners=False`), and means with the same triangle as weights down.

    The triangle is 2 factor pixels wide, and neither module has parameters. Away from the border, down is the
    transpose of up over factor^2. At the border the weights that remain inside are scaled to a sum of 1, which for up
    means that the values of the outermost pixels extend beyond their centres; so both leave constants unchanged.
    down(up(x)) is a little smoother than x: as the pair for images it shows a grown discriminator softer fakes than
    before, so the fade of an architecture that preserves its function preserves it only approximately.
    """

    def up(self, channels: int, factor: int) -> FilteredUpsample:
        """Return a module that interpolates between pixels."""
        return FilteredUpsample(factor, make_triangle_taps(factor), factor // 2, fill=True)

    def down(self, channels: int, factor: int) -> FilteredDownsample:
        """Return a module that averages with a triangle as weights."""
        return FilteredDownsample(factor, make_triangle_taps(factor), factor // 2, fill=True)


class Blur:
    """The filtered pair of StyleGAN2 (Karras et al. 2020; the filter after Zhang 2019), without parameters.

    For factor 2 the filter is [1, 3, 3, 1] / 8 in each direction: three boxes of 2, convolved with each other. For
    factor f it is three boxes of f, which is 3 f - 2 taps; four taps at factor 3 would draw stripes into a constant.
    down is the transpose of up over factor^2. Outside the image there are zeros, as in StyleGAN2: within one pixel of
    the smaller image's border both darken towards 0, and they do so to images too if this is the pair for images.
    down(up(x)) is smoother than x, so as the pair for images it preserves the function of a fade only approximately.
    """

    def up(self, channels: int, factor: int) -> FilteredUpsample:
        """Return a module that inserts zeros and filters."""
        return FilteredUpsample(factor, make_box_taps(factor), factor - 1, fill=False)

    def down(self, channels: int, factor: int) -> FilteredDownsample:
        """Return a module that filters and drops pixels."""
        return FilteredDownsample(factor, make_box_taps(factor), factor - 1, fill=False)


def make_triangle_taps(factor: int) -> list[int]:
    """Return taps that fall from the centre to 0 at a distance of `factor` pixels.

    For an even factor the centre lies between two pixels.
    """
    length = 2 * factor - factor % 2
    return [2 * factor - abs(2 * i - (length - 1)) for i in range(length)]


def make_box_taps(factor: int) -> list[int]:
    """Return the taps of three boxes of `factor` ones, convolved with each other."""
    box = np.ones(factor, np.int64)
    two_boxes = np.convolve(box, box)
    taps: list[int] = np.convolve(two_boxes, box).tolist()
    return taps


def make_square_kernel(taps: Sequence[int]) -> Tensor:
    """Return the kernel (1, 1, k, k) that applies k taps in both directions."""
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line)[None, None]


def match_kernel(kernel: Tensor, x: Tensor) -> Tensor:
    """Return the kernel in the dtype of x, and on its device, where a user of the module has not moved it there."""
    return kernel.to(x.device, x.dtype, non_blocking=True)
