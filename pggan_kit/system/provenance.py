"""By which code and on which hardware a number came about."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

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
    """The GPU, or the processor and how many threads compute."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
