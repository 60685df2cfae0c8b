"""The device that computes: which it is, what it can do, and how much memory work takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from pggan_kit.errors import ConfigError, first_line, iterate_causes
from pggan_kit.system import distributed

try:
    import resource
except ModuleNotFoundError:  # Windows: see `peak_memory_mib`
    resource = None  # type: ignore[assignment]

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable with the sizes of cuBLAS's work spaces."""

RESET = Path("/proc/self/clear_refs")
"""File of Linux that takes the command to forget a process's peak."""

STATUS = Path("/proc/self/status")
"""File of Linux that holds a process's peak."""


def reset_peak(device: torch.device) -> None:
    """Reset the peak of memory. Outside Linux the peak of a process stays that of its whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")


def read_allocated_mib(device: torch.device) -> float:
    """Return the MiB that tensors on a GPU take now; 0 on other devices, where that is not known."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return 0.0


def read_reserved_mib(device: torch.device) -> float:
    """Return the MiB that torch holds of a GPU's memory now, with what it keeps for tensors to come; 0 elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 2**20
    return 0.0


def free_cached_memory(device: torch.device) -> None:
    """Give a GPU's memory back that torch keeps for tensors to come: those of another stage have other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_mib(device: torch.device) -> float:
    """Return the peak of memory in MiB: allocated on a GPU, else held by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return peak_memory_mib()


def knows_peak_memory() -> bool:
    """Return whether this platform tells a process the peak of its memory."""
    return resource is not None


def peak_memory_mib() -> float:
    """Return the peak of this process's memory in MiB.

    Raises:
        ConfigError: This platform does not tell it.
    """
    if resource is None:
        raise ConfigError(
            f"the memory of a process cannot be measured on this platform ({sys.platform}): Python has no module "
            "`resource` here; measure on a GPU, or on Linux or macOS"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # counts bytes, where others count KiB
        return peak / 2**20
    return peak / 2**10


def read_memory_mib(device: torch.device) -> float:
    """Return all memory of a GPU, or of this machine, in MiB.

    Raises:
        ConfigError: This platform does not tell it.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    if not hasattr(os, "sysconf"):
        raise ConfigError(
            f"this platform ({sys.platform}) does not tell Python how much memory the machine has, so nobody can say "
            "what fits: plan for a GPU, or on Linux or macOS"
        )
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20


def has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices natively."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: an older GPU emulates it, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_bfloat16()


def find_device(name: str) -> torch.device:
    """Return the device that `train.device` names; `auto` is a GPU where there is one, and `cuda` is one with an index.

    Raises:
        ConfigError: There is no such device, or it cannot be used.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", distributed.local_device())
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", distributed.local_device())
        torch.ones(1, device=device).item()  # a device without memory of its own, such as `meta`, has no values
    except Exception as error:  # libraries of devices raise errors of their own, and of imports
        raise ConfigError(f"train.device {name!r} cannot be used: {first_line(error)}") from None
    return device


def prepare_device(name: str, tf32: bool, deterministic: str = "never") -> torch.device:
    """Return the device that `train.device` names, and let the process compute there as the settings say.

    A GPU becomes the current one: events, streams, captured graphs and kernels that are compiled belong to that device
    then, whatever its index, and not to the first.

    Args:
        name: Value of `train.device`.
        tf32: Value of `train.tf32`.
        deterministic: Value of `train.deterministic`.

    Raises:
        ConfigError: There is no such device, or it cannot be used.
    """
    device = find_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        if deterministic != "never":
            # cuBLAS reads it with its first product, and without it has no deterministic ones.
            os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(deterministic != "never", warn_only=deterministic == "warn")
    return device


def lacks_deterministic_kernel(error: BaseException) -> bool:
    """Return whether an operation failed because it has no kernel that gives the same bits each time."""
    return any(
        isinstance(cause, RuntimeError) and "use_deterministic_algorithms(True)" in str(cause)
        for cause in iterate_causes(error)
    )
