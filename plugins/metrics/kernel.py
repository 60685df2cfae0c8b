"""The kernel distance between features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pggan_kit import Quantity

from .of_features import OfFeatures

ROWS = 2048
"""Number of rows of a kernel matrix that are in memory at once."""


class KernelDistance(OfFeatures):
    """KID (Bińkowski et al. 2018): the squared maximum mean discrepancy under the kernel (x y / F + 1)^3.

    The estimate is unbiased, so it may lie below 0. It uses all pairs, not random subsets of them.

    Args:
        features: The extractor.
        suffix: A suffix of the value's name, `KID`.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {"KID": Quantity("lower")}

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `KID` of features (M, F) and (N, F); computed in float64.

        Raises:
            ConfigError: Fewer than 2 images of one kind.
        """
        self.require_images(2, real, fake)
        x = real.double()
        y = fake.double()
        m = len(x)
        n = len(y)

        # Unbiased: no image is paired with itself.
        within_x = (_sum_kernel(x, x) - _sum_diagonal(x)) / (m * (m - 1))
        within_y = (_sum_kernel(y, y) - _sum_diagonal(y)) / (n * (n - 1))
        return {f"KID{self.suffix}": within_x + within_y - 2 * _sum_kernel(x, y) / (m * n)}


def _sum_kernel(x: Tensor, y: Tensor) -> float:
    """Return the sum of the kernel over all pairs of rows of (M, F) and (N, F)."""
    return sum(float((rows @ y.T / x.shape[1] + 1).pow(3).sum()) for rows in x.split(ROWS))


def _sum_diagonal(x: Tensor) -> float:
    """Return the sum of the kernel over pairs of a row of (N, F) with itself."""
    return float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
