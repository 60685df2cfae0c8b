"""Binary cross-entropy over one joint batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pggan_kit import Scores
from pggan_plugins.losses.base import Penalised


class BinaryCrossEntropy(Penalised):
    """D tells reals (1) from fakes (0), G wants its fakes taken for reals; scores are logits.

    The game of `NonSaturating` (Goodfellow et al. 2014) with the weights of Keras' `BinaryCrossentropy`: D's term is
    the mean over reals and fakes together. With as many of each it is half the sum of two means, so beside it a
    penalty of the same weight counts twice as much.
    """

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """`cross_entropy`: the mean over both of `softplus(-D(real))` and `softplus(D(fake))`."""
        logits = torch.cat([real.score, fake.score])
        targets = torch.cat([torch.ones_like(real.score), torch.zeros_like(fake.score)])
        return {"cross_entropy": binary_cross_entropy_with_logits(logits, targets)}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """`cross_entropy`: the mean of `softplus(-D(fake))`, fakes against ones."""
        return {"cross_entropy": binary_cross_entropy_with_logits(fake.score, torch.ones_like(fake.score))}
