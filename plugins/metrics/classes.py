"""Which classes fakes are of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import ConfigError, Quantity, check_between
from pggan_kit.components import FeatureExtractor

from .shared import OfFeatures


class ClassCoverage(OfFeatures):
    """What a classifier says of the fakes: whether all classes are there, as often as among the reals, and clearly.

    `ClassesCovered`: the share of the reals' classes that the fakes have too, at least `rare` times as often.
    `ClassDivergence`: the Kullback-Leibler divergence of the fakes' class shares from the reals', in nats, 0 where they
    are equal; shares are counted with one image more in each class. `ClassEntropy`: the entropy of the fakes' class
    shares over that of equal shares, in [0, 1]; 1 where there is but one class. `Confidence`: the mean of the
    largest probability.

    Args:
        features: gives probabilities (N, K), each row with the sum 1: `features.DigitClasses`.
        rare: the share of a class among the fakes, over that among the reals, from which it counts; in (0, 1].
        suffix: of the values' names.

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

    def describe(self, images: Tensor) -> Tensor:
        """(N, C, h, w) -> probabilities (N, K).

        Raises:
            ConfigError: the features are none.
        """
        found = super().describe(images)
        if (found < 0).any() or ((found.sum(1) - 1).abs() > 1e-3).any():
            raise ConfigError(
                "metrics.ClassCoverage.features must give probabilities with the sum 1, as features.DigitClasses does"
            )
        return found

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """The four values."""
        counts = [torch.bincount(side.argmax(1), minlength=side.shape[1]).double() for side in (real, fake)]
        shares_real, shares_fake = (count / count.sum() for count in counts)
        there = shares_real > 0
        covered = (shares_fake >= self.rare * shares_real)[there].double().mean()
        p, q = ((count + 1) / (count + 1).sum() for count in reversed(counts))
        entropy = torch.special.entr(shares_fake).sum() / math.log(len(q)) if len(q) > 1 else 1.0
        values = {
            "ClassesCovered": covered,
            "ClassDivergence": (p * (p / q).log()).sum(),
            "ClassEntropy": entropy,
            "Confidence": fake.double().max(1).values.mean(),
        }
        return {f"{name}{self.suffix}": float(value) for name, value in values.items()}
