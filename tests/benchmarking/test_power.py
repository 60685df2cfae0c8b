"""Test how power is sampled, with a made-up reader."""

from __future__ import annotations

import time

import pytest
import torch
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.benchmarking import power
from pggan_kit.benchmarking.power import PowerMeter, measure_watts

CPU = torch.device("cpu")


def test_the_rise_does_not_count() -> None:
    meter = PowerMeter(lambda: 0.0)
    meter.samples = [(0.0, 90.0), (power.RISE_SECONDS / 2, 200.0), (power.RISE_SECONDS, 400.0), (0.5, 500.0)]
    assert meter.compute_mean() == 450.0
    meter.samples = meter.samples[:2]
    assert meter.compute_mean() == 145.0


def test_power_is_sampled_while_iterations_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(power, "RISE_SECONDS", 0.0)
    read = 0

    def read_watts() -> float:
        nonlocal read
        read += 1
        return 300.0 if read % 2 else 500.0

    counts = {"plain": 0, "lazy": 0}

    def run(kind: str) -> None:
        counts[kind] += 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        before = read
        while read < before + 4:
            assert time.monotonic() < deadline, "nothing is sampled"
            time.sleep(0.001)

    kinds = [(0.75, lambda: run("plain")), (0.25, lambda: run("lazy"))]
    watts = measure_watts(kinds, rate=8.0, read_watts=read_watts, device=CPU, seconds=0.5)
    assert counts == {"plain": 3, "lazy": 1}
    assert watts == pytest.approx(400.0, abs=20)
    assert read >= 16
    done = read
    time.sleep(0.02)
    assert read == done


def test_what_a_reader_raises_is_raised() -> None:
    def fail() -> float:
        raise OSError("the sensor is gone")

    with pytest.raises(OSError, match="the sensor is gone"):
        measure_watts([(1.0, lambda: None)], 1.0, fail, CPU, 0.0)
