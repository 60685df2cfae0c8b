"""Count what a GPU is given to do in an iteration, and the time it is busy with that, with torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pggan_kit.benchmarking.timing import Kinds

LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaMemcpy", "cudaMemset", "cudaGraphLaunch", "cuGraphLaunch")
"""Beginnings of the names of CUDA's calls that give a GPU work. A replayed graph is one call, whatever it holds."""

PROFILED = 2
"""Iterations of each kind that are profiled."""


@dataclass(frozen=True)
class Event:
    """A call of CUDA by the host, or a kernel, copy or fill that ran on the device.

    Attributes:
        name: Its name.
        begin: Seconds at which it began.
        end: Seconds at which it ended.
        on_device: Whether it ran on the device.
    """

    name: str
    begin: float
    end: float
    on_device: bool


@dataclass(frozen=True)
class Kernels:
    """What a GPU does in an iteration, as means.

    Attributes:
        launches: Calls of the host that give it work.
        kernels: Kernels, copies and fills that it runs.
        busy_seconds: Seconds in which at least one of them runs.
    """

    launches: float
    kernels: float
    busy_seconds: float


Record = Callable[[Callable[[], object]], Sequence[Event]]
"""A function that runs something and returns its events."""


def profile_kinds(kinds: Kinds, record: Record) -> Kernels:
    """Return what a GPU does in an iteration, as means over the kinds of iteration.

    Busy seconds are the device's: the profiler makes the host slower, and the kernels not.
    """
    launches = 0.0
    kernels = 0.0
    busy = 0.0
    for share, work in kinds:
        events = record(lambda work=work: [work() for _ in range(PROFILED)])  # type: ignore[misc]
        of_device = [event for event in events if event.on_device]
        launches += share * sum(event.name.startswith(LAUNCHES) for event in events if not event.on_device) / PROFILED
        kernels += share * len(of_device) / PROFILED
        busy += share * sum_busy(of_device) / PROFILED
    return Kernels(launches, kernels, busy)


def sum_busy(events: Iterable[Event]) -> float:
    """Return the seconds in which at least one of the events runs."""
    busy = 0.0
    last_end = float("-inf")
    for event in sorted(events, key=lambda event: event.begin):
        busy += max(0.0, event.end - max(event.begin, last_end))
        last_end = max(last_end, event.end)
    return busy


def record_cuda(work: Callable[[], object]) -> list[Event]:
    """Run something, and return its events as torch's profiler records them."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return list_events(profiler)


def list_events(profiler: profile) -> list[Event]:
    """Return the events of a profile, without the names that torch gives to spans of them."""
    events = []
    for event in profiler.events() or ():
        if getattr(event, "is_user_annotation", False):
            continue
        span = event.time_range
        on_device = event.device_type == DeviceType.CUDA
        events.append(Event(event.name, span.start / 1e6, span.end / 1e6, on_device))
    return events
