"""Define the settings that `data.*` binds."""

from __future__ import annotations

import os
from dataclasses import dataclass

from PIL import Image

from pggan_kit.errors import SettingError, check_at_least, check_choice

FILTERS = {"area": None, "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
"""Pillow's filter by name; None for the area mean, which Pillow has for whole factors only."""


@dataclass(frozen=True)
class DataSettings:
    """How images are resized, kept and drawn (`data.*`).

    Args:
        filter: of the resizing: `area`, `lanczos`, or `nearest` (samples pixel centres).
        mirror: whether each drawn image is flipped left to right with probability 1/2.
        cache: the folder that keeps resized images. None: `$PGGAN_KIT_CACHE`, or else `~/.cache/pggan_kit`.
        workers: threads that read and resize. None: one for each core that this process may use. 1: the data set
            is read by the calling thread alone.
        device_memory: MiB of a GPU's memory that a stage's images may take, as bytes. Those of a stage that needs more
            are copied batch by batch, one ahead. None: a quarter of what is free; 0: always copied.

    Raises:
        ValueError: a setting out of range; the message begins with its name.
    """

    filter: str = "area"
    mirror: bool = False
    cache: str | None = None
    workers: int | None = None
    device_memory: int | None = None

    def __post_init__(self) -> None:
        check_choice("filter", self.filter, tuple(FILTERS))
        if not isinstance(self.mirror, bool):
            raise SettingError("mirror", f"must be True or False, not {self.mirror!r}")
        if self.cache is not None and (not isinstance(self.cache, str) or not self.cache):
            raise SettingError("cache", f"must name a folder, or be None, not {self.cache!r}")
        check_at_least("workers", self.workers, 1, instead="None for one a core", whole=True)
        check_at_least("device_memory", self.device_memory, 0)

    def threads(self) -> int:
        """The number that `workers` stands for."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
