"""Leave out of checkpoints what optimizers keep and do not read.

Adam with beta1 = 0 keeps a first moment, which is the last gradient, and replaces it in its next step before it is
read. It is a quarter of what the paper's recipe has to save.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)

LEFT_OUT = "left_out"
"""Key of the names that were left out, beside `state` and `param_groups`."""


def save_without(optimizer: OptimizerT, *names: str) -> OptimizerT:
    """Leave tensors of an optimizer's state out of checkpoints, and return the optimizer.

    Args:
        optimizer: The optimizer, as the `build` of a component returns it.
        names: Names in the state of each parameter, as `'exp_avg'`, of tensors of the parameter's shape. The optimizer
            must not read them before it writes them: a resumed run begins with zeros.
    """
    optimizer.names_left_out = names  # type: ignore[attr-defined]
    return optimizer


def leave_out(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's `state_dict` without what `save_without` names."""
    names: tuple[str, ...] = getattr(optimizer, "names_left_out", ())
    if not names:
        return saved
    # The dicts in it are those that the optimizer works with.
    state = {
        number: {name: value for name, value in kept.items() if name not in names}
        for number, kept in saved["state"].items()
    }
    return {**saved, "state": state, LEFT_OUT: list(names)}


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load what `leave_out` returned.

    Raises:
        ValueError: It is the state of other parameters.
    """
    names = saved.get(LEFT_OUT, ())
    optimizer.load_state_dict({key: value for key, value in saved.items() if key != LEFT_OUT})
    for param, kept in optimizer.state.items():
        for name in names:
            kept[name] = torch.zeros_like(param)
