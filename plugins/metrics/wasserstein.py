"""The sliced Wasserstein distance between patches."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Quantity, torch_generator

SMALLEST = 16
"""Minimum pixels of the shorter side of a level."""

PATCHES = 128
"""Number of patches from each image and level."""

PATCH = 7
"""Pixels of a side of a patch."""

ROUNDS = 4
DIRECTIONS = 128
"""Number of random projections in each round."""


class SlicedWasserstein:
    """The sliced Wasserstein distance of Karras et al. 2018, section 5.

    At each level of a Laplacian pyramid, from full size down to 16 pixels: 128 patches of 7x7 pixels from each image,
    normalised to mean 0 and standard deviation 1 in each colour channel, and the mean over 4 x 128 random projections
    of the distance between the sorted projections of reals and fakes; times 1000.

    Each level has half the size of the one above, rounded up. Below 16 pixels the metric is not defined. An image's
    patches need 24.5 KiB of memory a level and channel: 10,000 gray ones at 28x28, 240 MiB.

    Args:
        suffix: A suffix of the value's name, `SWD`.
    """

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.quantities = {f"SWD{suffix}": Quantity("lower", (0.0, math.inf), "log")}

    def describe(self, images: Tensor) -> Tensor | None:
        """Return patches (N, levels, 128, C, 7, 7) at random places of images (N, C, h, w); None below 16 pixels."""
        if min(images.shape[2:]) < SMALLEST:
            return None
        return torch.stack([_draw_patches(level) for level in build_laplacian_pyramid(images)], 1)

    def fingerprint(self) -> str:
        """Return a name for the pyramid and the patches."""
        return f"laplacian patches {SMALLEST} {PATCHES} {PATCH}"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `SWD`, the mean over the levels, of patches (M, levels, ...) and (N, levels, ...)."""
        distances = []
        for real_patches, fake_patches in zip(real.unbind(1), fake.unbind(1), strict=True):
            distance = _measure_distance(_normalise_patches(real_patches), _normalise_patches(fake_patches))
            distances.append(1000 * distance)
        return {f"SWD{self.suffix}": sum(distances) / len(distances)}


def build_laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Build the levels of images (N, C, h, w), full size first.

    A level is the difference to the next smaller one, enlarged; the last is what remains. Half of h is (h + 1) // 2.
    """
    levels = [images]
    while min((n + 1) // 2 for n in levels[-1].shape[2:]) >= SMALLEST:
        smaller = _blur(levels[-1], 1.0)[:, :, ::2, ::2]
        levels[-1] = levels[-1] - _enlarge(smaller, levels[-1].shape[2:])
        levels.append(smaller)
    return levels


def _blur(images: Tensor, gain: float) -> Tensor:
    """Apply the binomial 5x5 filter, mirrored at the edges and multiplied by `gain`."""
    channels = images.shape[1]
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype, device=images.device) / 16
    kernel = (gain * taps[:, None] * taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _enlarge(images: Tensor, size: torch.Size) -> Tensor:
    """Enlarge images twofold to `size`: put zeros between the pixels, then apply the filter with 4 times the weight."""
    spread = images.new_zeros(*images.shape[:2], *size)
    spread[:, :, ::2, ::2] = images
    return _blur(spread, 4.0)


def _draw_patches(level: Tensor) -> Tensor:
    """Draw patches (N, 128, C, 7, 7) from a level (N, C, h, w), at places from torch's generator."""
    n, _, height, width = level.shape
    top = torch.randint(height - PATCH + 1, (n, PATCHES, 1, 1)).to(level.device)
    left = torch.randint(width - PATCH + 1, (n, PATCHES, 1, 1)).to(level.device)

    # One index for each pixel of each patch: (N, 128, 7, 1) rows and (N, 128, 1, 7) columns.
    offsets = torch.arange(PATCH, device=level.device)
    rows = top + offsets[:, None]
    columns = left + offsets
    image = torch.arange(n, device=level.device)[:, None, None, None]
    return level.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 1, 4, 2, 3)


def _normalise_patches(patches: Tensor) -> Tensor:
    """Bring each channel of (N, 128, C, 7, 7) to mean 0 and standard deviation 1 over all, as (N * 128, C * 49)."""
    flat = patches.flatten(0, 1)
    mean = flat.mean((0, 2, 3), keepdim=True)
    std = flat.std((0, 2, 3), unbiased=False, keepdim=True).clamp(min=1e-8)
    return ((flat - mean) / std).flatten(1)


def _measure_distance(real: Tensor, fake: Tensor) -> float:
    """Return the mean over directions and ranks of |sorted projections of reals - those of fakes|."""
    count = min(len(real), len(fake))
    generator = torch_generator(0, "sliced wasserstein")
    means = []
    for _ in range(ROUNDS):
        directions = torch.randn(DIRECTIONS, real.shape[1], generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)

        # NumPy sorts rows many times faster than torch.
        real_ranks = np.sort((directions @ real[:count].T).numpy(), axis=1)
        fake_ranks = np.sort((directions @ fake[:count].T).numpy(), axis=1)
        means.append(float(np.abs(real_ranks - fake_ranks).mean(dtype=np.float64)))
    return sum(means) / len(means)
