"""Adam (Kingma and Ba 2015), with the paper's defaults."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pggan_kit import Run, hookimpl
from pggan_kit.schedule import PerStage, Stage, at_height
from pggan_kit.state import TrainState


def lay_out_gradients(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give each gradient the strides of its parameter: the fused kernel walks through memory and looks at no strides.

    Those of a backward pass have them already; those that somebody else put there may not.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            grad = param.grad
            if grad is not None and grad.stride() != param.stride():
                param.grad = torch.empty_like(param, dtype=grad.dtype).copy_(grad)


class Adam:
    """torch's Adam, with a learning rate that may fall towards the end of the run.

    Args:
        lr: learning rate, above 0; may be per stage.
        beta1, beta2: decay of the moments, in [0, 1).
        eps: above 0.
        decay_images: over the run's last so many images the learning rate falls linearly; 0 keeps it.
        decay_to: the share of it that is left at the end, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        lr: PerStage[float] = 1e-3,
        beta1: float = 0.0,
        beta2: float = 0.99,
        eps: float = 1e-8,
        decay_images: int = 0,
        decay_to: float = 0.1,
    ) -> None:
        for value in lr.values() if isinstance(lr, Mapping) else (lr,):
            if not value > 0:
                raise ValueError(f"lr must be above 0, and is {value}")
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must be in [0, 1), and is {beta}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, and is {eps}")
        if decay_images < 0:
            raise ValueError(f"decay_images must not be negative, and is {decay_images}")
        if not 0 <= decay_to <= 1:
            raise ValueError(f"decay_to must be in [0, 1], and is {decay_to}")
        self.lr = lr
        self.betas = (beta1, beta2)
        self.eps = eps
        self.decay_images = decay_images
        self.decay_to = decay_to
        self._share = 1.0
        # Weak: those of stages that are over hold all of their gradients and moments.
        self._built: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new Adam at this stage's learning rate; one fused kernel for all parameters."""
        lr = at_height(self.lr, stage.height) * self._share
        built = torch.optim.Adam(params, lr, self.betas, self.eps, fused=True)
        built.register_step_pre_hook(lay_out_gradients)
        self._built.add(built)
        return built

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the learning rate for where the clock stands."""
        self._follow_clock(run, stage, state)

    @hookimpl
    def after_step(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the next step's learning rate."""
        self._follow_clock(run, stage, state)

    def _follow_clock(self, run: Run, stage: Stage, state: TrainState) -> None:
        left = run.schedule.total - state.images
        if self.decay_images == 0 or left >= self.decay_images:
            return
        self._share = self.decay_to + (1 - self.decay_to) * max(0, left) / self.decay_images
        for optimizer in self._built:
            for group in optimizer.param_groups:
                group["lr"] = at_height(self.lr, stage.height) * self._share
