"""An optimizer of your own: here RMSprop, with a learning rate that may be per stage."""

from collections.abc import Iterable

import torch
from torch import nn

from pggan_kit import Component, PerStage, Stage, at_height, check_above, check_between, hookimpl


class Mine:
    """RMSprop with a learning rate for each stage.

    Args:
        lr: Learning rate, above 0; may be per stage, keyed by image height.
        alpha: Decay of the average of squared gradients at each step, in [0, 1).

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, lr: PerStage[float] = 1e-3, alpha: float = 0.99) -> None:
        check_above("lr", lr, 0)
        check_between("alpha", alpha, 0, 1, high_included=False)
        self.lr = lr
        self.alpha = alpha

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Return a new optimizer for a stage; the core carries over the state of parameters that stay."""
        lr: float = at_height(self.lr, stage.height)
        return torch.optim.RMSprop(params, lr=lr, alpha=self.alpha)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@optimizers.Mine()`."""
    return [Component("optimizers", "Mine", Mine)]
