"""Test what is read from NVML, with a library that does as NVIDIA's documentation says."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pggan_kit.system import nvml
from pggan_kit.system.nvml import POWER_INSTANT, Card, NvmlError

CUDA = torch.device("cuda", 0)
NOT_SUPPORTED = 3
HANDLE = 4711


class Library:
    """A machine with one GPU that takes 456.7 W now, and took 300 W in the mean of the last second.

    Args:
        lacks: Names of functions that the GPU does not support.
        instant: Whether it tells the present power.
    """

    def __init__(self, lacks: tuple[str, ...] = (), instant: bool = True) -> None:
        self.lacks = lacks
        self.instant = instant
        self.clocks = {1: 1980, 2: 3201}

    def __getattr__(self, name: str) -> Any:
        if name in self.lacks:
            return lambda *arguments: NOT_SUPPORTED
        if name == "nvmlNothing":
            raise AttributeError(name)
        return getattr(self, f"run_{name}")

    def run_nvmlInit_v2(self) -> int:
        return 0

    def run_nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        if uuid != b"GPU-0123-45":
            return 6
        handle._obj.value = HANDLE
        return 0

    def run_nvmlSystemGetDriverVersion(self, buffer: Any, length: int) -> int:
        assert length == 96
        buffer.value = b"580.1"
        return 0

    def run_nvmlDeviceGetClockInfo(self, handle: Any, clock: int, number: Any) -> int:
        assert handle.value == HANDLE
        number._obj.value = self.clocks[clock]
        return 0

    run_nvmlDeviceGetMaxClockInfo = run_nvmlDeviceGetClockInfo

    def run_nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, number: Any) -> int:
        number._obj.value = 700_000
        return 0

    def run_nvmlDeviceGetPowerUsage(self, handle: Any, number: Any) -> int:
        number._obj.value = 300_000
        return 0

    def run_nvmlDeviceGetFieldValues(self, handle: Any, count: int, field: Any) -> int:
        assert count == 1 and field._obj.field == POWER_INSTANT
        field._obj.result = 0 if self.instant else NOT_SUPPORTED
        field._obj.value = (0xABC << 32) | 456_700  # the upper half of the union holds anything
        return 0


@pytest.fixture(autouse=True)
def _one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="0123-45"))


def test_present_power_is_read_where_the_card_tells_it() -> None:
    assert Card(CUDA, Library()).read_watts() == pytest.approx(456.7)
    assert Card(CUDA, Library(instant=False)).read_watts() == 300.0
    assert Card(CUDA, Library(lacks=("nvmlDeviceGetFieldValues",))).read_watts() == 300.0
    silent = Card(CUDA, Library(lacks=("nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage")))
    with pytest.raises(NvmlError, match="nvmlDeviceGetPowerUsage failed with NVML's error 3"):
        silent.read_watts()


def test_a_card_is_described_as_far_as_it_tells() -> None:
    facts = {
        "driver": "580.1",
        "sm_clock_mhz": 1980,
        "sm_clock_max_mhz": 1980,
        "memory_clock_mhz": 3201,
        "power_limit_watts": 700.0,
    }
    assert Card(CUDA, Library()).describe() == facts
    del facts["sm_clock_max_mhz"], facts["power_limit_watts"]
    lacks = ("nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetEnforcedPowerLimit")
    assert Card(CUDA, Library(lacks)).describe() == facts


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NvmlError, match="NVML knows NVIDIA's GPUs, and the device is cpu"):
        Card(torch.device("cpu"))
    monkeypatch.setattr(nvml, "LIBRARY", "no-such-library.so")
    with pytest.raises(NvmlError, match="NVML cannot be loaded: no-such-library"):
        Card(CUDA)
    with pytest.raises(NvmlError, match="this NVML has no nvmlNothing"):
        Card(CUDA, Library())._read_number("nvmlNothing")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-other"))
    with pytest.raises(NvmlError, match="nvmlDeviceGetHandleByUUID failed with NVML's error 6"):
        Card(CUDA, Library())


def test_a_field_value_is_laid_out_as_nvml_has_it() -> None:
    assert ctypes.sizeof(nvml.FieldValue) == 40
    assert nvml.FieldValue.value.offset == 32
