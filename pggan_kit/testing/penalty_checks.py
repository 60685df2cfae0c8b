"""Requirements that penalties of the discriminator and of the generator share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from pggan_kit.schedule import Varying
from pggan_kit.testing.support import measure_difference, require

MEAN_TOLERANCE = 1e-6
"""Tolerance between the penalty of a batch and one that has to equal it, since penalties are means."""


def require_finite_number(value: Tensor, where: str) -> None:
    """Fail where a penalty is no finite 0-dim tensor; `where` says of which batch it is."""
    require(isinstance(value, Tensor) and value.dim() == 0, f"the penalty {where} is no 0-dim tensor")
    require(bool(value.isfinite()), f"the penalty {where} is not finite")


def require_gradients_to_weights(value: Tensor, net: nn.Module, owner: str) -> None:
    """Fail where a penalty has no gradient to any weight of the network that is called `owner` in messages."""
    require(value.requires_grad, f"the penalty does not depend on {owner}'s weights: nothing is penalised")
    value.backward()
    reached = [param.grad is not None and bool(param.grad.abs().max() > 0) for param in net.parameters()]
    require(any(reached), f"no gradient flows from the penalty to {owner}'s weights: was something detached?")


def require_unweighted(make: Callable[[], Any], measure: Callable[[Any], Tensor], multiplier: str) -> None:
    """Fail where a penalty multiplies its value by its `weight` or `every`.

    Args:
        make: Makes a new penalty.
        measure: Returns a penalty's value for a fixed batch.
        multiplier: What multiplies by them, for the message.
    """
    penalty = make()
    for weight in list_numbers(penalty.weight):
        require(weight >= 0, f"weight is {weight}, below 0")
    every = penalty.every
    require(isinstance(every, Integral) and int(every) >= 1, f"every is {every!r}, no number from 1 up")

    # With another weight, the value must stay the same. A weight that cannot be set cannot be compared.
    other = make()
    try:
        other.weight = 1 + 2 * sum(list_numbers(penalty.weight))
        other.every = 2 * every
    except AttributeError:
        return
    require(
        measure_difference(measure(other), measure(penalty)) == 0,
        f"the penalty's value depends on its weight or every: {multiplier} multiplies by them, so they count twice",
    )


def list_numbers(weight: Varying[float]) -> list[float]:
    """Return the numbers in a weight that may be per stage; a curve has none."""
    if isinstance(weight, Mapping):
        return [number for each in weight.values() for number in list_numbers(each)]
    return [float(weight)] if isinstance(weight, Real) else []


def require_finite_where_flat(value: Tensor, net: nn.Module, name: str) -> None:
    """Fail where the penalty of a flat network, or its gradient, is not finite; `name` is the network in messages."""
    require(bool(value.isfinite()), f"the penalty of a flat {name} is not finite")
    if value.requires_grad:
        value.backward()
    for param in net.parameters():
        require(
            param.grad is None or bool(param.grad.isfinite().all()),
            f"the gradient of the penalty is not finite where the {name} is flat: a norm has no derivative at 0 "
            "(torch.linalg.vector_norm takes 0 there, sqrt does not)",
        )
