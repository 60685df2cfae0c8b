"""Random colours (Karras et al. 2020, "Training GANs with limited data", appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pggan_plugins.augmentations.dice import Dice


def recolour(images: Tensor, dice: Dice) -> Tensor:
    """Brightness, contrast, luma flip, hue, saturation, in this order, to images (N, C, h, w).

    A pixel's luma is its mean over channels. Hue turns about the axis of gray and needs three channels; saturation
    needs more than one. A luma flip of a gray image is its negative. Images that no draw strikes stay bit by bit.
    """

    def wide(values: Tensor) -> Tensor:
        return values.to(images.dtype).view(-1, 1, 1, 1)

    images = images + wide(dice.normal(0.2))
    images = images * wide(torch.exp2(dice.normal(0.5)))
    images = images - wide(2 * dice.whole(2)) * images.mean(1, keepdim=True)
    if images.shape[1] == 3:
        angle = dice.uniform(math.pi)
        images = turn_hue(images, wide(angle.cos()), wide(angle.sin()))
    if images.shape[1] > 1:
        luma = images.mean(1, keepdim=True)
        images = images + (images - luma) * wide(torch.exp2(dice.normal(1.0)) - 1)
    return images


def turn_hue(images: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate colours about (1, 1, 1) by an angle (Rodrigues' formula): luma stays, and so does the distance to gray."""
    luma = images.mean(1, keepdim=True)
    crossed = (images.roll(-2, 1) - images.roll(-1, 1)) / math.sqrt(3)
    return images + (images - luma) * (cos - 1) + crossed * sin
