"""Measure what the machine can do at best: a large matrix product, and a stage's own convolutions and products alone.

Only types that the device computes natively are measured: it emulates the others, up to a thousand times slower.
"""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch

from pggan_kit.benchmarking.flops import Call, Like
from pggan_kit.benchmarking.timing import time_calls
from pggan_kit.system.devices import computes_bfloat16
from pggan_kit.system.graphs import CudaRecorder, Recorder
from pggan_kit.training.out_of_memory import is_out_of_memory

DTYPES = (torch.float32, torch.bfloat16)
"""Types of which it is of interest what the machine can do."""

ROUNDS = 3
"""Number of bursts of calls of which the fastest counts, after a call to warm up and one that tells their length."""

BURST_SECONDS = 0.002
"""Seconds that a burst takes at least, unless that is more than `MOST_CALLS`."""

MOST_CALLS = 200
"""Maximum number of calls in a burst."""

PROBE_SECONDS = 20.0
"""Seconds that a probe takes at most, up to its last call: the matrix product in one type, or the convolutions and
products of one stage in one type."""

FIRST_SIDE = 256
"""Side of the square matrices that the probe begins with; it doubles as long as there is time."""

SIDE = {"cuda": 8192}
"""Maximum side by the type of device."""

DEFAULT_SIDE = 2048
"""Maximum side on other devices."""


def name_dtype(dtype: torch.dtype) -> str:
    """Return the name of a type without its module: `float32`."""
    return str(dtype).removeprefix("torch.")


def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a device computes natively in a type, as far as torch tells: of bfloat16 it does."""
    if dtype != torch.bfloat16:
        return True
    return computes_bfloat16(device)


def measure_matrix_product(dtype: torch.dtype, device: torch.device) -> float | None:
    """Return the GFLOP/s of a large product of square matrices.

    The matrices grow to the side of `SIDE`, or as far as `PROBE_SECONDS` and the free memory allow.

    Returns:
        GFLOP/s; None where there is no memory for the smallest.
    """
    largest = SIDE.get(device.type, DEFAULT_SIDE)
    side = min(FIRST_SIDE, largest)
    gflops = None
    while True:
        try:
            seconds = _time_product(side, dtype, device)
        except Exception as error:
            # Other programs may hold the memory: what was measured with less of it stands.
            if is_out_of_memory(error):
                return gflops
            raise
        gflops = 2 * side**3 / seconds / 1e9
        # A side twice as long takes eight times as long.
        seconds_of_next = 8 * seconds * (1 + ROUNDS)
        if side == largest or seconds_of_next > PROBE_SECONDS:
            return gflops
        side = min(2 * side, largest)


def _time_product(side: int, dtype: torch.dtype, device: torch.device) -> float:
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    return _measure_best(functools.partial(torch.matmul, left, right), device)


def measure_alone(
    calls: Mapping[Call, float],
    dtype: torch.dtype,
    device: torch.device,
    known: dict[tuple[Call, torch.dtype], float] | None = None,
) -> float | None:
    """Return the seconds that convolutions and products take with nothing between them, each at its best, in one type.

    Args:
        calls: The operations, and how often each takes place.
        dtype: The type to compute in, whatever it was.
        device: The device to compute on.
        known: Seconds of operations that were measured before, to which those of others are added.

    Returns:
        Seconds; None where measuring them all takes more than `PROBE_SECONDS`.
    """
    began = time.perf_counter()
    known = {} if known is None else known
    total = 0.0
    for call, count in calls.items():
        # A sum that lacks calls would be no ceiling.
        if time.perf_counter() - began > PROBE_SECONDS:
            return None
        if (call, dtype) not in known:
            known[call, dtype] = _measure_best(_make_replay(call, dtype, device), device)
        total += count * known[call, dtype]
    return total


def find_main_dtype(calls: Mapping[Call, float]) -> torch.dtype:
    """Return the type in which most of the floating-point operations were done."""
    flops: dict[torch.dtype, float] = defaultdict(float)
    for call, count in calls.items():
        flops[call.dtype] += call.flops * count
    return max(flops, key=flops.__getitem__)


def _make_replay(call: Call, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Return a function that runs an operation on random numbers."""
    arguments = [arg.make_tensor(dtype, device) if isinstance(arg, Like) else arg for arg in call.arguments]
    return lambda: call.operation(*arguments)


def _measure_best(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call in the fastest of `ROUNDS` bursts after a first call, or of that if it takes long.

    A burst takes at least `BURST_SECONDS`. On a GPU it is one graph: a short kernel takes less time than its launch.
    """
    first = time_calls(work, device)
    if (1 + ROUNDS) * first > PROBE_SECONDS:
        return first
    # The first call may have set something up.
    second = time_calls(work, device)
    calls = min(MOST_CALLS, max(1, math.ceil(BURST_SECONDS / max(second, 1e-9))))
    recorder = choose_graph_recorder(device)
    if recorder is None:
        return min(time_calls(work, device, calls) for _ in range(ROUNDS))
    try:
        return _time_recorded(work, calls, device, recorder)
    finally:
        # The burst is gone, and others need its memory.
        recorder.forget()


def _time_recorded(work: Callable[[], object], calls: int, device: torch.device, recorder: Recorder) -> float:
    """Return the seconds of a call in the fastest of `ROUNDS` bursts that are replayed."""
    burst = record_calls(work, calls, recorder)
    return min(time_calls(burst, device) for _ in range(ROUNDS)) / calls


def choose_graph_recorder(device: torch.device) -> Recorder | None:
    """Return what records a burst; None where calls need no launch."""
    return CudaRecorder(device) if device.type == "cuda" else None


def record_calls(work: Callable[[], object], calls: int, recorder: Recorder) -> Callable[[], object]:
    """Return a function that does some work several times, recorded as one graph."""
    with recorder.record():
        graph = recorder.make_graph()
        try:
            graph.begin()
            for _ in range(calls):
                work()
            graph.end()
        except BaseException:
            # Memory may end here.
            graph.abandon()
            raise
    return graph.replay
