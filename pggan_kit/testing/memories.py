"""Read what a component remembers, for comparisons: its numbers, texts, tensors and random generators."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.training.attributes import open_attributes

LEFT_OUT = "..."
"""What stands for everything else, such as files, clocks, functions, and objects of others."""


def read_memory(component: object) -> dict[str, Any]:
    """Return what a component remembers, by attribute, as data that can be compared.

    Objects of its own module, and namespaces, are dicts of what they hold.
    """
    return _read_attributes(component, type(component).__module__, frozenset())


def _read_attributes(thing: object, module: str, holders: frozenset[int]) -> dict[str, Any]:
    inside = holders | {id(thing)}
    attributes = open_attributes(thing) or {}
    return {name: _read(value, module, inside) for name, value in attributes.items()}


def _read(value: Any, module: str, holders: frozenset[int]) -> Any:
    """Return a value as data; a value that holds itself is left out where it occurs again."""
    if isinstance(value, float) and value != value:
        return "nan"  # which equals itself
    if value is None or isinstance(value, (bool, int, float, str, bytes, Tensor)):
        return value
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
    is_own = type(value).__module__ == module and not isinstance(value, type)
    if is_own or isinstance(value, SimpleNamespace):
        return _read_attributes(value, module, holders)
    return LEFT_OUT


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
