"""Random colours (Karras et al. 2020, "Training GANs with limited data", appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pggan_plugins.augmentations.random_draws import RandomDraws


def recolour(images: Tensor, draws: RandomDraws) -> Tensor:
    """Apply random brightness, contrast, luma flip, hue and saturation, in this order, to images (N, C, h, w).

    A pixel's luma is its mean over channels. Hue is a rotation about the axis of gray and needs three channels;
    saturation needs more than one. A luma flip of a gray image is its negative. Images whose coins all show tails stay
    equal bit for bit.
    """

    def expand(values: Tensor) -> Tensor:
        return values.to(images.dtype).view(-1, 1, 1, 1)

    # Brightness, contrast and luma flip are for any number of channels.
    images = images + expand(draws.draw_normal(0.2))
    images = images * expand(torch.exp2(draws.draw_normal(0.5)))
    images = images - expand(2 * draws.draw_integers(2)) * images.mean(1, keepdim=True)

    if images.shape[1] == 3:
        angle = draws.draw_uniform(math.pi)
        images = rotate_hue(images, expand(angle.cos()), expand(angle.sin()))

    if images.shape[1] > 1:
        luma = images.mean(1, keepdim=True)
        change = torch.exp2(draws.draw_normal(1.0)) - 1
        images = images + (images - luma) * expand(change)
    return images


def rotate_hue(images: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate colours about (1, 1, 1) by an angle (Rodrigues' formula), which keeps luma and the distance to gray.

    Args:
        images: Images (N, 3, h, w).
        cos, sin: Cosine and sine of the angle, (N, 1, 1, 1).
    """
    luma = images.mean(1, keepdim=True)
    crossed = (images.roll(-2, 1) - images.roll(-1, 1)) / math.sqrt(3)
    return images + (images - luma) * (cos - 1) + crossed * sin
