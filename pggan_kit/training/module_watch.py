"""Notice when a network is no longer what a graph of it was captured from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from pggan_kit.growth.networks import MODULE_ATTRIBUTES
from pggan_kit.training.state_copy import PLAIN

PLAIN_SET = frozenset(PLAIN)

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
"""Those of `MODULE_ATTRIBUTES` that hold functions which torch calls beside the module's own."""


class ModuleWatch:
    """What a graph has as constants of a network: where its tensors lie, its plain numbers, and its hooks.

    It is looked at before each step, and so says only what differs from the beginning, but for the places.

    Args:
        network: The network, as it is at the beginning.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = [(vars(module), *_sort_attributes(module)) for module in network.modules()]

    def describe(self) -> Hashable:
        """Return all that, once it is another, makes another kind of step."""
        found: list[Hashable] = []
        for number, (attributes, fixed, others) in enumerate(self._modules):
            _add_places(attributes, found)
            for name in HOOKS:
                if attributes[name]:
                    found.append((number, name, tuple(attributes[name])))
            if attributes["_modules"]:
                found += map(id, attributes["_modules"].values())

            # A plain number that stays is the same object.
            for name, value in fixed:
                now = attributes.get(name)
                if now is not value:
                    found.append((number, name, _describe_attribute(now)))
            for name in others:
                found.append(_describe_attribute(attributes.get(name)))
            if len(attributes) != len(MODULE_ATTRIBUTES) + len(fixed) - 1 + len(others):
                found.append((number, len(attributes)))
        return tuple(found)


def _add_places(attributes: Mapping[str, Any], found: list[Hashable]) -> None:
    """Add where a module's own tensors lie, and the hooks on its weights."""
    for parameter in attributes["_parameters"].values():
        if parameter is not None:
            found.append(parameter.data_ptr())
            if parameter._backward_hooks:
                found.append(tuple(parameter._backward_hooks))
    for buffer in attributes["_buffers"].values():
        if buffer is not None:
            found.append(buffer.data_ptr())


def _sort_attributes(module: nn.Module) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return the attributes of a module that cannot change without being replaced, and the names of all others."""
    fixed: list[tuple[str, Any]] = [("training", module.training)]
    others: list[str] = []
    for name, value in vars(module).items():
        if name in MODULE_ATTRIBUTES:
            continue
        if value is None or type(value) in PLAIN or (type(value) is tuple and set(map(type, value)) <= PLAIN_SET):
            fixed.append((name, value))
        else:
            others.append(name)
    return fixed, others


def _describe_attribute(value: Any) -> Hashable:
    if type(value) in PLAIN:
        return cast("Hashable", value)
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (tuple, list)):
        # What lies deeper is a part of its own, or of no use to a layer.
        return tuple(item if type(item) in PLAIN else id(item) for item in value)
    return None
