"""Affine maps of images, one for each sample, and images resampled through them.

Everything is elementwise or a lookup: `grid_sample` cannot be differentiated twice, and a matrix product under autocast
would round coordinates to low precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pggan_plugins.augmentations.random_draws import RandomDraws


class Affine(NamedTuple):
    """The map `x' = xx * x + xy * y + x0`, `y' = yx * x + yy * y + y0`, in pixels from the image's centre.

    Each field is (N,), or a number where all samples share it.
    """

    xx: Tensor | float = 1.0
    xy: Tensor | float = 0.0
    x0: Tensor | float = 0.0
    yx: Tensor | float = 0.0
    yy: Tensor | float = 1.0
    y0: Tensor | float = 0.0

    def compose(self, first: Affine) -> Affine:
        """Return the map that applies `first` and then this one."""
        a = self
        b = first
        return Affine(
            a.xx * b.xx + a.xy * b.yx,
            a.xx * b.xy + a.xy * b.yy,
            a.xx * b.x0 + a.xy * b.y0 + a.x0,
            a.yx * b.xx + a.yy * b.yx,
            a.yx * b.xy + a.yy * b.yy,
            a.yx * b.x0 + a.yy * b.y0 + a.y0,
        )


def draw_map(draws: RandomDraws, groups: Sequence[str], h: int, w: int, largest_angle: float = math.pi) -> Affine:
    """Draw the map from a pixel of the result to its place in the image of size (h, w).

    Args:
        draws: Source of the random numbers.
        groups: Groups to apply; this one reads `blit` and `geometry`.
        h, w: Height and width of the images.
        largest_angle: Largest angle of a rotation of `geometry`, in radians.
    """
    inverses: list[Affine] = []
    if "blit" in groups:
        inverses += draw_blits(draws, h, w)
    if "geometry" in groups:
        inverses += draw_deformations(draws, h, w, largest_angle)

    # The last transform of the image is the first to be undone on the way from the result to the image.
    source = Affine()
    for inverse in inverses:
        source = source.compose(inverse)
    return source


def draw_blits(draws: RandomDraws, h: int, w: int) -> list[Affine]:
    """Draw the inverses of a flip, a turn by a multiple of 90 degrees, and a shift by whole pixels.

    Where h != w the turn is by 0 or 180 degrees, since others would not map pixels to pixels. Blits move pixels and
    change none: coordinates stay exact.
    """
    quarter_turns = draws.draw_integers(4) if h == w else 2 * draws.draw_integers(2)
    # Cosine and sine of 0, 90, 180 and 270 degrees, without rounding.
    cos = (quarter_turns - 2).abs() - 1
    sin = 1 - (quarter_turns - 1).abs()

    flip = draws.draw_integers(2)
    x, y = draws.draw_uniform_pair(1 / 8)
    return [
        Affine(xx=1 - 2 * flip),
        Affine(xx=cos, xy=-sin, yx=sin, yy=cos),
        invert_shift((x * w).round(), (y * h).round()),
    ]


def draw_deformations(draws: RandomDraws, h: int, w: int, largest_angle: float) -> list[Affine]:
    """Draw the inverses of a scaling, a rotation, a stretching (axes by s and 1 / s), a rotation and a shift."""
    # The probability of each of the two rotations, so that at least one of them happens with probability p.
    either = 1 - (1 - draws.p).sqrt()
    size = torch.exp2(draws.draw_normal(0.2))
    stretch = torch.exp2(draws.draw_normal(0.2))
    angle_before = draws.draw_uniform(largest_angle, either)
    angle_after = draws.draw_uniform(largest_angle, either)
    x, y = draws.draw_normal_pair(1 / 8)

    return [
        Affine(xx=1 / size, yy=1 / size),
        invert_rotation(angle_before),
        Affine(xx=1 / stretch, yy=stretch),
        invert_rotation(angle_after),
        invert_shift(x * w, y * h),
    ]


def invert_rotation(angle: Tensor) -> Affine:
    """Return the inverse of rotating the image about its centre by an angle (N,), in radians counterclockwise."""
    cos = angle.cos()
    sin = angle.sin()
    return Affine(xx=cos, xy=-sin, yx=sin, yy=cos)


def invert_shift(x: Tensor, y: Tensor) -> Affine:
    """Return the inverse of moving the image by (N,) pixels to the right and down."""
    return Affine(x0=-x, y0=-y)


def warp(images: Tensor, source: Affine) -> Tensor:
    """Resample images (N, C, h, w) at the places that `source` gives for each pixel of the result.

    Values between pixel centres are bilinear; beyond the outermost pixels lies their mirror image, which does not
    repeat them.
    """
    n, c, h, w = images.shape
    dtype = torch.promote_types(images.dtype, torch.float32)

    # Where each pixel of the result lies in the image, in pixels from its top left one.
    y = torch.arange(h, device=images.device, dtype=dtype) - (h - 1) / 2
    x = torch.arange(w, device=images.device, dtype=dtype) - (w - 1) / 2
    xx, xy, x0, yx, yy, y0 = (field.to(dtype).view(n, 1, 1) if isinstance(field, Tensor) else field for field in source)
    columns = (xx * x + xy * y[:, None] + x0 + (w - 1) / 2).expand(n, h, w)
    rows = (yx * x + yy * y[:, None] + y0 + (h - 1) / 2).expand(n, h, w)

    # The four pixels around it, and the shares of the right and the lower ones.
    left = columns.floor()
    top = rows.floor()
    right_share = (columns - left).to(images.dtype)[:, None].expand(n, c, h, w)
    bottom_share = (rows - top).to(images.dtype)[:, None].expand(n, c, h, w)
    flat = images.flatten(2)

    def gather_pixels(dy: int, dx: int) -> Tensor:
        index = mirror_places(top + dy, h) * w + mirror_places(left + dx, w)
        return flat.gather(2, index.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)

    upper = torch.lerp(gather_pixels(0, 0), gather_pixels(0, 1), right_share)
    lower = torch.lerp(gather_pixels(1, 0), gather_pixels(1, 1), right_share)
    return torch.lerp(upper, lower, bottom_share)


def mirror_places(places: Tensor, size: int) -> Tensor:
    """Map integer places anywhere to indices in [0, size), as between two mirrors on the outermost pixels."""
    period = max(2 * (size - 1), 1)
    folded = places.long() % period
    if size == 1:
        return torch.zeros_like(folded)
    return torch.minimum(folded, period - folded)
