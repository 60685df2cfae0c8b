"""By which code and on which hardware a number came about."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from pggan_kit.system.devices import has_bfloat16
from pggan_kit.version import __version__


def revision() -> str:
    """The commit of this package in a git checkout, with `-dirty` where files differ; elsewhere its version."""
    here = Path(__file__).parent
    try:
        # A virtual environment may lie inside the checkout of something else.
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return __version__


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def hardware() -> str:
    """Return the name of the GPU, or of the processor and how many threads compute."""
    gpu = gpu_name()
    if gpu is not None:
        return gpu
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def describe_environment() -> dict[str, Any]:
    """Return what a run depends on besides its config and the code, as `run.json` holds it."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": gpu_name(),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the speed on a device depends on besides the code, as a benchmark's report holds it."""
    gpu = gpu_name(device)
    return {
        "device": torch.backends.cpu.get_cpu_capability() if gpu is None else gpu,
        "native_bfloat16": has_bfloat16() if gpu is None else torch.cuda.is_bf16_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pggan_kit": __version__,
    }


def gpu_name(device: torch.device | None = None) -> str | None:
    """Return the name of the GPU that a device is, or of the one in use; None where there is none."""
    if device is None:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
