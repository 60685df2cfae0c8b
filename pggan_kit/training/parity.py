"""Whether a recording of a step may stand for the step: what differs in its results, and what it was made of."""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.1}
"""By what networks compute in: the root mean square of a tensor's differences over that of its values (or a 20th of
that of all gradients, where the tensor's own are smaller)."""

NOISE = 3.0
"""In low precision two right results differ by about as much as each differs from the exact one; so many times that is
allowed besides."""

Values = Mapping[str, Tensor]

DEPTH = 3
"""Parts within parts that `settings_of` looks into: a loss's inner loss, and its penalties."""


Result = tuple[Values, Values]
"""Terms and kept tensors, and gradients, each by name."""


def differing(eager: Result, compiled: Result, tolerance: float, exact: Result | None = None) -> str | None:
    """Where two results differ by more than rounding, in words; None where they do not.

    Args:
        eager, compiled: the two.
        tolerance: see `TOLERANCE`.
        exact: what eager would have given in higher precision; see `NOISE`.
    """
    if eager[1].keys() != compiled[1].keys():
        return f"compiled, {', '.join(sorted(eager[1].keys() ^ compiled[1].keys()))} get other gradients"
    for what, wanted, found, true in zip(("", "the gradient of "), eager, compiled, exact or eager, strict=True):
        size = root_mean_square(wanted.values())
        for name, value in wanted.items():
            error = root_mean_square([found[name].double() - value.double()])
            noise = root_mean_square([true[name].double() - value.double()])
            allowed = tolerance * max(root_mean_square([value]), size / 20) + NOISE * noise
            if not (error <= allowed or _alike_where_not_finite(value, found[name])):
                return f"compiled, {what}{name} differs by {error:.2g}, where rounding explains {allowed:.2g}"
    return None


def root_mean_square(tensors: Iterable[Tensor]) -> float:
    """Over the elements of all tensors; waits for the device."""
    flat = [tensor.detach().double().flatten() for tensor in tensors]
    return float(torch.cat(flat).square().mean().sqrt()) if flat else 0.0


def _alike_where_not_finite(one: Tensor, other: Tensor) -> bool:
    """Numbers that died: the guard tells, and there is nothing to compare."""
    return not bool(one.isfinite().all()) and not bool(other.isfinite().all())


def settings_of(parts: Any, seen: tuple[int, ...] = ()) -> Hashable:
    """All plain values (numbers, strings, None) in the attributes of parts and of the parts in them."""
    if parts is None or isinstance(parts, (bool, int, float, str)):
        return parts
    if isinstance(parts, Mapping):
        parts = tuple(parts.items())
    if isinstance(parts, (tuple, list, set, frozenset)):
        return tuple(settings_of(part, seen) for part in parts)
    held = getattr(parts, "__dict__", None)
    if held is None or id(parts) in seen or len(seen) == DEPTH:
        return None
    if isinstance(parts, (type, types.ModuleType, types.FunctionType, nn.Module)):
        return None
    return tuple((name, settings_of(value, (*seen, id(parts)))) for name, value in held.items())


def identity(value: Any) -> Hashable:
    """Equal as long as it is the same object, or the same number or text; tuples and lists by their items."""
    if isinstance(value, (tuple, list)):
        return tuple(map(identity, value))
    return value if isinstance(value, (bool, int, float, str)) else id(value)


def made_of(terms: Any) -> tuple[Hashable, tuple[Any, ...]]:
    """A function's code, and the values bound in it: those of a partial, of a method or of a closure."""
    if isinstance(terms, functools.partial):
        code, values = made_of(terms.func)
        return code, (*values, *terms.args, *terms.keywords.values())
    if isinstance(terms, types.MethodType):
        code, values = made_of(terms.__func__)
        return code, (terms.__self__, *values)
    if isinstance(terms, types.FunctionType):
        return terms.__code__, tuple(cell.cell_contents for cell in terms.__closure__ or ())
    kind: Any = type(terms)
    return kind, (terms,)


def named_parts(terms: Any) -> str:
    """The classes of what is bound in a function: `WGANGP, GradientPenalty, Drift`."""
    named: list[str] = []
    for value in made_of(terms)[1]:
        named += [type(part).__name__ for part in (value if isinstance(value, (tuple, list)) else [value])]
    return ", ".join(named)
