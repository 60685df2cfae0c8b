"""Affine maps of images, one for each sample, and images seen through them.

Everything is elementwise or a lookup: `grid_sample` cannot be differentiated twice, and a matrix product would lose
coordinates to the low precision of autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pggan_plugins.augmentations.dice import Dice


class Affine(NamedTuple):
    """`x' = xx * x + xy * y + x0`, `y' = yx * x + yy * y + y0`, in pixels from the image's centre.

    Each field is (N,), or a number where all samples share it.
    """

    xx: Tensor | float = 1.0
    xy: Tensor | float = 0.0
    x0: Tensor | float = 0.0
    yx: Tensor | float = 0.0
    yy: Tensor | float = 1.0
    y0: Tensor | float = 0.0

    def after(self, first: Affine) -> Affine:
        """The map that is `first`, and then this."""
        a, b = self, first
        return Affine(
            a.xx * b.xx + a.xy * b.yx,
            a.xx * b.xy + a.xy * b.yy,
            a.xx * b.x0 + a.xy * b.y0 + a.x0,
            a.yx * b.xx + a.yy * b.yx,
            a.yx * b.xy + a.yy * b.yy,
            a.yx * b.x0 + a.yy * b.y0 + a.y0,
        )


def random_map(dice: Dice, groups: Sequence[str], h: int, w: int) -> Affine:
    """From a pixel of the result to its place in the image of size (h, w), for the groups `blit` and `geometry`."""
    steps: list[Affine] = []
    if "blit" in groups:
        steps += blits(dice, h, w)
    if "geometry" in groups:
        steps += deformations(dice, h, w)
    found = Affine()
    for inverse in steps:
        # What is done to the image last is undone first on the way from the result to the image.
        found = found.after(inverse)
    return found


def blits(dice: Dice, h: int, w: int) -> list[Affine]:
    """The inverses of a flip, turns by 90 degrees (180 where h != w, whose pixels would miss others') and a shift by
    whole pixels. They move pixels and change none: coordinates stay exact."""
    turns = dice.whole(4) if h == w else 2 * dice.whole(2)
    cos, sin = (turns - 2).abs() - 1, 1 - (turns - 1).abs()
    flip = dice.whole(2)
    x, y = dice.draw_uniform_pair(1 / 8)
    return [
        Affine(xx=1 - 2 * flip),
        Affine(xx=cos, xy=-sin, yx=sin, yy=cos),
        shift((x * w).round(), (y * h).round()),
    ]


def deformations(dice: Dice, h: int, w: int) -> list[Affine]:
    """The inverses of a scaling, a rotation, a stretching (axes by s and 1 / s), a rotation and a shift."""
    # Two rotations, each with such a chance that at least one of them strikes with chance p.
    either = 1 - (1 - dice.p).sqrt()
    size = torch.exp2(dice.normal(0.2))
    stretch = torch.exp2(dice.normal(0.2))
    before = dice.uniform(math.pi, either)
    after = dice.uniform(math.pi, either)
    x, y = dice.draw_normal_pair(1 / 8)
    return [
        Affine(xx=1 / size, yy=1 / size),
        rotation(before),
        Affine(xx=1 / stretch, yy=stretch),
        rotation(after),
        shift(x * w, y * h),
    ]


def rotation(angle: Tensor) -> Affine:
    """About the centre, (N,) in radians."""
    cos, sin = angle.cos(), angle.sin()
    return Affine(xx=cos, xy=-sin, yx=sin, yy=cos)


def shift(x: Tensor, y: Tensor) -> Affine:
    """The inverse of moving the image by (N,) pixels to the right and down."""
    return Affine(x0=-x, y0=-y)


def warp(images: Tensor, source: Affine) -> Tensor:
    """Images (N, C, h, w), seen at the places that `source` gives for each pixel: bilinear between pixel centres, and
    beyond the outermost pixels their mirror image, without repeating them."""
    n, c, h, w = images.shape
    dtype = torch.promote_types(images.dtype, torch.float32)
    y, x = (torch.arange(size, device=images.device, dtype=dtype) - (size - 1) / 2 for size in (h, w))
    xx, xy, x0, yx, yy, y0 = (field.to(dtype).view(n, 1, 1) if isinstance(field, Tensor) else field for field in source)
    columns = (xx * x + xy * y[:, None] + x0 + (w - 1) / 2).expand(n, h, w)
    rows = (yx * x + yy * y[:, None] + y0 + (h - 1) / 2).expand(n, h, w)
    left, top = columns.floor(), rows.floor()
    right_share, bottom_share = ((columns - left).to(images.dtype)[:, None], (rows - top).to(images.dtype)[:, None])
    flat = images.flatten(2)

    def pixels(dy: int, dx: int) -> Tensor:
        index = mirrored(top + dy, h) * w + mirrored(left + dx, w)
        return flat.gather(2, index.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)

    upper = torch.lerp(pixels(0, 0), pixels(0, 1), right_share.expand(n, c, h, w))
    lower = torch.lerp(pixels(1, 0), pixels(1, 1), right_share.expand(n, c, h, w))
    return torch.lerp(upper, lower, bottom_share.expand(n, c, h, w))


def mirrored(places: Tensor, size: int) -> Tensor:
    """Whole places anywhere to indices in [0, size), as between two mirrors that stand on the outermost pixels."""
    period = max(2 * (size - 1), 1)
    around = places.long() % period
    return torch.minimum(around, period - around) if size > 1 else torch.zeros_like(around)
