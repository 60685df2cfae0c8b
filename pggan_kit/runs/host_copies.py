"""Copy tensors from a device to the CPU while the device goes on, and wait for the copies where they are read.

On a GPU a copy into pinned memory is one more piece of work in its queue: steps that follow change the tensors after
they were copied, and the process does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Copier(Protocol):
    """Copies tensors to the CPU, as `PinnedCopier` does."""

    def begin(self, tensor: Tensor) -> Tensor:
        """Begin to copy a tensor as it is after the work that was begun so far, and return the copy.

        Its values may be read once a mark that was set afterwards is reached.
        """

    def mark(self) -> Callable[[], object]:
        """Return a function that waits until the copies that were begun so far are complete, in any thread."""


class PlainCopier:
    """A copier whose copies are complete at once."""

    def begin(self, tensor: Tensor) -> Tensor:
        """Copy a tensor; see `Copier`."""
        return copy_tensor_to_cpu(tensor)

    def mark(self) -> Callable[[], object]:
        """Return a function that does not wait; see `Copier`."""
        return _return_at_once


class PinnedCopier:
    """A copier from a GPU into pinned memory.

    Args:
        device: Device that the tensors are on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self, tensor: Tensor) -> Tensor:
        """Begin to copy a tensor; see `Copier`."""
        # Such a copy is in pinned memory. torch keeps what is freed of it, and gives it to the next copy.
        return tensor.detach().to("cpu", non_blocking=True, copy=True)

    def mark(self) -> Callable[[], object]:
        """Return a function that waits for an event; see `Copier`."""
        # A thread that waits for a blocking event sleeps, and leaves its core to the process.
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize


def choose_copier(device: torch.device) -> Copier:
    """Return the copier for tensors that are on a device."""
    if device.type == "cuda":
        return PinnedCopier(device)
    return PlainCopier()


class PendingCopy(Generic[T]):
    """A copy on the CPU that the device may not have completed yet.

    Args:
        value: What was copied, with the copies of its tensors.
        wait: Function that waits until they are complete.
    """

    def __init__(self, value: T, wait: Callable[[], object]) -> None:
        self._value = value
        self._wait = wait

    def wait(self) -> T:
        """Return what was copied, once it is complete."""
        self._wait()
        return self._value


def copy_tensor_to_cpu(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor on the CPU, which is complete."""
    return tensor.detach().to("cpu", copy=True)


def copy_tensors(value: Any, copy: Callable[[Tensor], Tensor] = copy_tensor_to_cpu) -> Any:
    """Return a copy of nested dicts, lists and tuples, with copies of the tensors in them.

    Args:
        value: What is copied.
        copy: Function that copies a tensor.
    """
    if isinstance(value, Tensor):
        return copy(value)
    if isinstance(value, Mapping):
        return {key: copy_tensors(inner, copy) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copy_tensors(inner, copy) for inner in value)
    return value


def _return_at_once() -> None:
    pass
