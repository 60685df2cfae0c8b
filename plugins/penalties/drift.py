"""A penalty on scores that drift away from 0."""

from __future__ import annotations

from torch import Tensor

from pggan_kit import Critic, Scores, Varying
from pggan_plugins.penalties.weighted_penalty import WeightedPenalty


class Drift(WeightedPenalty):
    """The mean of D(x)^2 over reals, which keeps a critic's output near 0 (Karras et al. 2018, appendix A.1).

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        every: Number k of updates of D: every k-th one adds the term, multiplied by k. At least 1.
    """

    runs_critic = False

    def __init__(self, weight: Varying[float] = 1e-3, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the penalty, 0-dim."""
        return real_scores.score.square().mean()
