"""New processes of this command, and the processor's cores that they share."""

from __future__ import annotations

import os
import sys

RENDEZVOUS = "PGGAN_KIT_RENDEZVOUS"
"""Environment variable with the address of the file where the processes of `--ranks` find each other."""


def count_cores() -> int:
    """Return the number of the processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_command(*words: str, first: str = "") -> list[str]:
    """Return the command of a new process that runs `pggan-kit` and imports what this process imports.

    Args:
        words: Arguments of `pggan-kit`.
        first: Python code that runs before it.
    """
    # `python -m` would look in the working directory first, and then run a `random.py` that lies there. Nothing that is
    # not built in is imported before the path is set.
    code = (
        f"import sys; sys.path[:] = {[str(entry) for entry in sys.path]!r}; sys.argv[0] = 'pggan-kit'; {first}"
        "from pggan_kit.cli import main; main()"
    )
    return [sys.executable, "-c", code, *words]
