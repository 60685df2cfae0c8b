"""Watching a run's steps for what would make a GPU's queue run empty."""

from collections.abc import Mapping
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from pggan_kit.testing.support import SyncWatch, waits_for_device
from pggan_kit.training import non_finite as guards
from pggan_kit.training.loop import Loop


class DispatchWatch(TorchDispatchMode):
    """While entered, notes operators that wait, also those that torch itself calls in others.

    Attributes:
        found: their names so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = func.overloadpacket.__name__
        if waits_for_device(name, args, kwargs or {}):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let what happens in each step be watched from now on; what waits is added to the returned list."""
    monkeypatch.setattr(guards, "checks_each_step", lambda device: False)
    found: list[str] = []

    def watching(method: Any) -> Any:
        def call(*args: Any) -> Any:
            with SyncWatch() as calls, DispatchWatch() as operators:
                result = method(*args)
            found.extend(calls.found + operators.found)
            return result

        return call

    for name in ("save_and_stop_if_asked", "take_step", "stage_is_over"):
        monkeypatch.setattr(Loop, name, watching(getattr(Loop, name)))
    return found
