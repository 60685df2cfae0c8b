"""Precision and recall: how many fakes look real, and how much of the reals' variety the fakes cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity, check_at_least
from pggan_kit.components import FeatureExtractor

from .neighbours import find_points_in_balls, measure_radii
from .of_features import OfFeatures


class PrecisionRecall(OfFeatures):
    """Improved precision and recall (Kynkäänniemi et al. 2019, section 2).

    Each image's features stand for the ball that reaches to its `neighbours`-th nearest neighbour among its own kind.
    Precision is the share of fakes within some ball of a real, recall the share of reals within some ball of a fake.

    Args:
        features: The extractor.
        neighbours: k, at least 1.
        suffix: A suffix of the values' names, `Precision` and `Recall`.

    Raises:
        ValueError: `neighbours` below 1.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {
        "Precision": Quantity("higher", (0.0, 1.0)),
        "Recall": Quantity("higher", (0.0, 1.0)),
    }

    def __init__(self, features: FeatureExtractor, neighbours: int = 3, suffix: str = "") -> None:
        super().__init__(features, suffix)
        check_at_least("neighbours", neighbours, 1, whole=True)
        self.neighbours = neighbours

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `Precision` and `Recall`, in [0, 1], of features (M, F) and (N, F); computed in float64.

        Raises:
            ConfigError: No more than `neighbours` images of one kind.
        """
        self.require_images(self.neighbours + 1, real, fake)
        real = real.double()
        fake = fake.double()
        return {
            f"Precision{self.suffix}": self._measure_coverage(fake, real),
            f"Recall{self.suffix}": self._measure_coverage(real, fake),
        }

    def _measure_coverage(self, points: Tensor, centres: Tensor) -> float:
        """Return the share of points (M, F) that lie within the ball of some centre (N, F)."""
        radii = measure_radii(centres, self.neighbours)
        within = [inside.any(1) for inside in find_points_in_balls(points, centres, radii, with_edge=True)]
        return float(torch.cat(within).double().mean())
