"""Set the learning rate of a group of parameters, which a growth policy may slow down."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

Group = MutableMapping[str, Any]
"""A parameter group of a torch optimizer."""


def set_rate(group: Group, rate: float) -> None:
    """Set the learning rate of a group, before the factor of its pieces.

    Optimizers whose rate moves set it here and not in `group["lr"]`, so that a growth policy's factor stays.
    """
    group["lr"] = rate
    if "learning_factor" in group:
        group["rate"] = rate
        group["lr"] = rate * group["learning_factor"]


def set_learning_factor(group: Group, factor: float) -> None:
    """Set how fast the pieces of a group learn, as a factor on its learning rate."""
    group.setdefault("rate", group["lr"])
    group["learning_factor"] = factor
    group["lr"] = group["rate"] * factor
