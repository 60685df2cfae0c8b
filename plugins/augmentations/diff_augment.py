"""DiffAugment (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pggan_kit import check_between
from pggan_plugins.augmentations.policy import checked_policy

GROUPS = ("colour", "translation", "cutout")


class DiffAugment:
    """Always on, for every sample its own draw, in the order of the policy.

    * `colour`: brightness `x + U(-0.5, 0.5)`; saturation: distances from the pixel's mean over channels times U(0, 2),
      which leaves gray images as they are; contrast: distances from the image's mean times U(0.5, 1.5).
    * `translation`: by whole pixels, up to the given share of height and width, zeros moving in.
    * `cutout`: a box of the given share of height and width becomes 0; its centre lies anywhere in the image.

    Args:
        policy: the groups, any of those three, each once.
        translation: share of the size, in [0, 1].
        cutout: share of the size, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, policy: Sequence[str] = GROUPS, translation: float = 0.125, cutout: float = 0.5) -> None:
        for name, value in (("translation", translation), ("cutout", cutout)):
            check_between(name, value, 0, 1)
        self.policy = checked_policy(policy, GROUPS)
        self.translation = translation
        self.cutout = cutout

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        for group in self.policy:
            if group == "colour":
                images = colour(images)
            elif group == "translation":
                images = translate(images, self.translation)
            else:
                images = cut_out(images, self.cutout)
        return images


def colour(images: Tensor) -> Tensor:
    """Random brightness, saturation and contrast."""
    brightness, saturation, contrast = torch.rand(3, images.shape[0], 1, 1, 1, dtype=images.dtype, device=images.device)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + contrast)


def translate(images: Tensor, share: float) -> Tensor:
    """Random shifts by whole pixels. Each sample is rolled, and what came round the edge set to 0: a roll repeats no
    pixel, so its gradient is a sum of one number each and the same in every order."""
    for dim in (2, 3):
        size = images.shape[dim]
        most = int(size * share + 0.5)
        shift = torch.randint(-most, most + 1, (images.shape[0], 1), device=images.device)
        source = torch.arange(size, device=images.device) - shift
        inside = (source >= 0) & (source < size)
        index, mask = (line.view(_along(images, dim)) for line in (source % size, inside.to(images.dtype)))
        images = images.gather(dim, index.expand_as(images)) * mask
    return images


def cut_out(images: Tensor, share: float) -> Tensor:
    """A random box set to 0; part of it may lie outside."""
    hidden = images.new_ones((), dtype=torch.bool)
    for dim in (2, 3):
        size = images.shape[dim]
        box = int(size * share + 0.5)
        # An even box has its centre between two pixels, of which there are size + 1.
        start = torch.randint(0, size + 1 - box % 2, (images.shape[0], 1), device=images.device) - box // 2
        places = torch.arange(size, device=images.device)
        hidden = hidden & ((places >= start) & (places < start + box)).view(_along(images, dim))
    return images * (~hidden).to(images.dtype)


def _along(images: Tensor, dim: int) -> tuple[int, int, int, int]:
    return (images.shape[0], 1, images.shape[2], 1) if dim == 2 else (images.shape[0], 1, 1, images.shape[3])
