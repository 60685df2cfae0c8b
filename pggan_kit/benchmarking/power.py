"""Measure the power that a GPU takes while it works."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import torch

from pggan_kit.benchmarking.timing import Kinds, time_calls

SAMPLE_SECONDS = 0.04
"""Seconds between two samples."""

RISE_SECONDS = 0.1
"""Seconds of work before the first sample that counts: a card's sensors lag behind its work."""

ReadWatts = Callable[[], float]
"""A function that returns the power that is taken now."""


class PowerMeter:
    """A thread that samples power while entered.

    Args:
        read_watts: The function that reads the power.

    Attributes:
        samples: (seconds since entered, watts).
    """

    def __init__(self, read_watts: ReadWatts) -> None:
        self._read_watts = read_watts
        self._done = threading.Event()
        self._error: Exception | None = None
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> PowerMeter:
        """Begin to sample."""
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()

    def compute_mean(self) -> float:
        """Return the mean of the samples without the first ones, or of all where there are no others.

        Raises:
            Exception: The power could not be read.
        """
        if self._error is not None:
            raise self._error
        counted = [watts for seconds, watts in self.samples if seconds >= RISE_SECONDS]
        return statistics.fmean(counted or [watts for _, watts in self.samples])

    def _sample(self) -> None:
        while True:
            try:
                watts = self._read_watts()
            except Exception as error:  # raised where the mean is asked for
                self._error = error
                return
            self.samples.append((time.perf_counter() - self._began, watts))
            if self._done.wait(SAMPLE_SECONDS):
                return


def measure_watts(kinds: Kinds, rate: float, read_watts: ReadWatts, device: torch.device, seconds: float) -> float:
    """Return the mean power while iterations run, and nothing else.

    Args:
        kinds: The kinds of iteration.
        rate: Iterations per second.
        read_watts: The function that reads the power.
        device: The device that they work on.
        seconds: Seconds that this takes, and at least one iteration of each kind.
    """
    with PowerMeter(read_watts) as meter:
        for share, work in kinds:
            time_calls(work, device, max(1, round(share * seconds * rate)))
    return meter.compute_mean()
