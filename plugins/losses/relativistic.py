"""The relativistic pairing loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from pggan_kit import Scores
from pggan_plugins.losses.base import Penalised


class Relativistic(Penalised):
    """D wants each real above the fake it is paired with, and G the reverse.

    RpGAN (Jolicoeur-Martineau 2019), which R3GAN (Huang et al. 2024) trains with the penalties R1 and R2 together. Only
    differences of scores count: where 0 lies means nothing, so `augmentations.ADA` cannot read overfitting from it.
    """

    needs_real = True

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """`relativistic`: `E[softplus(-(D(real) - D(fake)))]` over pairs."""
        return {"relativistic": softplus(fake.score - real.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """`relativistic`: `E[softplus(-(D(fake) - D(real)))]` over pairs."""
        assert real is not None  # needs_real asks for them
        return {"relativistic": softplus(real.score - fake.score).mean()}
