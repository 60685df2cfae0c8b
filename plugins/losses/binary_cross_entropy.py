"""Binary cross-entropy over one joint batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pggan_kit import Scores
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class BinaryCrossEntropy(LossWithPenalties):
    """D tells reals (1) from fakes (0), G wants its fakes taken for reals; scores are logits.

    This is the game of `NonSaturating` (Goodfellow et al. 2014) with the weights of Keras' `BinaryCrossentropy`: D's
    term is the mean over reals and fakes together. With as many reals as fakes it is half the sum of the two means, so
    a penalty of the same weight counts twice as much beside it.
    """

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `cross_entropy`, the mean over both of `softplus(-D(real))` and `softplus(D(fake))`."""
        logits = torch.cat([real.score, fake.score])
        targets = torch.cat([torch.ones_like(real.score), torch.zeros_like(fake.score)])
        return {"cross_entropy": binary_cross_entropy_with_logits(logits, targets)}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, the mean of `softplus(-D(fake))`: fakes against ones."""
        return {"cross_entropy": binary_cross_entropy_with_logits(fake.score, torch.ones_like(fake.score))}
