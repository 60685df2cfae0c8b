"""The Wasserstein loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pggan_kit import Penalty, Scores
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class WGANGP(LossWithPenalties):
    """D maximises `E[D(real)] - E[D(fake)]`, G maximises `E[D(fake)]` (Arjovsky et al. 2017).

    Args:
        penalties: Terms that keep D nearly 1-Lipschitz. In configs the default is the paper's: GradientPenalty and
            Drift.
    """

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        super().__init__(penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `wasserstein`: the mean score of fakes minus that of reals."""
        return {"wasserstein": fake.score.mean() - real.score.mean()}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `wasserstein`: minus the fakes' mean score."""
        return {"wasserstein": -fake.score.mean()}
