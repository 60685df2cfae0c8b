"""Test copies on the CPU that a device may not have completed yet. `test_gpu.py` has those of a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.slow_writing import LaggingCopier
from helpers.snapshots import snapshot_at

from pggan_kit.runs.host_copies import PinnedCopier, PlainCopier, choose_copier
from pggan_kit.runs.snapshot import SavedMeans
from pggan_kit.testing.support import are_equal


def test_a_copy_has_the_values_of_its_moment_once_it_is_waited_for() -> None:
    weights = torch.zeros(2)
    steps = torch.zeros((), dtype=torch.int64)
    mean = torch.zeros(())
    snapshot = snapshot_at(
        8, generator={"weight": weights}, components={"x": [(steps,)]}, means=SavedMeans({"loss": mean}, {"loss": 1})
    )
    pending = snapshot.begin_copy(LaggingCopier())
    for tensor in (weights, steps, mean):
        tensor += 1
    copy = pending.wait()
    assert copy.generator["weight"].tolist() == [0, 0]
    assert copy.components == {"x": [(torch.tensor(0),)]}
    assert copy.means.sums["loss"] == 0
    assert are_equal(pending.wait().content(), copy.content())


def test_copies_from_a_gpu_are_pinned_and_marked_by_an_event_of_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: an event is recorded after the copies, and only who reads them waits for it."""
    calls: list[Any] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            calls.append(("event", blocking))

        def record(self, stream: str) -> None:
            calls.append(("record", stream))

        def synchronize(self) -> None:
            calls.append("synchronize")

    class Tensor:
        def detach(self) -> Tensor:
            return self

        def to(self, device: str, **options: bool) -> str:
            calls.append((device, options))
            return "copy"

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    copier = choose_copier(torch.device("cuda:1"))
    assert isinstance(copier, PinnedCopier)
    tensor: Any = Tensor()
    assert copier.begin(tensor) == "copy"
    wait = copier.mark()
    # torch pins what is copied to the CPU without blocking.
    copying = ("cpu", {"non_blocking": True, "copy": True})
    assert calls == [copying, ("event", True), ("record", "stream of cuda:1")]
    wait()
    assert calls[-1] == "synchronize"


def test_other_devices_copy_at_once() -> None:
    copier = choose_copier(torch.device("cpu"))
    assert isinstance(copier, PlainCopier)
    weights = torch.zeros(2)
    copy = copier.begin(weights)
    weights += 1
    assert copy.tolist() == [0, 0]
