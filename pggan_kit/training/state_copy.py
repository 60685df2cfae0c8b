"""Copy all that a step changes, so that it can be taken twice from the same state and the results compared."""

from __future__ import annotations

import collections
import enum
import random
import types
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pggan_kit.experiment import Experiment
from pggan_kit.runs.learning_rate_tensors import is_capturable
from pggan_kit.runs.state import TrainState
from pggan_kit.training.attributes import SlotAttributes, open_attributes
from pggan_kit.training.parity import DEPTH, collect_settings

PLAIN = (bool, int, float, str)
"""Types of plain values."""

UNSEEN = (type, types.ModuleType, types.FunctionType, types.MethodType, enum.Enum, PurePath)
"""Types of values that are looked into no further."""

OPEN = (dict, list, collections.deque, SlotAttributes)
"""Types of what holds other values and can be given others."""


def list_parts(experiment: Experiment) -> dict[str, Any]:
    """Return the components that take part in a step, by name; networks belong to the state."""
    return {
        "update": experiment.update,
        "loss": experiment.loss,
        "augmentation": experiment.augmentation,
        "generator_penalties": experiment.generator_penalties,
    }


class PartsCopy:
    """A copy of what components and networks hold, and of the states of Python's and NumPy's random generators.

    Args:
        parts: Components and networks, by name.

    Attributes:
        numbers: Plain values, by the name of what holds them.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.numbers: dict[str, Hashable] = {}

        # What holds tensors: each is of a type in `OPEN`.
        self._holders: dict[str, tuple[Any, Any]] = {}
        self._tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self._restorers: list[Callable[[], object]] = []
        self._visited: set[int] = set()
        for name, part in parts.items():
            self._copy(name, part)
        self._copy_generator("random", random)
        self._copy_generator("numpy.random", np.random)

    def _copy(self, name: str, value: Any) -> None:
        for path, holder in list_holders(name, value, self._visited):
            if isinstance(holder, OPEN):
                self._copy_holder(path, holder)
                self._note_numbers(path, holder)
            elif isinstance(holder, np.ndarray):
                self._note_host(path, holder.tobytes(), _bind_array(holder))
            elif isinstance(holder, torch.Generator):
                self._restorers.append(_bind(holder.set_state, holder.get_state()))
            else:
                self._copy_generator(path, holder)

    def _copy_holder(self, name: str, holder: Any) -> None:
        self._holders[name] = (holder, dict(holder) if isinstance(holder, Mapping) else list(holder))
        self._copy_tensors(name, holder)

    def _copy_tensors(self, name: str, holder: Any) -> None:
        for key, value in _list_items(holder):
            if isinstance(value, Tensor):
                self._tensors[_join(name, key)] = (value, value.detach().clone())

    def _note_numbers(self, name: str, holder: Any) -> None:
        self.numbers[f"{name} (length)"] = len(holder)
        for key, value in _list_items(holder):
            if value is None or isinstance(value, PLAIN):
                self.numbers[_join(name, key)] = value
            elif isinstance(value, (tuple, set, frozenset)):
                self.numbers[_join(name, key)] = collect_settings(value)

    def _copy_generator(self, name: str, generator: Any) -> None:
        """Copy the state of a generator of random numbers on the host."""
        if isinstance(generator, np.random.Generator):
            bits: Any = generator.bit_generator
            state = bits.state
            self._note_host(name, repr(state), lambda: setattr(bits, "state", state))
        elif hasattr(generator, "getstate"):
            state = generator.getstate()
            self._note_host(name, repr(state), _bind(generator.setstate, state))
        else:
            state = generator.get_state()
            content = repr([np.asarray(each).tobytes() for each in state])
            self._note_host(name, content, _bind(generator.set_state, state))

    def _note_host(self, name: str, content: str | bytes, restore: Callable[[], object]) -> None:
        self.numbers[name] = hash(content)
        self._restorers.append(restore)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the state back to what it was."""
        for holder, values in self._holders.values():
            # Other threads may read what stays as it is.
            if _has_same_items(holder, values):
                continue
            holder.clear()
            if isinstance(holder, MutableMapping):
                holder.update(values)
            else:
                holder.extend(values)
        for tensor, value in self._tensors.values():
            tensor.detach().copy_(value)
        for restore in self._restorers:
            restore()

    @property
    def values(self) -> dict[str, Tensor]:
        """Return the copies by name."""
        return {name: value for name, (_, value) in self._tensors.items()}


class StateCopy(PartsCopy):
    """A copy of what a step may change: weights, optimizers, loss scalers, and the attributes of components.

    Args:
        state: The state of training.
    """

    def __init__(self, state: TrainState) -> None:
        super().__init__(state.networks)
        for name, optimizer in state.optimizers.items():
            self._copy_optimizer(f"{name}'s optimizer", optimizer)
        for name, scaler in state.scalers.items():
            # Its dict of the step's stages is a new one in each step.
            self._copy_tensors(f"{name}'s scaler", vars(scaler))
        for name, part in list_parts(state.experiment).items():
            self._copy(name, part)

    def _copy_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Copy an optimizer, its groups and its state, and those of an optimizer in it."""
        holders: dict[str, Any] = {name: vars(optimizer), f"{name}.state": optimizer.state}
        holders |= {f"{name} {number}": kept for number, kept in enumerate(optimizer.state.values())}
        for path, holder in holders.items():
            self._copy_holder(path, holder)
            # What keeps numbers on the host steps between graphs.
            if is_capturable(optimizer):
                self._note_numbers(path, holder)
        # The clock sets numbers of groups within a step; all others make kinds of steps.
        for number, group in enumerate(optimizer.param_groups):
            self._copy_holder(f"{name}.param_groups.{number}", group)
        for key, value in vars(optimizer).items():
            if isinstance(value, torch.optim.Optimizer) and value is not optimizer:
                self._copy_optimizer(f"{name}.{key}", value)


def _list_items(holder: Any) -> list[tuple[object, Any]]:
    """Return what a dict or list holds, by key where that is plain, and by number elsewhere."""
    if not isinstance(holder, Mapping):
        return list(enumerate(holder))
    return [(key if isinstance(key, PLAIN) else number, item) for number, (key, item) in enumerate(holder.items())]


def _has_same_items(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    pairs = zip(_list_items(one), _list_items(other), strict=True)
    return all(key == other_key and item is other_item for (key, item), (other_key, other_item) in pairs)


def _bind(function: Callable[[Any], object], value: Any) -> Callable[[], object]:
    return lambda: function(value)


def _bind_array(array: Any) -> Callable[[], object]:
    content = array.copy()
    return lambda: np.copyto(array, content)


def find_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that is not the same bit for bit, up to the sign of zeros and kinds of NaN.

    Returns:
        The name; None where there is none.
    """
    if one.keys() != other.keys():
        return min(one.keys() ^ other.keys())
    for name, value in one.items():
        if not are_identical(value, other[name]):
            return name
    return None


def are_identical(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape, type and values, where NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    same = one == other
    if one.is_floating_point():
        same = same | (one.isnan() & other.isnan())
    return bool(same.all())


def list_changed_numbers(before: StateCopy, after: StateCopy) -> list[str]:
    """Return the names of plain numbers that differ between two copies, as `loss.count`."""
    earlier = before.numbers
    return [name for name, value in after.numbers.items() if name not in earlier or earlier[name] != value]


def flatten_settings(settings: Mapping[str, Hashable]) -> dict[str, Hashable]:
    """Return what `collect_settings` returned of components, flat: `{"loss.penalties.0.weight": 10.0}`."""
    flat: dict[str, Hashable] = {}
    for name, value in settings.items():
        _flatten(name, value, flat)
    return flat


def _flatten(name: str, value: Hashable, flat: dict[str, Hashable]) -> None:
    if not isinstance(value, tuple):
        flat[name] = value
        return
    for number, item in enumerate(value):
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            _flatten(f"{name}.{item[0]}", item[1], flat)
        else:
            _flatten(f"{name}.{number}", item, flat)


def list_holders(name: str, value: Any, visited: set[int], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield what holds the state of a component or network, by name, each once.

    These are dicts, lists, the attributes of objects, numpy's arrays, and generators of random numbers.
    """
    if id(value) in visited or isinstance(value, (*PLAIN, *UNSEEN, Tensor)):
        return
    inner: Any = ()
    if isinstance(value, (tuple, list, set, frozenset, collections.deque)):
        visited.add(id(value))
        if isinstance(value, (list, collections.deque)):
            yield name, value
        inner = enumerate(list(value))
    elif isinstance(value, Mapping):
        visited.add(id(value))
        if isinstance(value, dict):
            yield name, value
        inner = _list_items(value)
    elif isinstance(value, (np.ndarray, np.random.Generator, np.random.RandomState, random.Random, torch.Generator)):
        visited.add(id(value))
        yield name, value
    elif depth < DEPTH and (attributes := open_attributes(value)) is not None:
        visited.add(id(value))
        yield name, attributes
        inner = list(attributes.items())
        # Networks are deep.
        depth = 0 if isinstance(value, nn.Module) else depth + 1
    for key, item in inner:
        yield from list_holders(_join(name, key), item, visited, depth)


def _join(name: str, key: object) -> str:
    if key in ("_modules", "_parameters", "_buffers"):
        return name
    return f"{name}.{key}"


def list_places(name: str, part: Any) -> dict[str, Hashable]:
    """Return where the tensors of a component lie, and of which classes it and its parts are: a graph keeps to both."""
    places: dict[str, Hashable] = {f"{name} (class)": type(part).__qualname__}
    for path, holder in list_holders(name, part, set()):
        if not isinstance(holder, OPEN):
            continue
        for key, value in _list_items(holder):
            if isinstance(value, Tensor):
                places[f"{path}.{key} (place)"] = value.data_ptr()
            elif open_attributes(value) is not None:
                places[f"{path}.{key} (class)"] = type(value).__qualname__
    return places
