"""What metrics of features have in common."""

from __future__ import annotations

from torch import Tensor

from pggan_kit.components import FeatureExtractor


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
