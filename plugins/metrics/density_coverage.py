"""Density and coverage: precision and recall that one outlier among the reals does not change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity, check_at_least
from pggan_kit.components import FeatureExtractor

from .neighbours import find_points_in_balls, measure_radii
from .of_features import OfFeatures


class DensityCoverage(OfFeatures):
    """Density and coverage (Naeem et al. 2020, section 3).

    Each real's features stand for the ball that reaches to its `neighbours`-th nearest neighbour among the reals.
    Density is the mean number of such balls that a fake lies in, over `neighbours`: about 1 where fakes are distributed
    as the reals, and above it where they crowd where reals are dense. Coverage is the share of the reals whose ball
    holds a fake. Its edge does not belong to a ball, as in the authors' code: fakes that are the reals have density 1.

    Coverage depends on the number of images: of M reals and N fakes of the same distribution, the expected value is
    1 - (M - 1)...(M - k) / ((M + N - 1)...(M + N - k)), which is about 1 - 2^-k where M = N: 0.97 for 5 neighbours. The
    paper compares 10,000 reals with 10,000 fakes.

    Args:
        features: The extractor.
        neighbours: k, at least 1.
        suffix: A suffix of the values' names, `Density` and `Coverage`.

    Raises:
        ValueError: `neighbours` below 1.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {
        "Density": Quantity("higher", (0.0, math.inf)),
        "Coverage": Quantity("higher", (0.0, 1.0)),
    }

    def __init__(self, features: FeatureExtractor, neighbours: int = 5, suffix: str = "") -> None:
        super().__init__(features, suffix)
        check_at_least("neighbours", neighbours, 1, whole=True)
        self.neighbours = neighbours

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `Density` and `Coverage` of features (M, F) and (N, F); computed in float64.

        Raises:
            ConfigError: No more than `neighbours` images of one kind.
        """
        self.require_images(self.neighbours + 1, real, fake)
        real = real.double()
        radii = measure_radii(real, self.neighbours)

        # Both values count the same pairs of a fake and a ball.
        pairs = 0
        covered = torch.zeros(len(real), dtype=torch.bool)
        for inside in find_points_in_balls(fake.double(), real, radii, with_edge=False):
            pairs += int(inside.sum())
            covered |= inside.any(0)
        return {
            f"Density{self.suffix}": pairs / (self.neighbours * len(fake)),
            f"Coverage{self.suffix}": float(covered.double().mean()),
        }
