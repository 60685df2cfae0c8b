"""An optimizer of your own: here RMSprop, with a learning rate that may be per stage."""

from collections.abc import Iterable

import torch
from torch import nn

from pggan_kit import Component, PerStage, Stage, at_height, check_above, check_between, hookimpl


class Mine:
    """RMSprop.

    Args:
        lr: learning rate, above 0; may be per stage, keyed by image height.
        alpha: how slowly the average of squared gradients changes, in [0, 1).

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(self, lr: PerStage[float] = 1e-3, alpha: float = 0.99) -> None:
        check_above("lr", lr, 0)
        check_between("alpha", alpha, 0, 1, high_included=False)
        self.lr = lr
        self.alpha = alpha

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """A new optimizer for these parameters at this stage; state of parameters that stay is carried over."""
        lr: float = at_height(self.lr, stage.height)
        return torch.optim.RMSprop(params, lr=lr, alpha=self.alpha)


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@optimizers.Mine()`."""
    return [Component("optimizers", "Mine", Mine)]
