"""The most memory that a piece of work takes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pggan_kit.errors import ConfigError, first_line
from pggan_kit.system import distributed

try:
    import resource
except ModuleNotFoundError:  # Windows: see `peak_memory_mib`
    resource = None  # type: ignore[assignment]

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """Measure from here on. Where the system cannot forget a process's peak (not on Linux), it is that of its life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")


def peak_mib(device: torch.device) -> float:
    """Allocated on a GPU, else held by the whole process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return peak_memory_mib()


def knows_peak_memory() -> bool:
    """Return whether this platform tells a process how much memory it has held at most."""
    return resource is not None


def peak_memory_mib() -> float:
    """Return the most memory that this process has held, in MiB.

    Raises:
        ConfigError: this platform does not tell it.
    """
    if resource is None:
        raise ConfigError(
            f"the memory of a process cannot be measured on this platform ({sys.platform}): Python has no module "
            "`resource` here; measure on a GPU, or on Linux or macOS"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices natively."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def device_of(name: str) -> torch.device:
    """The device of `train.device`; `auto` is a GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", distributed.local_device())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device {name!r} cannot be used: {first_line(error)}") from None
    return device


def prepared_device(name: str, tf32: bool) -> torch.device:
    """The device of `train.device`, with float32 as exact as `train.tf32` wants it; that holds for the process.

    Raises:
        ConfigError: no such device.
    """
    device = device_of(name)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return device
