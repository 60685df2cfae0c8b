"""How alike fakes are to each other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import ConfigError, Quantity

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, full size first (Wang et al. 2003)."""

WINDOW, SIGMA = 11, 1.5
SMALLEST = WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Pixels of the shorter side, below which the window does not fit the last scale."""

C1, C2 = 0.01**2, 0.03**2


class MSSSIM:
    """MS-SSIM (Wang et al. 2003) between pairs of fakes, the mean over all pairs (Odena et al. 2017): near 1 where a
    generator draws one image again and again. Read it beside its floor, which is that of the reals. Not defined where
    images are smaller than 176 pixels.

    Each image is compared with the next one of its batch (`evaluation.batch_size`), and the last with the first. An
    image that is alone in its batch has nothing to be compared with: it is left out of the mean.

    Args:
        suffix: of the value's name, `MSSSIM`.
    """

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.quantities = {f"MSSSIM{suffix}": Quantity("lower", (0.0, 1.0))}

    def describe(self, images: Tensor) -> Tensor | None:
        """(N, C, h, w) -> (N,): of each image and the next one; NaN of an image alone; None below 176 pixels."""
        if min(images.shape[2:]) < SMALLEST:
            return None
        if len(images) == 1:
            return images.new_full((1,), math.nan)
        shares = (images + 1) / 2  # luminance is compared, so 0 must be black
        return ms_ssim(shares, shares.roll(-1, 0))

    def fingerprint(self) -> str:
        """Names what is said of pairs."""
        return "ms-ssim of neighbours, channels averaged at each scale"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """`MSSSIM` of the fakes alone, in [0, 1].

        Raises:
            ConfigError: each fake was alone in its batch.
        """
        pairs = fake[~fake.isnan()]
        if len(pairs) == 0:
            raise ConfigError(
                "metrics.MSSSIM compares images of one batch with each other, and each was alone in its batch: set "
                "evaluation.batch_size to 2 or more"
            )
        return {f"MSSSIM{self.suffix}": float(pairs.double().mean())}


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, h, w) in [0, 1], at least 176 pixels -> (N,).

    Contrast and structure at all scales, luminance at the last; what is below 0 counts as 0. Each scale's factor is a
    mean over pixels and channels, as in the code of Karras et al. 2018; their product comes after.
    """
    found = torch.ones(len(x), dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(WEIGHTS):
        luminance, structure = _ssim(x, y)
        last = scale == len(WEIGHTS) - 1
        factor = (luminance * structure if last else structure).mean((1, 2, 3))
        found = found * factor.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


def _ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM at each place where the window fits: luminance, and contrast with structure."""
    m, n = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - m * m + _windowed(y * y) - n * n
    covariance = _windowed(x * y) - m * n
    return (2 * m * n + C1) / (m * m + n * n + C1), (2 * covariance + C2) / (variances + C2)


def _windowed(x: Tensor) -> Tensor:
    """Gaussian means over 11x11 pixels."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    taps = torch.exp(-(places**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, WINDOW)
    return F.conv2d(F.conv2d(x, taps, groups=x.shape[1]), taps.transpose(2, 3), groups=x.shape[1])
