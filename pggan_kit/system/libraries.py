"""The versions of what computes beside this package: libraries, the GPU's driver, and what torch was built with."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess

import torch

DISTRIBUTION = "pggan_kit"
"""Name of this package's distribution."""

DRIVER_QUERY = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
"""Command that prints the version of NVIDIA's driver, a line for each GPU."""

DRIVER_SECONDS = 20
"""Maximum seconds that the command may take: where a driver hangs, its version is unknown."""


def list_library_versions() -> dict[str, str | None]:
    """Return the version of each distribution that this package or one of its extras requires; None where missing."""
    names = set()
    for requirement in importlib.metadata.requires(DISTRIBUTION) or ():
        match = re.match(r"[\w.-]+", requirement)
        assert match is not None
        names.add(match[0])
    return {name: _find_version(name) for name in sorted(names, key=str.lower)}


def _find_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_gpu_software() -> dict[str, str | None]:
    """Return the versions of the GPU's driver, and of CUDA and cuDNN as torch was built with them; None if missing."""
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {
        "driver": find_driver_version() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def find_driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None where it cannot be found."""
    try:
        done = subprocess.run(DRIVER_QUERY, capture_output=True, text=True, check=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    return lines[0].strip() if lines else None
