"""Writes that take until something waits for them, writes without a thread, and a device that copies late."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.patience import PATIENCE_SECONDS
from torch import Tensor

from pggan_kit import hookimpl
from pggan_kit.runs.average_snapshots import AverageSnapshots
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.system import background_writer
from pggan_kit.system.background_writer import BackgroundWriter


class SlowWriting:
    """A plugin under which each write, but the first checkpoint's, takes until something waits for it.

    Args:
        monkeypatch: The test's patches.

    Attributes:
        events: What happened, in its order: `write 16`, `averages 16`, `step 20`, `wait`, `written 16`.
        largest: Largest number of writes at once.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.largest = 0
        self._count = 0
        self._begun = defaultdict[threading.Thread, threading.Event](threading.Event)
        self._waited = defaultdict[threading.Thread, threading.Event](threading.Event)
        wait = background_writer._wait_for

        def wait_for(thread: threading.Thread) -> None:
            # On a busy machine the thread may not have got as far as its write.
            while thread.is_alive() and not self._begun[thread].wait(0.01):
                pass
            if thread.is_alive():
                self.events.append("wait")
            self._waited[thread].set()
            wait(thread)

        monkeypatch.setattr(background_writer, "_wait_for", wait_for)
        monkeypatch.setattr(Checkpoints, "save", self._slow_down(Checkpoints.save, "write"))
        monkeypatch.setattr(AverageSnapshots, "save", self._slow_down(AverageSnapshots.save, "averages"))

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.events.append(f"step {state.images}")

    def is_writing(self) -> bool:
        """Return whether a write has begun and not ended; on a busy machine its thread may take a while to begin."""
        return self._count > 0

    def _slow_down(self, save: Callable[..., Path], name: str) -> Callable[..., Path]:
        def save_slowly(keeper: Any, snapshot: Any, *args: Any, **options: Any) -> Path:
            self._count += 1
            self.largest = max(self.largest, self._count)
            self.events.append(f"{name} {snapshot.images}")
            self._begun[threading.current_thread()].set()
            if snapshot.images > 0:
                # A loop that wrote by itself would wait here for ever.
                waited = self._waited[threading.current_thread()]
                assert waited.wait(PATIENCE_SECONDS / 10), "nothing waits for this write"
            path = save(keeper, snapshot, *args, **options)
            self.events.append(f"written {snapshot.images}")
            self._count -= 1
            return path

        return save_slowly


def write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop itself write, and go on when it is done."""

    def begin(writer: BackgroundWriter, write: Callable[[], object]) -> None:
        write()

    monkeypatch.setattr(BackgroundWriter, "begin", begin)


class LaggingCopier:
    """A copier of a device that is late: copies are NaN or -1 until somebody waits for a mark."""

    def __init__(self) -> None:
        self._late: list[tuple[Tensor, Tensor]] = []

    def begin(self, tensor: Tensor) -> Tensor:
        """Return a copy that is not there yet. The device's queue has the value that the tensor has now."""
        copy = torch.full_like(tensor, -1 if not tensor.is_floating_point() else float("nan"))
        self._late.append((copy, tensor.detach().clone()))
        return copy

    def mark(self) -> Callable[[], object]:
        """Return a function that completes the copies so far."""
        late = self._late
        self._late = []

        def complete() -> None:
            for copy, value in late:
                copy.copy_(value)

        return complete
