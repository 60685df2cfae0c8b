"""A metric of the classes that fakes belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity, check_between
from pggan_kit.components import FeatureExtractor

from .of_features import OfFeatures, require_probabilities


class ClassCoverage(OfFeatures):
    """Coverage of the classes by the fakes: whether all occur, as often as among the reals, and clearly.

    `ClassesCovered`: the share of the reals' classes that occur among the fakes, at least `rare` times as often.
    `ClassDivergence`: the Kullback-Leibler divergence of the fakes' class shares from the reals', in nats, 0 where they
    are equal; shares are counted with one image more in each class. `ClassEntropy`: the entropy of the fakes' class
    shares over that of equal shares, in [0, 1]; 1 where there is only one class. `Confidence`: the mean of the
    largest probability.

    Args:
        features: The classifier, which returns probabilities (N, K), each row with the sum 1: `features.DigitClasses`.
        rare: The share of a class among the fakes, over that among the reals, from which it counts; in (0, 1].
        suffix: A suffix of the values' names.

    Raises:
        ValueError: `rare` outside (0, 1].
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {
        "ClassesCovered": Quantity("higher", (0.0, 1.0)),
        "ClassDivergence": Quantity("lower", (0.0, math.inf)),
        "ClassEntropy": Quantity("higher", (0.0, 1.0)),
        "Confidence": Quantity("higher", (0.0, 1.0)),
    }

    def __init__(self, features: FeatureExtractor, rare: float = 0.1, suffix: str = "") -> None:
        super().__init__(features, suffix)
        check_between("rare", rare, 0, 1, low_included=False)
        self.rare = rare

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the four values of probabilities (M, K) and (N, K).

        Raises:
            ConfigError: Features that are no probabilities.
        """
        # Here, since another metric of the same features may have described the images.
        for features in (real, fake):
            require_probabilities(features, "metrics.ClassCoverage")
        real_counts = _count_classes(real)
        fake_counts = _count_classes(fake)
        real_shares = real_counts / real_counts.sum()
        fake_shares = fake_counts / fake_counts.sum()

        # Coverage is over the classes that the reals have.
        covered = (fake_shares >= self.rare * real_shares)[real_shares > 0].double().mean()

        # With one image more in each class no share is 0, and the divergence stays finite.
        p = (fake_counts + 1) / (fake_counts + 1).sum()
        q = (real_counts + 1) / (real_counts + 1).sum()
        divergence = (p * (p / q).log()).sum()

        # The entropy of equal shares is 0 where there is one class.
        entropy: Tensor | float = 1.0
        if len(fake_shares) > 1:
            entropy = torch.special.entr(fake_shares).sum() / math.log(len(fake_shares))

        values = {
            "ClassesCovered": covered,
            "ClassDivergence": divergence,
            "ClassEntropy": entropy,
            "Confidence": fake.double().max(1).values.mean(),
        }
        return {f"{name}{self.suffix}": float(value) for name, value in values.items()}


def _count_classes(probabilities: Tensor) -> Tensor:
    """Return how many rows of (N, K) are most likely of each class, (K,) in float64."""
    return torch.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]).double()
