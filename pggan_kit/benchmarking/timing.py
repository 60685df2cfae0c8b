"""Seconds: of one call, and of several contenders that take turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

WARM_UPS = 2
ROUNDS = 6
LEAST_SECONDS = 0.2
"""A faster iteration is repeated within its turn until the turn takes about so long."""

Kinds = Sequence[tuple[float, Callable[[], object]]]
"""The kinds of iteration of one contender: (share of all iterations, runs one)."""


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Of one call, by CUDA events on a GPU, else by the clock on the wall."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1000 / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - began) / repeats


class Turns:
    """Contenders' mean seconds an iteration, in rounds in which each has a turn and another one begins.

    Attributes:
        first: of each contender, the seconds of its very first iterations: compilation and set-up.
        rounds: of each contender, a mean over its kinds of iteration for each round.
    """

    def __init__(self, contenders: Mapping[str, Kinds], device: torch.device, rounds: int = ROUNDS) -> None:
        self.first: dict[str, float] = {}
        self.rounds: dict[str, list[float]] = {name: [] for name in contenders}
        repeats: dict[str, list[int]] = {}
        for name, kinds in contenders.items():
            self.first[name] = sum(seconds(work, device) for _, work in kinds)
            for _ in range(WARM_UPS - 1):
                taken = [seconds(work, device) for _, work in kinds]
            repeats[name] = [max(1, math.ceil(LEAST_SECONDS / max(each, 1e-9))) for each in taken]
        names = list(contenders)
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                each = [
                    share * seconds(work, device, count)
                    for (share, work), count in zip(contenders[name], repeats[name], strict=True)
                ]
                self.rounds[name].append(sum(each))

    def ratios(self, name: str, yardstick: str, images: float = 1.0) -> list[float]:
        """How many times as fast as another contender, in each round, at `images` times as many images an iteration."""
        return [images * other / own for own, other in zip(self.rounds[name], self.rounds[yardstick], strict=True)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return statistics.median(values), tenths[0], tenths[-1]
