"""The Fréchet distance between Gaussians fitted to features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity
from pggan_kit.components import FeatureExtractor

from .of_features import OfFeatures


class FrechetDistance(OfFeatures):
    """FID (Heusel et al. 2017) of any features: |m - n|^2 + tr(A + B - 2 (A B)^(1/2)), with means m, n and
    covariances A, B (divided by N - 1) of the features of reals and fakes.

    With few images the value is too high (Chong & Forsyth 2020), and the noise floor, from halves of the reals, may lie
    above it. With fewer images than features, whose covariances are singular, it warns once.

    Args:
        features: The extractor.
        suffix: A suffix of the value's name, `FID`.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {"FID": Quantity("lower", (0.0, math.inf), "log")}

    def __init__(self, features: FeatureExtractor, suffix: str = "") -> None:
        super().__init__(features, suffix)
        self._has_warned = False

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `FID`, at least 0, of features (M, F) and (N, F); computed in float64.

        Raises:
            ConfigError: Fewer than 2 images of one kind.
        """
        self.require_images(2, real, fake)
        self._warn_of_few_images(real, fake)
        m, a = _compute_moments(real)
        n, b = _compute_moments(fake)

        # tr((A B)^(1/2)) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric.
        values, vectors = torch.linalg.eigh(a)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
        distance = (m - n).square().sum() + a.trace() + b.trace() - 2 * cross
        return {f"FID{self.suffix}": max(0.0, float(distance))}

    def _warn_of_few_images(self, real: Tensor, fake: Tensor) -> None:
        """Warn once if there are fewer images than features."""
        size = real.shape[1]
        if self._has_warned or min(len(real), len(fake)) >= size:
            return
        self._has_warned = True
        warnings.warn(
            f"FID{self.suffix} of {len(real):,} real and {len(fake):,} other images with {size:,} features: with fewer "
            "images than features it is too high, and its noise floor, from halves of the reals, may lie above it; "
            "raise evaluation.count, give more images, or take metrics.KernelDistance",
            stacklevel=2,
        )


def _compute_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (F,) and the covariance (F, F) of features (N, F)."""
    values = features.double()
    mean = values.mean(0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)
