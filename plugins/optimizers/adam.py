"""Adam (Kingma and Ba 2015), with the paper's defaults."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pggan_kit import PerStage, Run, Stage, TrainState, at_height, check_above, check_at_least, check_between, hookimpl


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

    Karras et al. 2020 ("Analyzing and improving the image quality of StyleGAN", appendix B) adapt Adam to a lazy term
    of interval k: with c = k / (k + 1) they take lr * c, beta1^c and beta2^c. `lazy_interval` does so. There the term
    is a step of its own, the (k + 1)-th after k steps of the main loss. The updates here add it to the loss in every
    k-th step and take no more steps for it, so what this compensates for does not arise: set it where you want
    StyleGAN2's numbers.

    Args:
        lr: learning rate, above 0; may be per stage.
        beta1, beta2: decay of the moments, in [0, 1).
        eps: above 0.
        decay_images: over the run's last so many images the learning rate falls linearly; 0 keeps it.
        decay_to: the share of it that is left at the end, in [0, 1].
        lazy_interval: k, the `every` of a lazy penalty, at least 1; None leaves lr and betas as they are.

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
        lazy_interval: int | None = None,
    ) -> None:
        check_above("lr", lr, 0)
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            check_between(name, beta, 0, 1, high_included=False)
        check_above("eps", eps, 0)
        check_at_least("decay_images", decay_images, 0)
        check_between("decay_to", decay_to, 0, 1)
        check_at_least("lazy_interval", lazy_interval, 1, instead="None")
        share = 1.0 if lazy_interval is None else lazy_interval / (lazy_interval + 1)
        self.lr = lr
        self.betas = (beta1**share, beta2**share)
        self.eps = eps
        self.decay_images = decay_images
        self.decay_to = decay_to
        self._lazy_share = share
        self._share = 1.0
        # Weak: those of stages that are over hold all of their gradients and moments.
        self._built: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new Adam at this stage's learning rate; one fused kernel for all parameters."""
        built = torch.optim.Adam(params, self._rate(stage), self.betas, self.eps, fused=True)
        built.register_step_pre_hook(lay_out_gradients)
        self._built.add(built)
        return built

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the learning rate for where the clock stands.

        The first stage's optimizers were built before any hook, at the rate at which an earlier run with this object
        ended: the rate is set here whatever was set before.
        """
        if self.decay_images > 0:
            self._set_rate(run, stage, state)

    @hookimpl
    def after_step(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Set the next step's learning rate."""
        # The last step may go past the schedule's end, with no images left and no decay asked for.
        if self.decay_images > 0 and run.schedule.total - state.images < self.decay_images:
            self._set_rate(run, stage, state)

    def _set_rate(self, run: Run, stage: Stage, state: TrainState) -> None:
        left = min(max(0, run.schedule.total - state.images), self.decay_images)
        self._share = self.decay_to + (1 - self.decay_to) * left / self.decay_images
        for optimizer in self._built:
            for group in optimizer.param_groups:
                group["lr"] = self._rate(stage)

    def _rate(self, stage: Stage) -> float:
        """Return the learning rate of a stage, as far as it has fallen."""
        lr: float = at_height(self.lr, stage.height)
        return lr * self._lazy_share * self._share
