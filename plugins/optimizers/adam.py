"""Adam (Kingma and Ba 2015), with the paper's defaults."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pggan_kit import (
    PerStage,
    Run,
    Stage,
    TrainState,
    at_height,
    check_above,
    check_at_least,
    check_between,
    hookimpl,
    set_rate,
)


def lay_out_gradients(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give each gradient the strides of its parameter: the fused kernel walks through memory and ignores strides.

    Gradients of a backward pass have them already; gradients set by other code may not.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            grad = param.grad
            if grad is not None and grad.stride() != param.stride():
                param.grad = torch.empty_like(param, dtype=grad.dtype).copy_(grad)


class Adam:
    """The Adam of torch, with a learning rate that may fall towards the end of the run.

    Karras et al. 2020 ("Analyzing and improving the image quality of StyleGAN", appendix B) adapt Adam to a lazy term
    of interval k: with c = k / (k + 1) they take lr * c, beta1^c and beta2^c. `lazy_interval` does the same. There the
    term is a step of its own, the (k + 1)-th after k steps of the main loss. The updates here add it to the loss in
    every k-th step and take no step more, so nothing needs that correction: set `lazy_interval` to reproduce the
    numbers of StyleGAN2.

    Args:
        lr: The learning rate, above 0; may be per stage.
        beta1, beta2: The decay of the moments, in [0, 1).
        eps: The number added to the root of the second moment, above 0.
        decay_images: The number of images at the end of the run over which the learning rate falls linearly; 0 keeps
            it.
        decay_to: The share of the learning rate that is left at the end, in [0, 1].
        lazy_interval: k, the `every` of a lazy penalty, at least 1; None leaves lr and betas as they are.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        lr: PerStage[float] = 1e-3,
        beta1: float = 0.0,
        beta2: float = 0.99,
        eps: float = 1e-8,
        decay_images: int = 0,
        decay_to: float = 0.1,
        lazy_interval: int | None = None,
    ) -> None:
        check_above("lr", lr, 0)
        check_between("beta1", beta1, 0, 1, high_included=False)
        check_between("beta2", beta2, 0, 1, high_included=False)
        check_above("eps", eps, 0)
        check_at_least("decay_images", decay_images, 0)
        check_between("decay_to", decay_to, 0, 1)
        check_at_least("lazy_interval", lazy_interval, 1, instead="None")

        # The correction for a lazy term; 1 corrects nothing.
        lazy_share = 1.0
        if lazy_interval is not None:
            lazy_share = lazy_interval / (lazy_interval + 1)
        self.lr = lr
        self.betas = (beta1**lazy_share, beta2**lazy_share)
        self.eps = eps
        self.decay_images = decay_images
        self.decay_to = decay_to
        self._lazy_share = lazy_share
        self._decay_share = 1.0

        # Weak: optimizers of earlier stages would keep all of their gradients and moments in memory.
        self._built: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Build an Adam at this stage's learning rate, with one fused kernel for all parameters."""
        optimizer = torch.optim.Adam(params, self._compute_rate(stage), self.betas, self.eps, fused=True)
        optimizer.register_step_pre_hook(lay_out_gradients)
        self._built.add(optimizer)
        return optimizer

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the learning rate for the clock's position.

        The first stage's optimizers were built before any hook, at the rate at which an earlier run with this object
        ended: the rate is set here whatever it was before.
        """
        if self.decay_images > 0:
            self._set_rate(run, stage, state)

    @hookimpl
    def after_step(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the next step's learning rate."""
        # Without a decay the rate stays, even after a last step past the schedule's end, where less than 0 is left.
        if self.decay_images > 0 and run.schedule.total - state.images < self.decay_images:
            self._set_rate(run, stage, state)

    def _set_rate(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the rate of all optimizers of the run to what the images left say."""
        left = min(max(0, run.schedule.total - state.images), self.decay_images)
        self._decay_share = self.decay_to + (1 - self.decay_to) * left / self.decay_images
        for optimizer in self._built:
            for group in optimizer.param_groups:
                set_rate(group, self._compute_rate(stage))

    def _compute_rate(self, stage: Stage) -> float:
        """Return the learning rate of a stage, as far as it has fallen."""
        lr: float = at_height(self.lr, stage.height)
        return lr * self._lazy_share * self._decay_share
