"""Compare a recorded step with the eager one, and tell recordings apart by what they were made of."""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.1}
"""Tolerance by the type that networks compute in: the root mean square of a tensor's differences over that of its
values (or over a 20th of that of all gradients, where the tensor's own are smaller)."""

NOISE = 3.0
"""Factor on the rounding error of the eager result, which is allowed besides: in low precision two right results differ
by about as much as each differs from the exact one."""

DEPTH = 3
"""Maximum depth of components within components that `collect_settings` looks into: a loss's inner loss, and its
penalties."""

Values = Mapping[str, Tensor]

Result = tuple[Values, Values]
"""Terms and kept tensors, and gradients, each by name."""


def describe_difference(eager: Result, compiled: Result, tolerance: float, exact: Result | None = None) -> str | None:
    """Return where two results differ by more than rounding, in words; None where they do not.

    Args:
        eager: The result that is right.
        compiled: The result in question.
        tolerance: See `TOLERANCE`.
        exact: The eager result in higher precision; see `NOISE`.
    """
    if eager[1].keys() != compiled[1].keys():
        names = sorted(eager[1].keys() ^ compiled[1].keys())
        return f"compiled, {', '.join(names)} get other gradients"

    prefixes = ("", "the gradient of ")
    for prefix, wanted, actual, true in zip(prefixes, eager, compiled, exact or eager, strict=True):
        size_of_all = compute_rms(wanted.values())
        for name, value in wanted.items():
            error = compute_rms([actual[name].double() - value.double()])
            rounding = compute_rms([true[name].double() - value.double()])
            allowed = tolerance * max(compute_rms([value]), size_of_all / 20) + NOISE * rounding
            # The comparison is false where something is NaN.
            if not (error <= allowed or _both_fail(value, actual[name])):
                return f"compiled, {prefix}{name} differs by {error:.2g}, where rounding explains {allowed:.2g}"
    return None


def compute_rms(tensors: Iterable[Tensor]) -> float:
    """Return the root mean square over the elements of all tensors; waits for the device."""
    flat = [tensor.detach().double().flatten() for tensor in tensors]
    if not flat:
        return 0.0
    return float(torch.cat(flat).square().mean().sqrt())


def _both_fail(one: Tensor, other: Tensor) -> bool:
    """Return whether both are NaN or infinite somewhere: the guard reports it, and there is nothing to compare."""
    return not bool(one.isfinite().all()) and not bool(other.isfinite().all())


def collect_settings(value: Any, seen: tuple[int, ...] = ()) -> Hashable:
    """Return all plain values (numbers, strings, None) in the attributes of components, and of the components in them.

    Args:
        value: A component, a plain value, or a collection of such.
        seen: The ids of the components that this one lies in.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value

    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return tuple(collect_settings(item, seen) for item in value)

    # What is left is an object: only the attributes of components hold settings.
    attributes = getattr(value, "__dict__", None)
    if attributes is None or id(value) in seen or len(seen) == DEPTH:
        return None
    if isinstance(value, (type, types.ModuleType, types.FunctionType, nn.Module)):
        return None
    inside = (*seen, id(value))
    return tuple((name, collect_settings(attribute, inside)) for name, attribute in attributes.items())


def identify(value: Any) -> Hashable:
    """Return what is equal for the same object, or for the same number or text; tuples and lists go by their items."""
    if isinstance(value, (tuple, list)):
        return tuple(identify(item) for item in value)
    if isinstance(value, (bool, int, float, str)):
        return value
    return id(value)


def take_apart(function: Any) -> tuple[Hashable, tuple[Any, ...]]:
    """Return a function's code, and the values bound in it: those of a partial, of a method or of a closure."""
    if isinstance(function, functools.partial):
        code, values = take_apart(function.func)
        return code, (*values, *function.args, *function.keywords.values())
    if isinstance(function, types.MethodType):
        code, values = take_apart(function.__func__)
        return code, (function.__self__, *values)
    if isinstance(function, types.FunctionType):
        cells = function.__closure__ or ()
        return function.__code__, tuple(cell.cell_contents for cell in cells)
    kind: Any = type(function)
    return kind, (function,)


def name_components(function: Any) -> str:
    """Return the classes of what is bound in a function: `WGANGP, GradientPenalty, Drift`."""
    _, values = take_apart(function)
    names: list[str] = []
    for value in values:
        components = value if isinstance(value, (tuple, list)) else [value]
        names += [type(component).__name__ for component in components]
    return ", ".join(names)
