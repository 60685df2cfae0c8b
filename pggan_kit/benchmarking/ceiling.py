"""What the machine can do at best: a large matrix product, and a stage's own convolutions and products alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from pggan_kit.benchmarking.flops import Call, Like
from pggan_kit.benchmarking.timing import seconds

DTYPES = (torch.float32, torch.bfloat16)
ROUNDS = 3
SIDE = {"cuda": 8192}
"""Of the square matrices; 2048 elsewhere."""


def name_of(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")


def matrix_product(device: torch.device) -> dict[str, float]:
    """GFLOP/s of a large product of square matrices in each type."""
    side = SIDE.get(device.type, 2048)
    found = {}
    for dtype in DTYPES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        found[name_of(dtype)] = 2 * side**3 / _best(lambda a=a, b=b: a @ b, device) / 1e9
    return found


def alone(calls: Mapping[Call, float], dtype: torch.dtype, device: torch.device) -> float:
    """Seconds that these convolutions and products take with nothing between them, each at its best, in one type."""
    return sum(count * _best(_replay(call, dtype, device), device) for call, count in calls.items())


def main_dtype(calls: Mapping[Call, float]) -> torch.dtype:
    """The type in which most of the operations were done."""
    flops: dict[torch.dtype, float] = defaultdict(float)
    for call, count in calls.items():
        flops[call.dtype] += call.flops * count
    return max(flops, key=flops.__getitem__)


def _replay(call: Call, dtype: torch.dtype, device: torch.device) -> Any:
    arguments = [arg.tensor(dtype, device) if isinstance(arg, Like) else arg for arg in call.arguments]
    return lambda: call.operation(*arguments)


def _best(work: Any, device: torch.device) -> float:
    work()
    return min(seconds(work, device) for _ in range(ROUNDS))
