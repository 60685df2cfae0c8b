"""The kernel distance between features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pggan_kit import Quantity

from .shared import OfFeatures

ROWS = 2048
"""So many rows of a kernel matrix are in memory at once."""


class KernelDistance(OfFeatures):
    """KID (Bińkowski et al. 2018): the squared maximum mean discrepancy under the kernel (x y / F + 1)^3.

    The estimate is unbiased, so it may lie below 0. All pairs are used, and not random subsets of them.

    Args:
        features: the extractor.
        suffix: of the value's name, `KID`.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {"KID": Quantity("lower")}

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """`KID`; in float64.

        Raises:
            ConfigError: fewer than 2 images of one kind.
        """
        self.require_images(2, real, fake)
        x, y = real.double(), fake.double()
        m, n = len(x), len(y)
        within = (_sum(x, x) - _diagonal(x)) / (m * (m - 1)) + (_sum(y, y) - _diagonal(y)) / (n * (n - 1))
        return {f"KID{self.suffix}": within - 2 * _sum(x, y) / (m * n)}


def _sum(x: Tensor, y: Tensor) -> float:
    """Of the kernel over all pairs."""
    return sum(float((rows @ y.T / x.shape[1] + 1).pow(3).sum()) for rows in x.split(ROWS))


def _diagonal(x: Tensor) -> float:
    return float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
