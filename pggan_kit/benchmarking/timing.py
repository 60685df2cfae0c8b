"""Time calls: one function's, and those of several contenders that take turns."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

WARM_UPS = 2
"""Iterations of each kind before the first that counts."""

ROUNDS = 6
"""Minimum number of turns of each contender."""

LEAST_SECONDS = 0.2
"""Seconds that a turn takes at least: a faster iteration is repeated within its turn."""

Kinds = Sequence[tuple[float, Callable[[], object]]]
"""The kinds of iteration of one contender: (share of all iterations, function that runs one)."""

Guard = Callable[[str], contextlib.AbstractContextManager[object]]
"""A function that makes a context for the work of the contender of a name."""


def time_calls(work: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Return the mean seconds of a call, by CUDA events on a GPU, else by the wall clock."""
    # A GPU works on after a call has returned: its own clock tells when it has done so.
    if device.type == "cuda":
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(device)
        begin.record(stream)
        for _ in range(repeats):
            work()
        end.record(stream)
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1000 / repeats

    began = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - began) / repeats


class Turns:
    """Mean seconds of an iteration of contenders that take turns, in rounds each of which another one begins.

    Args:
        contenders: The kinds of iteration of each contender, by name.
        device: The device that they work on.
        rounds: Number of turns of each.
        least_seconds: Seconds that a turn takes at least; None for `LEAST_SECONDS`.
        guard: A function that makes a context for the work of a contender, given its name. A contender whose context
            swallows what it raises takes no more turns. None to let it raise.

    Attributes:
        first: Seconds of each contender's very first iterations, compilation and set-up included.
        rounds: For each contender that did not fail, and each round, a mean over its kinds of iteration.
    """

    def __init__(
        self,
        contenders: Mapping[str, Kinds],
        device: torch.device,
        rounds: int = ROUNDS,
        least_seconds: float | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._contenders = contenders
        self._device = device
        self._least_seconds = LEAST_SECONDS if least_seconds is None else least_seconds
        self._repeats: dict[str, list[int]] = {}
        self.first: dict[str, float] = {}
        self.rounds: dict[str, list[float]] = {name: [] for name in contenders}

        # Who fails in the first iterations takes no turns.
        guard = guard or (lambda name: contextlib.nullcontext())
        for name in contenders:
            with guard(name):
                self._warm_up(name)

        # Each round begins with another contender, and who has failed in one takes no part in the next.
        names = list(self._repeats)
        for number in range(rounds):
            start = number % max(1, len(names))
            for name in names[start:] + names[:start]:
                if len(self.rounds[name]) == number:
                    with guard(name):
                        self.rounds[name].append(self._take_turn(name))
        self.rounds = {name: seconds for name, seconds in self.rounds.items() if len(seconds) == rounds}

    def _warm_up(self, name: str) -> None:
        """Run the first iterations; the last of them tells how often one is to be repeated within a turn."""
        kinds = self._contenders[name]
        self.first[name] = sum(time_calls(work, self._device) for _, work in kinds)
        for _ in range(WARM_UPS - 1):
            taken = [time_calls(work, self._device) for _, work in kinds]
        self._repeats[name] = [max(1, math.ceil(self._least_seconds / max(each, 1e-9))) for each in taken]

    def _take_turn(self, name: str) -> float:
        total = 0.0
        for (share, work), count in zip(self._contenders[name], self._repeats[name], strict=True):
            total += share * time_calls(work, self._device, count)
        return total

    def compute_ratios(self, name: str, yardstick: str, images: float = 1.0) -> list[float]:
        """Return how many times as fast as another contender one is, in each round.

        Args:
            name: The contender.
            yardstick: The other one.
            images: Images of an iteration of the first, over those of the other.
        """
        pairs = zip(self.rounds[name], self.rounds[yardstick], strict=True)
        return [images * other / own for own, other in pairs]


def compute_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the 10th and the 90th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return statistics.median(values), tenths[0], tenths[-1]
