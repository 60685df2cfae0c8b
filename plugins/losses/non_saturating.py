"""The non-saturating logistic loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from pggan_kit import Scores
from pggan_plugins.losses.base import Penalised


class NonSaturating(Penalised):
    """The original game with G's part turned round so that its gradient does not vanish (Goodfellow et al. 2014)."""

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """`logistic`: `E[softplus(-D(real))] + E[softplus(D(fake))]`."""
        return {"logistic": softplus(-real.score).mean() + softplus(fake.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """`logistic`: `E[softplus(-D(fake))]`."""
        return {"logistic": softplus(-fake.score).mean()}
