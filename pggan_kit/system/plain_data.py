"""Check that a value is plain data, which `torch.load(weights_only=True)` gives back as it was saved."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

PLAIN_TYPES = (type(None), bool, int, float, str)
"""Types of numbers and texts. Classes that inherit from them, such as NumPy's, are others and cannot be loaded."""

TENSOR_TYPES = (Tensor, nn.Parameter)

PLAIN_DATA = "tensors, numbers, strings, truth values, None, and lists, tuples and dicts of those"
"""Words for all that may be saved, for messages."""


def describe_foreign_value(value: Any, path: str) -> str | None:
    """Return a phrase that names the first value that is no plain data, `path['best'][0] is a PosixPath`; or None.

    Args:
        value: The value.
        path: The name of the value, with which the phrase begins.
    """
    kind = type(value)
    if kind in PLAIN_TYPES or kind in TENSOR_TYPES:
        return None
    if kind in (list, tuple):
        return _describe_first(enumerate(value), path)
    if kind in (dict, OrderedDict):
        for key in value:
            if not _is_plain_key(key):
                return f"{path} has the key {key!r}, which is a {_name_type(type(key))}"
        return _describe_first(value.items(), path)
    return f"{path} is a {_name_type(kind)}"


def _describe_first(items: Iterable[tuple[Any, Any]], path: str) -> str | None:
    for key, inner in items:
        phrase = describe_foreign_value(inner, f"{path}[{key!r}]")
        if phrase is not None:
            return phrase
    return None


def _is_plain_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(_is_plain_key(item) for item in key)
    return type(key) in PLAIN_TYPES


def _name_type(kind: type) -> str:
    """Return a type's name with the package that it comes from, `numpy.float64`."""
    package = kind.__module__.partition(".")[0]
    if package == "builtins":
        return kind.__qualname__
    return f"{package}.{kind.__qualname__}"
