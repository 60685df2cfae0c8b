"""Read what a component remembers, for comparisons: its numbers, texts, tensors and random generators."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.training.attributes import open_attributes
from pggan_kit.training.state_copy import are_identical

LEFT_OUT = "..."
"""What stands for everything else, such as files, clocks, functions, and objects of others."""


def read_memory(component: object) -> dict[str, Any]:
    """Return what a component remembers, by attribute, as data that can be compared.

    Objects of its own module, or of another one of its package, and namespaces are dicts of what they hold.
    """
    return _read_attributes(component, type(component).__module__, frozenset())


def read_class_memory(component: object) -> dict[str, Any]:
    """Return what the class of a component holds for all its objects, by `Class.attribute`, likewise.

    Classes that it inherits from are read too where they are of its module.
    """
    module = type(component).__module__
    memory = {}
    for cls in type(component).__mro__:
        if cls.__module__ == module:
            for name, value in vars(cls).items():
                if not (name.startswith("__") and name.endswith("__")):
                    memory[f"{cls.__name__}.{name}"] = _read(value, module, frozenset())
    return memory


def list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names under which two memories do not hold the same."""
    return [name for name in after if name not in before or not have_same(before[name], after[name])]


def keep_steady(memory: Any, other: Any) -> Any:
    """Return a memory without what differs in another one of an equal run, such as times, and paths of its folder."""
    if isinstance(memory, Mapping) and isinstance(other, Mapping) and memory.keys() == other.keys():
        return {key: keep_steady(value, other[key]) for key, value in memory.items()}
    if isinstance(memory, list) and isinstance(other, list) and len(memory) == len(other):
        return [keep_steady(value, others) for value, others in zip(memory, other, strict=True)]
    return memory if have_same(memory, other) else LEFT_OUT


def have_same(wanted: Any, other: Any) -> bool:
    """Return whether memories are equal, but for what is left out of the first one; NaN equals NaN."""
    if isinstance(wanted, str) and wanted == LEFT_OUT:
        return True
    if isinstance(wanted, Tensor) or isinstance(other, Tensor):
        return isinstance(wanted, Tensor) and isinstance(other, Tensor) and are_identical(wanted, other)
    if isinstance(wanted, Mapping) and isinstance(other, Mapping):
        return wanted.keys() == other.keys() and all(have_same(wanted[key], other[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(other, list):
        return len(wanted) == len(other) and all(map(have_same, wanted, other))
    return bool(wanted == other)


def _read_attributes(thing: object, module: str, holders: frozenset[int]) -> dict[str, Any]:
    inside = holders | {id(thing)}
    attributes = open_attributes(thing) or {}
    return {name: _read(value, module, inside) for name, value in attributes.items()}


def _read(value: Any, module: str, holders: frozenset[int]) -> Any:
    """Return a value as data; a value that holds itself is left out where it occurs again."""
    if isinstance(value, float) and value != value:
        return "nan"  # which equals itself
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()  # a later change of it is none of what was read
    if isinstance(value, (np.ndarray, np.generic)):
        return _read(value.tolist(), module, holders)
    drawn = _read_generator(value)
    if drawn is not None:
        return _read(drawn, module, holders)
    if id(value) in holders:
        return LEFT_OUT

    # What holds other values
    inside = holders | {id(value)}
    if isinstance(value, (list, tuple, deque)):
        return [_read(item, module, inside) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_read(item, module, inside)) for item in value)
    if isinstance(value, dict):
        return {key: _read(item, module, inside) for key, item in value.items()}
    is_own = _is_of_package(type(value).__module__, module) and not isinstance(value, type)
    if is_own or isinstance(value, SimpleNamespace):
        return _read_attributes(value, module, holders)
    return LEFT_OUT


def _is_of_package(module: str, own: str) -> bool:
    """Return whether a module is a component's own, or lies in the same package."""
    package = own.rpartition(".")[0]
    return module == own or (package != "" and f"{module}.".startswith(f"{package}."))


def _read_generator(value: Any) -> Any:
    """Return the state of a generator of random numbers, by which it knows how many were drawn; None for all else."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    return None
