"""Copy all that a step changes, so that it can be taken twice from the same state and the results compared."""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit.experiment import Experiment
from pggan_kit.runs.state import TrainState
from pggan_kit.training.parity import DEPTH, collect_settings


def list_parts(experiment: Experiment) -> dict[str, Any]:
    """Return the components that take part in a step, by name; networks belong to the state."""
    return {
        "update": experiment.update,
        "loss": experiment.loss,
        "augmentation": experiment.augmentation,
        "generator_penalties": experiment.generator_penalties,
    }


class StateCopy:
    """A copy of what a step may change: weights, optimizers, loss scalers, and the attributes of components.

    Args:
        state: The state of training.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        parts = list_parts(state.experiment)
        self.numbers = {name: collect_settings(part) for name, part in parts.items()}

        # What holds tensors: networks for good, all others may also replace them.
        self._holders: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._tensors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, net in state.networks.items():
            self._copy_module(name, net)
        for name, optimizer in state.optimizers.items():
            for number, kept in enumerate(optimizer.state.values()):
                self._copy_holder(f"{name}'s optimizer {number}", kept)
        for name, scaler in state.scalers.items():
            self._copy_tensors(f"{name}'s scaler", vars(scaler))
        for name, part in parts.items():
            for path, holder in _list_holders(name, part):
                if isinstance(holder, nn.Module):
                    self._copy_module(path, holder)
                else:
                    self._copy_holder(path, holder)

    def _copy_module(self, name: str, module: nn.Module) -> None:
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._tensors[f"{name}.{path}"] = (tensor, tensor.detach().clone())

    def _copy_holder(self, name: str, holder: dict[str, Any]) -> None:
        self._holders[name] = (holder, dict(holder))
        self._copy_tensors(name, holder)

    def _copy_tensors(self, name: str, holder: dict[str, Any]) -> None:
        for key, value in holder.items():
            if isinstance(value, Tensor):
                self._tensors[f"{name}.{key}"] = (value, value.detach().clone())

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the state back to what it was."""
        for holder, values in self._holders.values():
            holder.clear()
            holder.update(values)
        for tensor, value in self._tensors.values():
            tensor.detach().copy_(value)

    @property
    def values(self) -> dict[str, Tensor]:
        """Return the copies by name."""
        return {name: value for name, (_, value) in self._tensors.items()}


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
    """Return the names of plain numbers in components that differ between two copies, as `loss.count`."""
    earlier = flatten_settings(before.numbers)
    later = flatten_settings(after.numbers)
    return [name for name, value in later.items() if name not in earlier or earlier[name] != value]


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


def _list_holders(name: str, value: Any, seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a component and of those in it, as dicts, and the modules among them."""
    if isinstance(value, (tuple, list)):
        for number, item in enumerate(value):
            yield from _list_holders(f"{name}.{number}", item, seen)
        return
    if isinstance(value, nn.Module):
        yield name, value
        return
    attributes = getattr(value, "__dict__", None)
    if attributes is None or id(value) in seen or len(seen) == DEPTH:
        return
    if isinstance(value, (type, types.ModuleType, types.FunctionType, Tensor)):
        return
    yield name, attributes
    for key, attribute in list(attributes.items()):
        yield from _list_holders(f"{name}.{key}", attribute, (*seen, id(value)))
