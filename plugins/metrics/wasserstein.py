"""The sliced Wasserstein distance between patches."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import Quantity, torch_generator

SMALLEST = 16
"""Pixels of the shorter side, below which there is no level."""

PATCHES, PATCH = 128, 7
ROUNDS, DIRECTIONS = 4, 128


class SlicedWasserstein:
    """The sliced Wasserstein distance of Karras et al. 2018, section 5.

    At each level of a Laplacian pyramid, from full size down to 16 pixels: 128 patches of 7x7 pixels from each image,
    normalised to mean 0 and standard deviation 1 in each colour channel, and the mean over 4 x 128 random projections
    of how far the sorted projections of reals and fakes are apart; times 1000.

    Each level has half the size of the one above, rounded up. Below 16 pixels the metric is not defined. An image's
    patches need 24.5 KiB of memory a level and channel: 10,000 gray ones at 28x28, 240 MiB.

    Args:
        suffix: of the value's name, `SWD`.
    """

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.quantities = {f"SWD{suffix}": Quantity("lower", (0.0, math.inf), "log")}

    def describe(self, images: Tensor) -> Tensor | None:
        """(N, C, h, w) -> patches (N, levels, 128, C, 7, 7) at random places; None below 16 pixels."""
        if min(images.shape[2:]) < SMALLEST:
            return None
        return torch.stack([_patches(level) for level in laplacian_pyramid(images)], 1)

    def fingerprint(self) -> str:
        """Names the pyramid and the patches."""
        return f"laplacian patches {SMALLEST} {PATCHES} {PATCH}"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """`SWD`, the mean over the levels."""
        levels = zip(real.unbind(1), fake.unbind(1), strict=True)
        found = [1000 * _distance(_normalised(a), _normalised(b)) for a, b in levels]
        return {f"SWD{self.suffix}": sum(found) / len(found)}


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Images (N, C, h, w) -> what each level adds to the next smaller one, full size first; the last is what is left.

    Half of h is (h + 1) // 2.
    """
    levels = [images]
    while min((n + 1) // 2 for n in levels[-1].shape[2:]) >= SMALLEST:
        smaller = _blurred(levels[-1], 1.0)[:, :, ::2, ::2]
        levels[-1] = levels[-1] - _enlarged(smaller, levels[-1].shape[2:])
        levels.append(smaller)
    return levels


def _blurred(images: Tensor, gain: float) -> Tensor:
    """The binomial 5x5 filter, mirrored at the edges."""
    channels = images.shape[1]
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype, device=images.device) / 16
    kernel = (gain * taps[:, None] * taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _enlarged(images: Tensor, size: torch.Size) -> Tensor:
    """Twice as large, to `size`: zeros between the pixels, then the filter with 4 times the weight."""
    spread = images.new_zeros(*images.shape[:2], *size)
    spread[:, :, ::2, ::2] = images
    return _blurred(spread, 4.0)


def _patches(level: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, 128, C, 7, 7), at places from torch's generator."""
    n, _, height, width = level.shape
    top = torch.randint(height - PATCH + 1, (n, PATCHES, 1, 1)).to(level.device)
    left = torch.randint(width - PATCH + 1, (n, PATCHES, 1, 1)).to(level.device)
    offsets = torch.arange(PATCH, device=level.device)
    rows, columns = top + offsets[:, None], left + offsets
    image = torch.arange(n, device=level.device)[:, None, None, None]
    return level.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 1, 4, 2, 3)


def _normalised(patches: Tensor) -> Tensor:
    """(N, 128, C, 7, 7) -> (N * 128, C * 49), each channel with mean 0 and standard deviation 1 over all."""
    flat = patches.flatten(0, 1)
    mean = flat.mean((0, 2, 3), keepdim=True)
    std = flat.std((0, 2, 3), unbiased=False, keepdim=True).clamp(min=1e-8)
    return ((flat - mean) / std).flatten(1)


def _distance(real: Tensor, fake: Tensor) -> float:
    """Mean over directions and ranks of |sorted projections of reals - those of fakes|."""
    count = min(len(real), len(fake))
    generator = torch_generator(0, "sliced wasserstein")
    means = []
    for _ in range(ROUNDS):
        directions = torch.randn(DIRECTIONS, real.shape[1], generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        # NumPy sorts rows many times faster than torch.
        sides = [np.sort((directions @ side[:count].T).numpy(), axis=1) for side in (real, fake)]
        means.append(float(np.abs(sides[0] - sides[1]).mean(dtype=np.float64)))
    return sum(means) / len(means)
