"""The similarity of fakes to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import ConfigError, Quantity

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, full size first (Wang et al. 2003)."""

WINDOW = 11
"""Pixels of a side of the Gaussian window."""

SIGMA = 1.5
"""Standard deviation of the Gaussian window, in pixels."""

SMALLEST = WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Minimum pixels of the shorter side: the window must fit the last scale."""

ALONE = -1.0
"""The description of an image that has no other beside it; similarities are 0 or more."""

C1 = 0.01**2
C2 = 0.03**2


class MSSSIM:
    """MS-SSIM (Wang et al. 2003) between pairs of fakes, the mean over all pairs (Odena et al. 2017): near 1 where a
    generator draws one image again and again. Read it beside its floor, the value among the reals. Not defined where
    images are smaller than 176 pixels.

    Each image is compared with the next one of its batch (`evaluation.batch_size`), and the last with the first. An
    image that is alone in its batch has no partner: the mean leaves it out.

    Args:
        suffix: A suffix of the value's name, `MSSSIM`.
    """

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.quantities = {f"MSSSIM{suffix}": Quantity("lower", (0.0, 1.0))}

    def describe(self, images: Tensor) -> Tensor | None:
        """Return the similarity (N,) of each image of (N, C, h, w) to the next one.

        `ALONE` for an image alone in its batch; None below 176 pixels.
        """
        if min(images.shape[2:]) < SMALLEST:
            return None
        if len(images) == 1:
            return images.new_full((1,), ALONE)
        shares = (images + 1) / 2  # luminance is compared, so 0 must be black
        return compute_ms_ssim(shares, shares.roll(-1, 0))

    def fingerprint(self) -> str:
        """Return a name for the way pairs are described."""
        return "ms-ssim of neighbours, channels averaged at each scale"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `MSSSIM` of the fakes alone, in [0, 1].

        Raises:
            ConfigError: Fakes of which each was alone in its batch.
        """
        pairs = fake[fake >= 0]
        if len(pairs) == 0:
            raise ConfigError(
                "metrics.MSSSIM compares images of one batch with each other, and each was alone in its batch: set "
                "evaluation.batch_size to 2 or more"
            )
        return {f"MSSSIM{self.suffix}": float(pairs.double().mean())}


def compute_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Compute the MS-SSIM (N,) of pairs of images (N, C, h, w) in [0, 1], at least 176 pixels a side.

    Contrast and structure enter at all scales, luminance at the last; a factor below 0 counts as 0. Each scale's
    factor is a mean over pixels and channels, as in the code of Karras et al. 2018; they are multiplied afterwards.
    """
    similarity = torch.ones(len(x), dtype=x.dtype, device=x.device)
    last = len(WEIGHTS) - 1
    for scale, weight in enumerate(WEIGHTS):
        luminance, structure = _compute_ssim(x, y)
        factors = luminance * structure if scale == last else structure
        similarity = similarity * factors.mean((1, 2, 3)).clamp(min=0) ** weight

        # The next scale has half the size.
        x = F.avg_pool2d(x, 2)
        y = F.avg_pool2d(y, 2)
    return similarity


def _compute_ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the two factors of SSIM wherever the window fits: luminance, and contrast with structure."""
    m = _average_windows(x)
    n = _average_windows(y)
    variances = _average_windows(x * x) - m * m + _average_windows(y * y) - n * n
    covariance = _average_windows(x * y) - m * n
    luminance = (2 * m * n + C1) / (m * m + n * n + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return luminance, structure


def _average_windows(x: Tensor) -> Tensor:
    """Compute Gaussian means over windows of 11x11 pixels."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    taps = torch.exp(-(places**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, WINDOW)
    rows = F.conv2d(x, taps, groups=x.shape[1])
    return F.conv2d(rows, taps.transpose(2, 3), groups=x.shape[1])
