"""Read a GPU's power, clocks and driver from NVML, the library of NVIDIA's driver; no package is needed."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"

SM_CLOCK = 1
MEMORY_CLOCK = 2
"""NVML's numbers of clocks (nvmlClockType_t)."""

POWER_INSTANT = 186
"""NVML's number of the field with the present power in mW (NVML_FI_DEV_POWER_INSTANT). What nvmlDeviceGetPowerUsage
gives is a mean over the last second on recent cards, which includes other work."""


class NvmlError(Exception):
    """What NVML refused, or why it is not there."""


class FieldValue(ctypes.Structure):
    """A value that NVML is asked for by number (nvmlFieldValue_t)."""

    _fields_ = (
        ("field", ctypes.c_uint),
        ("scope", ctypes.c_uint),
        ("timestamp", ctypes.c_longlong),
        ("latency", ctypes.c_longlong),
        ("value_type", ctypes.c_int),
        ("result", ctypes.c_int),
        ("value", ctypes.c_ulonglong),  # a union; power is an unsigned int in its lower half
    )


class Card:
    """A GPU, as NVML knows it.

    Args:
        device: The GPU.
        library: NVML; None to load it.

    Raises:
        NvmlError: There is no NVML, or it does not know the GPU.
    """

    def __init__(self, device: torch.device, library: Any = None) -> None:
        if device.type != "cuda":
            raise NvmlError(f"NVML knows NVIDIA's GPUs, and the device is {device}")
        try:
            self._library = library or ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NvmlError(f"NVML cannot be loaded: {error}") from None
        self._call("nvmlInit_v2")
        # CUDA numbers the GPUs that a process may use, NVML those of the machine.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        if not uuid.startswith("GPU-"):
            uuid = f"GPU-{uuid}"
        self._handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self._handle))

    def read_watts(self) -> float:
        """Return the power that the card takes now.

        Raises:
            NvmlError: The card does not tell it.
        """
        field = FieldValue(field=POWER_INSTANT)
        try:
            self._call("nvmlDeviceGetFieldValues", self._handle, 1, ctypes.byref(field))
        except NvmlError:
            field.result = -1  # an older driver
        if field.result == 0:
            return float(field.value & 0xFFFFFFFF) / 1000
        return self._read_number("nvmlDeviceGetPowerUsage") / 1000

    def describe(self) -> dict[str, Any]:
        """Return the driver, clocks (MHz) and the limit of power (W), without what the card does not tell."""
        # The driver, as text.
        facts: dict[str, Any] = {}
        # NVML writes into a buffer of ours.
        version = ctypes.create_string_buffer(96)
        self._call("nvmlSystemGetDriverVersion", version, len(version))
        facts["driver"] = version.value.decode()

        # Clocks that this card has.
        for name, function, *arguments in (
            ("sm_clock_mhz", "nvmlDeviceGetClockInfo", SM_CLOCK),
            ("sm_clock_max_mhz", "nvmlDeviceGetMaxClockInfo", SM_CLOCK),
            ("memory_clock_mhz", "nvmlDeviceGetClockInfo", MEMORY_CLOCK),
        ):
            try:
                facts[name] = self._read_number(function, *arguments)
            except NvmlError:
                continue
        try:
            facts["power_limit_watts"] = self._read_number("nvmlDeviceGetEnforcedPowerLimit") / 1000
        except NvmlError:
            return facts
        return facts

    def _read_number(self, function: str, *arguments: int) -> int:
        number = ctypes.c_uint()
        self._call(function, self._handle, *arguments, ctypes.byref(number))
        return number.value

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            call = getattr(self._library, function)
        except AttributeError:
            raise NvmlError(f"this NVML has no {function}") from None
        code = call(*arguments)
        if code != 0:
            raise NvmlError(f"{function} failed with NVML's error {code}")
