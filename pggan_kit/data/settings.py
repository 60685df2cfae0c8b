"""Define the settings that `data.*` binds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pggan_kit.errors import SettingError, check_at_least, check_choice, check_seed

FILTERS = {"area": None, "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
"""Pillow's filters by name; None for the area mean, which Pillow computes for whole factors only."""


@dataclass(frozen=True)
class DataSettings:
    """How images are resized, cached and drawn (`data.*`).

    Args:
        filter: Filter of the resizing: `area`, `lanczos`, or `nearest` (samples pixel centres).
        mirror: Whether each drawn image is flipped left to right with probability 1/2.
        seed: Seed of the order and the flips of drawn images, from 0 to 2**63 - 1. None for `train.seed`.
        cache: Folder of resized images. None for `$PGGAN_KIT_CACHE`, or else `~/.cache/pggan_kit`.
        workers: Number of threads that read and resize images. None for one per core that this process may use.
            1 reads the data set in the calling thread alone.
        device_memory: Maximum MiB of a GPU's memory for a stage's images, as bytes. Images of a stage that needs more
            are copied batch by batch, one batch ahead. None for a quarter of the free memory; 0 to copy always.

    Raises:
        SettingError: A setting is out of range.
    """

    filter: str = "area"
    mirror: bool = False
    seed: int | None = None
    cache: str | Path | None = None
    workers: int | None = None
    device_memory: int | None = None

    def __post_init__(self) -> None:
        check_choice("filter", self.filter, tuple(FILTERS))
        if not isinstance(self.mirror, bool):
            raise SettingError("mirror", f"must be True or False, not {self.mirror!r}")
        if self.seed is not None:
            check_seed("seed", self.seed)
        if self.cache is not None and (not isinstance(self.cache, (str, Path)) or not str(self.cache)):
            raise SettingError("cache", f"must name a folder, or be None, not {self.cache!r}")
        check_at_least("workers", self.workers, 1, instead="None for one per core", whole=True)
        check_at_least("device_memory", self.device_memory, 0)

    def count_threads(self) -> int:
        """Return the number of threads that `workers` stands for."""
        if self.workers is not None:
            return self.workers
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
