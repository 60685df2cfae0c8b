"""The relativistic pairing loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from pggan_kit import Scores
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class Relativistic(LossWithPenalties):
    """D scores each real above the fake that it is paired with, and G works for the reverse.

    This is RpGAN (Jolicoeur-Martineau 2019), which R3GAN (Huang et al. 2024) trains with the penalties R1 and R2
    together. Only differences of scores count: 0 has no meaning, so `augmentations.ADA` cannot read overfitting from
    the sign of a score.
    """

    needs_real = True

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `relativistic`: `E[softplus(-(D(real) - D(fake)))]` over pairs."""
        return {"relativistic": softplus(fake.score - real.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `relativistic`: `E[softplus(-(D(fake) - D(real)))]` over pairs."""
        assert real is not None  # since `needs_real` is set
        return {"relativistic": softplus(real.score - fake.score).mean()}
