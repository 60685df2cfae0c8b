"""The parameters of a search: gin names with ranges, and the bindings that values of them make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from pggan_kit.errors import SettingError, check_choice

NUMBERS = ("uniform", "log", "integer")
"""Kinds of ranges from one number to another."""

KINDS = (*NUMBERS, "choice")
"""Kinds of ranges."""

Value = float | int | str
"""Value of a parameter; of a choice it is gin text."""


@dataclass(frozen=True)
class Range:
    """The values that a parameter may have.

    Attributes:
        kind: One of `KINDS`.
        low, high: Smallest and largest number; of a choice 0.
        choices: Texts of a choice, as gin has them after the equals sign; else empty.
    """

    kind: str
    low: float | int = 0
    high: float | int = 0
    choices: tuple[str, ...] = ()

    @property
    def ends(self) -> list[Value]:
        """The values that stand for all: both ends, or each choice."""
        if self.kind == "choice":
            return list(self.choices)
        return [self.low, self.high]

    def describe(self) -> str:
        """Return the range for people."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        return f"{self.kind} from {self.low!r} to {self.high!r}"

    def record(self) -> list[Any]:
        """Return the range as a file holds it, and `read_range` reads it."""
        if self.kind == "choice":
            return [self.kind, list(self.choices)]
        return [self.kind, self.low, self.high]


def read_range(name: str, written: object) -> Range:
    """Return the range of a parameter as a config writes it: `('log', 1e-4, 1e-2)` or `('choice', [8, 16])`.

    Args:
        name: Gin name of the parameter.
        written: What stands in the config.

    Raises:
        SettingError: It is no such range, or has fewer than two values.
    """
    if not isinstance(written, list | tuple) or not written:
        raise SettingError("parameters", f"must give {name} a range such as ('log', 1e-4, 1e-2), not {written!r}")

    # The kind says how what follows it is read.
    kind, *rest = written
    try:
        check_choice("parameters", kind, KINDS)
    except SettingError as error:
        raise SettingError("parameters", f"gives {name} a range whose kind {error.complaint}") from None
    if kind == "choice":
        return _read_choices(name, rest)
    return _read_numbers(name, kind, rest)


def _read_numbers(name: str, kind: str, ends: Sequence[object]) -> Range:
    wanted = "two whole numbers" if kind == "integer" else "two finite numbers"
    if len(ends) != 2 or not all(_is_number(end, kind) for end in ends):
        raise SettingError("parameters", f"must give {name} {wanted} after {kind!r}, not {list(ends)}")

    # A range with something in it.
    low: Any = ends[0]
    high: Any = ends[1]
    if low >= high:
        raise SettingError("parameters", f"gives {name} an empty range: {low} is not below {high}")
    if kind == "log" and low <= 0:
        raise SettingError(
            "parameters", f"gives {name} a logarithmic range from {low}: it must begin above 0, or be 'uniform'"
        )
    if kind != "integer":
        low = float(low)
        high = float(high)
    return Range(kind, low, high)


def _is_number(value: object, kind: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) if kind == "integer" else math.isfinite(value)


def _read_choices(name: str, rest: Sequence[object]) -> Range:
    if len(rest) != 1 or not isinstance(rest[0], list | tuple):
        raise SettingError("parameters", f"must give {name} one list after 'choice', not {list(rest)}")
    # A text is gin, as in a binding: '@losses.Hinge()', or "'half'" for a string.
    texts = tuple(value if isinstance(value, str) else repr(value) for value in rest[0])
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise SettingError(
            "parameters", f"must give {name} at least two choices, each once, not {list(rest[0])}: bind a single one"
        )
    return Range("choice", choices=texts)


def read_space(parameters: Mapping[str, object]) -> dict[str, Range]:
    """Return the ranges of parameters, by their gin names.

    Raises:
        SettingError: There are none, or one is wrong.
    """
    if not parameters:
        raise SettingError("parameters", "must name at least one parameter, as {'optimizers.Adam.lr': ('log', ...)}")
    for name in parameters:
        if not isinstance(name, str) or not name.strip() or "=" in name:
            raise SettingError("parameters", f"must have gin names such as 'optimizers.Adam.lr', not {name!r}")
    return {name: read_range(name, written) for name, written in parameters.items()}


def bind_values(space: Mapping[str, Range], values: Mapping[str, Value]) -> list[str]:
    """Return the bindings of values, in the order of the space."""
    bindings = []
    for name, own_range in space.items():
        value = values[name]
        text = value if own_range.kind == "choice" else repr(value)
        bindings.append(f"{name} = {text}")
    return bindings


def list_corners(space: Mapping[str, Range]) -> list[list[str]]:
    """Return bindings that try each end of each range, the others at their first values."""
    first = {name: own_range.ends[0] for name, own_range in space.items()}
    corners = [bind_values(space, first)]
    for name, own_range in space.items():
        corners += [bind_values(space, {**first, name: end}) for end in own_range.ends[1:]]
    return corners
