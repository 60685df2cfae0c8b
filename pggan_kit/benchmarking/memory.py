"""The most memory that a piece of work takes."""

from __future__ import annotations

from pathlib import Path

import torch

from pggan_kit.meters import peak_memory_mib

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
