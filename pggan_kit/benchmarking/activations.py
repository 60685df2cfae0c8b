"""Count the memory that a training iteration takes beside the weights, on fake tensors, which take none."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pggan_kit.benchmarking.rig import Rig


class LiveMemory(TorchDispatchMode):
    """A mode that follows the bytes of all tensors on a device that are made inside it and are still in use.

    Args:
        device: The device.

    Attributes:
        live_bytes: Bytes in use.
        peak_bytes: Maximum of `live_bytes` so far; it may be set, to begin again.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._sizes: dict[int, int] = {}
        self.live_bytes = 0
        self.peak_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count its results' memory."""
        results = func(*args, **(kwargs or {}))
        # Views and what is changed in place have their memory already, which may be that of the weights.
        if all(returned.alias_info is None for returned in func._schema.returns):
            for result in tree_leaves(results):
                if isinstance(result, Tensor) and result.device.type == self._device.type:
                    self._follow(result.untyped_storage())
        return results

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._sizes.pop(key)


def count_activations_mib(rig: Rig) -> float | None:
    """Return the MiB that an iteration takes at most, beside weights, gradients and what optimizers remember.

    It is the iteration in which all lazy penalties are due. What a device's libraries take besides, for convolutions
    for example, is left out. The rig is of no use afterwards.

    Args:
        rig: The stage, with eager steps.

    Returns:
        MiB; None where components need the content of tensors, which fake ones do not have.
    """
    try:
        with rig.restore_components():
            return measure_activations_mib(rig, FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:
        # A component may do anything that fake tensors cannot. If it is itself at fault, a real step says so.
        return None


def measure_activations_mib(rig: Rig, mode: contextlib.AbstractContextManager[object] | None = None) -> float:
    """Return what `count_activations_mib` does, from real steps, or from steps in a mode."""
    with mode or contextlib.nullcontext(), LiveMemory(rig.state.device) as memory:
        # The first iteration makes gradients and moments, which the second replaces by others of the same size.
        rig.step(eager=True)
        before: int = memory.live_bytes
        memory.peak_bytes = before
        rig.step(eager=True)
        taken: int = memory.peak_bytes - before
    return taken / 2**20
