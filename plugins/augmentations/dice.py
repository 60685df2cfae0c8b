"""Random numbers of which each sample has its own, and which are 0 for those samples that are not struck."""

from __future__ import annotations

import torch
from torch import Tensor


class Dice:
    """Draws for one batch from torch's default generator: (N,) each, of which about a share p is not 0.

    Args:
        count: N.
        p: 0-dim, the probability that a draw strikes a sample; nothing here waits for its value.
        dtype: of what is drawn.
    """

    def __init__(self, count: int, p: Tensor, dtype: torch.dtype) -> None:
        self.count = count
        self.p = p
        self.dtype = dtype

    def strike(self, values: Tensor, p: Tensor | None = None) -> Tensor:
        """Return the values (..., N) of the samples that are struck, 0 elsewhere: one coin for each sample."""
        return torch.where(self._rand() < (self.p if p is None else p), values, torch.zeros_like(values))

    def whole(self, count: int) -> Tensor:
        """0, 1, ..., count - 1, all as likely."""
        return self.strike((self._rand() * count).floor())

    def uniform(self, most: float, p: Tensor | None = None) -> Tensor:
        """Uniform between -most and most; with another probability than p if one is given."""
        return self.strike((2 * self._rand() - 1) * most, p)

    def normal(self, deviation: float) -> Tensor:
        """N(0, deviation^2)."""
        return self.strike(self._randn() * deviation)

    def draw_uniform_pair(self, most: float) -> Tensor:
        """Return (2, N): as `uniform`, both numbers of a sample struck or neither."""
        return self.strike((2 * self._rand(2) - 1) * most)

    def draw_normal_pair(self, deviation: float) -> Tensor:
        """Return (2, N): as `normal`, both numbers of a sample struck or neither."""
        return self.strike(self._randn(2) * deviation)

    def _rand(self, *rows: int) -> Tensor:
        return torch.rand(*rows, self.count, dtype=self.dtype, device=self.p.device)

    def _randn(self, *rows: int) -> Tensor:
        return torch.randn(*rows, self.count, dtype=self.dtype, device=self.p.device)
