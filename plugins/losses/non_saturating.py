"""The non-saturating logistic loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from pggan_kit import Scores
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class NonSaturating(LossWithPenalties):
    """The original game, with G's loss changed so that its gradient does not vanish (Goodfellow et al. 2014)."""

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `logistic`: `E[softplus(-D(real))] + E[softplus(D(fake))]`."""
        return {"logistic": softplus(-real.score).mean() + softplus(fake.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `logistic`: `E[softplus(-D(fake))]`."""
        return {"logistic": softplus(-fake.score).mean()}
