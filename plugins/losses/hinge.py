"""The hinge loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from pggan_kit import Scores
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class Hinge(LossWithPenalties):
    """D pushes reals above 1 and fakes below -1, and no further; G raises the scores of its fakes (Lim and Ye 2017)."""

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `hinge`: `E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))]`."""
        return {"hinge": relu(1 - real.score).mean() + relu(1 + fake.score).mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `hinge`: minus the fakes' mean score."""
        return {"hinge": -fake.score.mean()}
