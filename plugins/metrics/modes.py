"""The modes of stacked digits that fakes cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity

from .of_features import OfFeatures, require_probabilities


class Modes(OfFeatures):
    """Modes covered and reverse KL of images whose channels each show one class (Metz et al. 2017, section 3.3.1):
    1,000 modes for `datasets.StackedMNIST`.

    The classifier sees each channel as a gray image, and the most likely class of each channel together are the
    image's mode. `ModesCovered` is the number of modes that at least one fake has. `ModeDivergence` is the
    Kullback-Leibler divergence of the fakes' distribution over the modes from the data's, in nats. The data's is the
    product of the class shares of each channel among the reals, since the channels are drawn independently; shares are
    counted with one image more in each class, so that none is 0.

    Both values depend on the number of fakes, and the standard is 26,000 (Metz et al. 2017; PacGAN, Lin et al. 2018):
    set `evaluation.count = 26_000`. Even a perfect generator's divergence is then about (K - 1) / (2 N) = 0.019 for
    K = 1,000 modes; its floor, from halves of the reals, shows the value for as many reals.

    Args:
        features: The classifier of gray images, which returns probabilities (N, K), each row with the sum 1:
            `features.DigitClasses`.
        suffix: A suffix of the values' names.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {
        "ModesCovered": Quantity("higher", (0.0, math.inf)),
        "ModeDivergence": Quantity("lower", (0.0, math.inf)),
    }

    def describe(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, C, K) of each channel of images (N, C, h, w)."""
        probabilities = self.features(images.flatten(0, 1)[:, None])
        return probabilities.unflatten(0, images.shape[:2])

    def fingerprint(self) -> str:
        """Return the fingerprint of the features of each channel."""
        return f"channels in {super().fingerprint()}"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return both values of probabilities (M, C, K) and (N, C, K).

        Raises:
            ConfigError: Features that are no probabilities.
        """
        # Here, since the reals' descriptions may come from the cache.
        for features in (real, fake):
            require_probabilities(features, "metrics.Modes")
        _, channels, classes = fake.shape

        # A mode's number has one digit, base K, for each channel, the first of most weight.
        places = classes ** torch.arange(channels - 1, -1, -1)
        numbers = (fake.argmax(2) * places).sum(1)
        counts = torch.bincount(numbers, minlength=classes**channels).double()

        # The channels of the data are independent: the last one varies fastest.
        data_shares = torch.ones(1, dtype=torch.float64)
        for channel in range(channels):
            class_counts = torch.bincount(real[:, channel].argmax(1), minlength=classes).double() + 1
            data_shares = torch.outer(data_shares, class_counts / class_counts.sum()).flatten()

        shares = counts / counts.sum()
        divergence = torch.xlogy(shares, shares / data_shares).sum()
        return {
            f"ModesCovered{self.suffix}": float((counts > 0).sum()),
            f"ModeDivergence{self.suffix}": max(0.0, float(divergence)),
        }
