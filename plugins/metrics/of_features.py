"""The base of metrics that compare features of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pggan_kit import ConfigError, Quantity
from pggan_kit.components import FeatureExtractor

TOLERANCE = 1e-3
"""Maximum deviation of a sum of probabilities from 1."""


class OfFeatures:
    """A metric that describes images by their features.

    Args:
        features: The extractor.
        suffix: A suffix of the values' names, which keeps two metrics of one kind apart.

    Attributes:
        unsuffixed: The quantities of all such metrics, by their names without a suffix.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]]

    def __init__(self, features: FeatureExtractor, suffix: str = "") -> None:
        self.features = features
        self.suffix = suffix

    @property
    def quantities(self) -> dict[str, Quantity]:
        """The quantities, by the names that `compare` returns."""
        return {f"{name}{self.suffix}": quantity for name, quantity in self.unsuffixed.items()}

    def describe(self, images: Tensor) -> Tensor:
        """Return the features (N, F) of images (N, C, h, w)."""
        return self.features(images)

    def fingerprint(self) -> str:
        """Return the fingerprint of the features, which all metrics of the same features share."""
        return f"features of {self.features.fingerprint()}"

    def require_images(self, least: int, real: Tensor, fake: Tensor) -> None:
        """Check that there are enough images of both kinds for the values to mean something.

        Args:
            least: The smallest number of each kind.
            real, fake: Features (M, F) and (N, F).

        Raises:
            ConfigError: Fewer than `least` images of one kind.
        """
        for side, features in (("real", real), ("fake", fake)):
            if len(features) < least:
                raise ConfigError(
                    f"metrics.{type(self).__name__} needs at least {least} {side} images, and there are only "
                    f"{len(features)} to compare: raise evaluation.count, or give more images (the noise floor "
                    "compares one half of the real ones with the other)"
                )


def require_probabilities(features: Tensor, metric: str) -> None:
    """Check that features (..., K) are probabilities of classes.

    Args:
        features: Features of images.
        metric: Name of the metric in the error.

    Raises:
        ConfigError: They are none.
    """
    sums = features.sum(-1)
    if not (features >= 0).all() or not ((sums - 1).abs() <= TOLERANCE).all():
        raise ConfigError(f"{metric}.features must give probabilities with the sum 1, as features.DigitClasses does")
