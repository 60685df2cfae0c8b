"""DiffAugment (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pggan_kit import check_between
from pggan_plugins.augmentations.policy import check_policy

GROUPS = ("colour", "translation", "cutout")


class DiffAugment:
    """Transforms that are always on, with draws of its own for each sample, in the order of the policy.

    * `colour`: brightness `x + U(-0.5, 0.5)`; saturation: distances from the pixel's mean over channels times U(0, 2),
      which leaves gray images unchanged; contrast: distances from the image's mean times U(0.5, 1.5).
    * `translation`: by whole pixels, up to the given share of height and width; zeros move in.
    * `cutout`: a box of the given share of height and width becomes 0; its centre lies anywhere in the image.

    Args:
        policy: Names of the groups to apply: any of those three, each once.
        translation: Share of the size, in [0, 1].
        cutout: Share of the size, in [0, 1].

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, policy: Sequence[str] = GROUPS, translation: float = 0.125, cutout: float = 0.5) -> None:
        for name, value in (("translation", translation), ("cutout", cutout)):
            check_between(name, value, 0, 1)
        self.policy = check_policy(policy, GROUPS)
        self.translation = translation
        self.cutout = cutout

    def __call__(self, images: Tensor) -> Tensor:
        """Return the augmented images: (N, C, h, w) -> (N, C, h, w)."""
        for group in self.policy:
            if group == "colour":
                images = jitter_colour(images)
            elif group == "translation":
                images = translate(images, self.translation)
            else:
                images = cut_out(images, self.cutout)
        return images


def jitter_colour(images: Tensor) -> Tensor:
    """Apply random brightness, saturation and contrast."""
    brightness, saturation, contrast = torch.rand(3, images.shape[0], 1, 1, 1, dtype=images.dtype, device=images.device)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + contrast)


def translate(images: Tensor, share: float) -> Tensor:
    """Shift each sample by random whole pixels, up to a share of its height and width.

    Each sample is rolled, and what came round the edge is set to 0. A roll repeats no pixel, so each number of its
    gradient has one summand and is the same in every order of summation.
    """
    for dim in (2, 3):
        size = images.shape[dim]
        limit = int(size * share + 0.5)
        shift = torch.randint(-limit, limit + 1, (images.shape[0], 1), device=images.device)

        # Where each row or column comes from, and whether that lies inside the image.
        source = torch.arange(size, device=images.device) - shift
        inside = (source >= 0) & (source < size)
        index = (source % size).view(_shape_along(images, dim))
        mask = inside.to(images.dtype).view(_shape_along(images, dim))

        images = images.gather(dim, index.expand_as(images)) * mask
    return images


def cut_out(images: Tensor, share: float) -> Tensor:
    """Set a random box of each sample to 0, a share of its height and width; some of it may lie outside."""
    hidden = images.new_ones((), dtype=torch.bool)
    for dim in (2, 3):
        size = images.shape[dim]
        box = int(size * share + 0.5)
        # An even box has its centre between two pixels, where there are size + 1 places.
        start = torch.randint(0, size + 1 - box % 2, (images.shape[0], 1), device=images.device) - box // 2

        places = torch.arange(size, device=images.device)
        in_box = (places >= start) & (places < start + box)
        hidden = hidden & in_box.view(_shape_along(images, dim))
    return images * (~hidden).to(images.dtype)


def _shape_along(images: Tensor, dim: int) -> tuple[int, int, int, int]:
    """Return the shape in which one number for each row (dim 2) or column (dim 3) multiplies the images."""
    n, _, h, w = images.shape
    if dim == 2:
        return (n, 1, h, 1)
    return (n, 1, 1, w)
