"""An optimizer of your own: here RMSprop, with a learning rate that may be per stage or a curve."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from pggan_kit import (
    Component,
    Position,
    Stage,
    Varying,
    check_above,
    check_at_least,
    check_between,
    constant_at,
    follow_clock,
    hookimpl,
    is_moving,
    value_at,
)


class Mine:
    """RMSprop with a learning rate that may move.

    Args:
        lr: Learning rate, above 0; may be per stage, keyed by image height, or a curve.
        alpha: Decay of the average of squared gradients at each step, in [0, 1).

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, lr: Varying[float] = 1e-3, alpha: float = 0.99) -> None:
        check_above("lr", lr, 0)
        check_between("alpha", alpha, 0, 1, high_included=False)
        self.lr = lr
        self.alpha = alpha

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        """Return a new optimizer for a stage; the core carries over the state of parameters that stay."""
        lr = constant_at(self.lr, stage, instead=0.0)
        optimizer = torch.optim.RMSprop(params, lr=lr, alpha=self.alpha)
        # The core sets what moves before each step; it is not known here.
        if is_moving(self.lr):
            follow_clock(optimizer, self.settings_at)
        return optimizer

    def settings_at(self, position: Position) -> Mapping[str, float]:
        """Return the learning rate at a place on the clock."""
        lr = value_at(self.lr, position)
        check_at_least("lr", lr, 0)
        return {"lr": lr}


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@optimizers.Mine()`."""
    return [Component("optimizers", "Mine", Mine)]
