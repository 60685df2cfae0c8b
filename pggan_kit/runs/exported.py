"""Names of what `pggan-kit export` writes, by which it is known from a run."""

from __future__ import annotations

from pathlib import Path

GENERATOR_SUFFIX = ".safetensors"
"""Suffix of the file of a generator."""

HUB_FILE = f"model{GENERATOR_SUFFIX}"
"""Name of the file in a folder for a hub of models."""


def find_exported_generator(path: Path) -> Path | None:
    """Return the file of a generator that a path is, or holds as a folder for a hub; None for anything else."""
    if path.suffix == GENERATOR_SUFFIX and not path.is_dir():
        return path
    file = path / HUB_FILE
    if file.is_file() and not (path / "run.json").exists():
        return file
    return None
