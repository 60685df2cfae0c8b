"""Random numbers that each sample draws on its own, and that are 0 for the samples that a coin leaves out."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomDraws:
    """Draws for one batch from torch's default generator: (N,) each, of which a share of about p is not 0.

    Args:
        count: Number of samples N.
        p: Probability that a draw changes a sample, 0-dim; nothing here waits for its value.
        dtype: Dtype of the draws.
    """

    def __init__(self, count: int, p: Tensor, dtype: torch.dtype) -> None:
        self.count = count
        self.p = p
        self.dtype = dtype

    def toss_coins(self, values: Tensor, p: Tensor | None = None) -> Tensor:
        """Toss a coin for each sample, and return its values (..., N) where it shows heads, 0 elsewhere.

        Args:
            values: Values (..., N), one or more for each sample.
            p: Probability of heads, 0-dim. None: that of these draws.
        """
        if p is None:
            p = self.p
        return torch.where(self._rand() < p, values, torch.zeros_like(values))

    def draw_integers(self, count: int) -> Tensor:
        """Return 0, 1, ..., count - 1 with equal probability, after a coin."""
        return self.toss_coins((self._rand() * count).floor())

    def draw_uniform(self, limit: float, p: Tensor | None = None) -> Tensor:
        """Return uniform numbers between -limit and limit, after a coin; see `toss_coins` for p."""
        return self.toss_coins((2 * self._rand() - 1) * limit, p)

    def draw_normal(self, deviation: float) -> Tensor:
        """Return numbers from N(0, deviation^2), after a coin."""
        return self.toss_coins(self._randn() * deviation)

    def draw_uniform_pair(self, limit: float) -> Tensor:
        """Return (2, N) as `draw_uniform` does, with one coin for both numbers of a sample."""
        return self.toss_coins((2 * self._rand(2) - 1) * limit)

    def draw_normal_pair(self, deviation: float) -> Tensor:
        """Return (2, N) as `draw_normal` does, with one coin for both numbers of a sample."""
        return self.toss_coins(self._randn(2) * deviation)

    def _rand(self, *rows: int) -> Tensor:
        return torch.rand(*rows, self.count, dtype=self.dtype, device=self.p.device)

    def _randn(self, *rows: int) -> Tensor:
        return torch.randn(*rows, self.count, dtype=self.dtype, device=self.p.device)
