"""The code and the hardware that a number comes from."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from pggan_kit.system.devices import computes_bfloat16
from pggan_kit.system.libraries import list_library_versions
from pggan_kit.version import __version__


def find_revision() -> str:
    """Return the commit of this package in a git checkout, with `-dirty` where files differ; elsewhere its version."""
    here = Path(__file__).parent
    try:
        # A virtual environment may lie inside the checkout of something else.
        _run_git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return _run_git(here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return __version__


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def describe_hardware() -> str:
    """Return the name of the GPU, or of the processor with the number of threads that compute."""
    gpu = find_gpu_name()
    if gpu is not None:
        return gpu
    threads = torch.get_num_threads()
    if threads == 1:
        return f"{_find_processor()}, 1 thread"
    return f"{_find_processor()}, {threads} threads"


def describe_environment() -> dict[str, Any]:
    """Describe what a run depends on besides its config and the code, as `run.json` holds it."""
    return {
        "pggan_kit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": find_gpu_name(),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe what the speed on a device depends on besides the code, as a benchmark's report holds it."""
    # A processor has the name of the instructions that torch uses on it.
    gpu = find_gpu_name(device)
    if gpu is None:
        name = torch.backends.cpu.get_cpu_capability()
    else:
        name = gpu
    return {
        "device": name,
        "processor": _find_processor(),
        "libraries": list_library_versions(),
        "native_bfloat16": computes_bfloat16(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pggan_kit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "triton": find_version("triton"),
    }


def find_version(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_gpu_name(device: torch.device | None = None) -> str | None:
    """Return the name of the GPU that a device is, or of the one in use; None where there is none."""
    if device is None:
        if not torch.cuda.is_available():
            return None
        return torch.cuda.get_device_name()
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_name(device)


def _find_processor() -> str:
    """Return the name of the processor, as well as this system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
