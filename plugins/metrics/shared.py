"""What metrics of features have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pggan_kit import ConfigError, Quantity
from pggan_kit.components import FeatureExtractor


class OfFeatures:
    """Describes images by their features.

    Args:
        features: the extractor.
        suffix: added to the names of the values, so that two of a kind can be told apart.

    Attributes:
        unsuffixed: the quantities of all such metrics, by their names without a suffix.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]]

    def __init__(self, features: FeatureExtractor, suffix: str = "") -> None:
        self.features = features
        self.suffix = suffix

    @property
    def quantities(self) -> dict[str, Quantity]:
        """The statements, by the names that `compare` gives."""
        return {f"{name}{self.suffix}": quantity for name, quantity in self.unsuffixed.items()}

    def describe(self, images: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, F)."""
        return self.features(images)

    def fingerprint(self) -> str:
        """That of the features, whatever the metric."""
        return f"features of {self.features.fingerprint()}"

    def require_images(self, least: int, real: Tensor, fake: Tensor) -> None:
        """Check that there are enough images for the values to mean something.

        Raises:
            ConfigError: there are fewer than `least` of one kind.
        """
        for side, features in (("real", real), ("fake", fake)):
            if len(features) < least:
                raise ConfigError(
                    f"metrics.{type(self).__name__} needs at least {least} {side} images, and there are only "
                    f"{len(features)} to compare: raise evaluation.count, or give more images (the noise floor "
                    "compares one half of the real ones with the other)"
                )
