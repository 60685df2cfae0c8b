"""Adam (Kingma and Ba 2015), with the paper's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pggan_kit import (
    Position,
    Stage,
    Varying,
    check_above,
    check_at_least,
    check_between,
    check_finite,
    constant_at,
    follow_clock,
    is_moving,
    save_without,
    value_at,
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
    """The Adam of torch, whose learning rate and betas may move with the clock.

    Karras et al. 2020 ("Analyzing and improving the image quality of StyleGAN", appendix B) adapt Adam to a lazy term
    of interval k: with c = k / (k + 1) they take lr * c, beta1^c and beta2^c. `lazy_interval` does the same. There the
    term is a step of its own, the (k + 1)-th after k steps of the main loss. The updates here add it to the loss in
    every k-th step and take no step more, so nothing needs that correction: set `lazy_interval` to reproduce the
    numbers of StyleGAN2.

    Args:
        lr: The learning rate, above 0; may be per stage or a curve, whose values may also be 0.
        beta1, beta2: The decay of the moments, in [0, 1); may be per stage or curves. With beta1 = 0 checkpoints are
            smaller by a tensor for each weight, as no step reads the first moment.
        eps: The number added to the root of the second moment, above 0.
        lazy_interval: k, the `every` of a lazy penalty, at least 1; None leaves lr and betas as they are.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        lr: Varying[float] = 1e-3,
        beta1: Varying[float] = 0.0,
        beta2: Varying[float] = 0.99,
        eps: float = 1e-8,
        lazy_interval: int | None = None,
    ) -> None:
        check_above("lr", lr, 0)
        check_between("beta1", beta1, 0, 1, high_included=False)
        check_between("beta2", beta2, 0, 1, high_included=False)
        check_above("eps", eps, 0)
        check_at_least("lazy_interval", lazy_interval, 1, instead="None", whole=True)

        # The correction for a lazy term; 1 corrects nothing.
        lazy_share = 1.0
        if lazy_interval is not None:
            lazy_share = lazy_interval / (lazy_interval + 1)
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self._lazy_share = lazy_share

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Build an optimizer for this stage; the core sets what moves before each step."""
        rate = constant_at(self.lr, stage, instead=0.0) * self._lazy_share
        betas = (
            constant_at(self.beta1, stage, instead=0.0) ** self._lazy_share,
            constant_at(self.beta2, stage, instead=0.0) ** self._lazy_share,
        )
        optimizer = self.make_optimizer(params, rate, betas)
        if any(is_moving(setting) for setting in (self.lr, self.beta1, self.beta2)):
            follow_clock(optimizer, self.settings_at)
        # Then the first moment is the last gradient, which no step reads.
        if self.beta1 == 0:
            save_without(optimizer, "exp_avg")
        return optimizer

    def make_optimizer(
        self, params: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]
    ) -> torch.optim.Optimizer:
        """Return an Adam with one fused kernel for all parameters."""
        optimizer = torch.optim.Adam(params, rate, betas, self.eps, fused=True)
        optimizer.register_step_pre_hook(lay_out_gradients)
        return optimizer

    def settings_at(self, position: Position) -> Mapping[str, Any]:
        """Return rate and betas at a place on the clock.

        Raises:
            SettingError: A value of a curve is out of range.
        """
        rate = value_at(self.lr, position, "lr")
        check_at_least("lr", rate, 0)
        check_finite("lr", rate)
        betas = []
        for name in ("beta1", "beta2"):
            beta = value_at(getattr(self, name), position, name)
            check_between(name, beta, 0, 1, high_included=False)
            betas.append(beta**self._lazy_share)
        return {"lr": rate * self._lazy_share, "betas": tuple(betas)}
