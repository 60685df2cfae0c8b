"""Adam (Kingma and Ba 2015), with the paper's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from pggan_kit.schedule import PerStage, Stage, at_height


class Adam:
    """torch's Adam.

    Args:
        lr: learning rate, above 0; may be per stage.
        beta1, beta2: decay of the moments, in [0, 1).
        eps: above 0.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self, lr: PerStage[float] = 1e-3, beta1: float = 0.0, beta2: float = 0.99, eps: float = 1e-8
    ) -> None:
        for value in lr.values() if isinstance(lr, Mapping) else (lr,):
            if not value > 0:
                raise ValueError(f"lr must be above 0, and is {value}")
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must be in [0, 1), and is {beta}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, and is {eps}")
        self.lr = lr
        self.betas = (beta1, beta2)
        self.eps = eps

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new Adam at this stage's learning rate; one fused kernel for all parameters."""
        return torch.optim.Adam(params, at_height(self.lr, stage.height), self.betas, self.eps, fused=True)
