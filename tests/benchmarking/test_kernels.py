"""Test what is counted of a GPU's work, with made-up events, and that torch's own are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pggan_kit.benchmarking.kernels import PROFILED, Event, list_events, profile_kinds, sum_busy


def make_recorder(events: list[Event]) -> Callable[[Callable[[], object]], list[Event]]:
    """Return a recorder that runs the work, and has seen these events in each of its calls."""

    def record(work: Callable[[], object]) -> list[Event]:
        work()
        return events * PROFILED

    return record


def test_launches_and_kernels_are_means_over_kinds() -> None:
    events = [
        Event("cudaLaunchKernel", 0.0, 1.0, on_device=False),
        Event("cudaMemcpyAsync", 0.0, 1.0, on_device=False),
        Event("cudaGraphLaunch", 0.0, 1.0, on_device=False),
        Event("cudaStreamSynchronize", 0.0, 9.0, on_device=False),
        Event("cudaEventRecord", 0.0, 9.0, on_device=False),
        *[Event(f"kernel {number}", number, number + 0.5, on_device=True) for number in range(5)],
    ]
    ran: list[str] = []
    kinds = [(0.75, lambda: ran.append("plain")), (0.25, lambda: ran.append("lazy"))]
    kernels = profile_kinds(kinds, make_recorder(events))
    assert ran == ["plain"] * PROFILED + ["lazy"] * PROFILED
    assert kernels.launches == pytest.approx(3)
    assert kernels.kernels == pytest.approx(5)
    # All calls of a recorder have the same times here, as if they ran side by side.
    assert kernels.busy_seconds == pytest.approx(2.5 / PROFILED)


def test_kernels_side_by_side_count_once() -> None:
    spans = [(0.0, 4.0), (1.0, 2.0), (3.0, 5.0), (7.0, 8.0)]
    assert sum_busy(Event("kernel", begin, end, on_device=True) for begin, end in reversed(spans)) == 6.0
    assert sum_busy([]) == 0.0


def test_events_of_torch_are_read_without_its_annotations() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    adam = torch.optim.Adam([weight])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        (weight * 2).sum().backward()
        adam.step()
    events = list_events(profiler)
    names = {event.name for event in events}
    assert "aten::mul" in names
    assert not any(name.startswith("Optimizer.step") for name in names)
    assert any(event.name.startswith("Optimizer.step") for event in profiler.events())
    assert all(event.end >= event.begin and not event.on_device for event in events)
