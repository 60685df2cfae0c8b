"""Adam as Keras computes it: with one step counter for all parameters, new and old."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit import Varying
from pggan_plugins.optimizers.adam import Adam


class SharedAdam(Adam):
    """Adam with one counter for bias correction, which counts every step and does not restart for new layers.

    For one optimizer over both networks (`updates.JointBatch.optimizer`): an iteration then counts two steps, one for
    each network, and layers that are added late get next to no bias correction. Where `train.growth` forgets the
    moments of all parameters at once, nothing is left to count from, and the counter begins again. Parameters without a
    gradient do not change. The defaults are those of the tutorial that `experiments/tutorial_mnist.gin` reproduces.

    Args:
        lr, beta1, beta2, eps: The parameters of `Adam`; eps is added to the root of the uncorrected second moment, as
            in Keras.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        lr: Varying[float] = 2e-4,
        beta1: Varying[float] = 0.5,
        beta2: Varying[float] = 0.999,
        eps: float = 1e-7,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps)

    def make_optimizer(
        self, params: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]
    ) -> torch.optim.Optimizer:
        """Return an Adam with one counter."""
        return SharedCounterAdam(params, rate, betas, self.eps)


class SharedCounterAdam(torch.optim.Optimizer):
    """The torch optimizer of `SharedAdam`.

    At step t, counted over all steps, whichever parameters they moved (Kingma and Ba 2015, end of section 2):
    `lr_t = lr * sqrt(1 - beta2^t) / (1 - beta1^t)`, `p -= lr_t * m / (sqrt(v) + eps)`.

    Each parameter's state holds the counter besides its moments, all with the same value: so it is carried over with
    any parameter to the optimizer of a grown network, and saved in a checkpoint.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        # New parameters have no counter yet: the highest one is right.
        step = 1 + max((state["step"] for state in self.state.values()), default=0)
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update_params(params, group, step)

        # Those that were not updated count the step, too.
        for state in self.state.values():
            state["step"] = step
        return loss

    def _update_params(self, params: list[nn.Parameter], group: dict[str, Any], step: int) -> None:
        beta1, beta2 = group["betas"]
        lr = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)

        # Update the moments of all parameters together.
        states = [self._get_state(param) for param in params]
        first: list[Tensor] = [state["exp_avg"] for state in states]
        second: list[Tensor] = [state["exp_avg_sq"] for state in states]
        grads: list[Tensor] = [param.grad for param in params if param.grad is not None]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)

        # Move the parameters by the ratio of the moments.
        scale = torch._foreach_sqrt(second)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(list[Tensor](params), first, scale, -lr)

    def _get_state(self, param: nn.Parameter) -> dict[str, Any]:
        """Return the state of a parameter, after creating it for a new one."""
        state: dict[str, Any] = self.state[param]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        return state
