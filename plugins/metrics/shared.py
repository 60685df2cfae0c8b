"""What metrics of features have in common."""

from __future__ import annotations

from torch import Tensor

from pggan_kit.components import FeatureExtractor
from pggan_kit.errors import ConfigError


class OfFeatures:
    """Describes images by their features.

    Args:
        features: the extractor.
        suffix: added to the names of the values, so that two of a kind can be told apart.
    """

    def __init__(self, features: FeatureExtractor, suffix: str = "") -> None:
        self.features = features
        self.suffix = suffix

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
