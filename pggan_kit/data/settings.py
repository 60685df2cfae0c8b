"""Define the settings that `data.*` binds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pggan_kit.errors import SettingError, check_at_least, check_choice, check_seed
from pggan_kit.layers.value_maps import Range
from pggan_kit.system.processes import count_cores

FILTERS = {"area": None, "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
"""Pillow's filters by name; None for the area mean, which Pillow computes for whole factors only."""


@dataclass(frozen=True)
class DataSettings:
    """How images are resized, cached, mapped to [-1, 1] and drawn (`data.*`).

    Args:
        filter: Filter of the resizing: `area`, `lanczos`, or `nearest` (samples pixel centres), as masks and labels of
            pixels need it.
        mirror: Whether each drawn image is flipped left to right with probability 1/2.
        seed: Seed of the order and the flips of drawn images, from 0 to 2**63 - 1. None for `train.seed`.
        cache: Folder of resized images. None for `$PGGAN_KIT_CACHE`, or else `~/.cache/pggan_kit`.
        workers: Number of threads that read and resize images. None for one per core that this process may use.
            1 reads the data set in the calling thread alone.
        device_memory: Maximum MiB of a GPU's memory for a stage's images, as bytes. Images of a stage that needs more
            are copied batch by batch, one batch ahead. None for a quarter of the free memory; 0 to copy always.
        value_range: Numbers of the data that become -1 and 1; what is outside is clipped. A pair (low, high), a pair
            for each channel, `'min_max'` for the smallest and the largest number of each channel, or `('percentile',
            0.5, 99.5)`; these two are computed once, from the largest size, and a run that begins from another one has
            its range. None for 0 and 255 of bytes; other types need a range.

    Raises:
        SettingError: A setting is out of range.
    """

    filter: str = "area"
    mirror: bool = False
    seed: int | None = None
    cache: str | Path | None = None
    workers: int | None = None
    device_memory: int | None = None
    value_range: Any = None

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
        parse_value_range(self.value_range)

    @property
    def measures_range(self) -> bool:
        """Return whether the range of numbers is measured in the images."""
        parsed = parse_value_range(self.value_range)
        return parsed is not None and isinstance(parsed[0], str)

    def count_threads(self) -> int:
        """Return the number of threads that `workers` stands for."""
        if self.workers is not None:
            return self.workers
        return count_cores()


MIN_MAX = "min_max"
PERCENTILE = "percentile"

VALUE_RANGE = (
    "must be (low, high), such as (0, 4095), a list of such pairs, one for each channel, 'min_max', or ('percentile', "
    "0.5, 99.5)"
)
"""What `data.value_range` may be, for messages."""


def parse_value_range(value: Any) -> tuple[Any, ...] | None:
    """Return the value of `data.value_range` in one form.

    Returns:
        `(MIN_MAX,)`; `(PERCENTILE, low, high)`; a pair (low, high) for all channels, or for each; None for None.

    Raises:
        SettingError: It is none of these.
    """
    # The forms without numbers.
    if value is None:
        return None
    if value == MIN_MAX:
        return (MIN_MAX,)

    # Numbers: two percentiles, a pair, or a pair for each channel.
    wrong = SettingError("value_range", f"{VALUE_RANGE}, not {value!r}")
    if not isinstance(value, (list, tuple)) or not value:
        raise wrong
    if value[0] == PERCENTILE:
        low, high = _parse_pair(value[1:], wrong)
        if low < 0 or high > 100:
            raise wrong
        return PERCENTILE, low, high
    pairs = value if isinstance(value[0], (list, tuple)) else [value]
    return tuple(_parse_pair(pair, wrong) for pair in pairs)


def _parse_pair(pair: Any, wrong: SettingError) -> Range:
    """Return two finite numbers, the lower one first; raise an error where they are not."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise wrong
    for number in pair:
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        # Whole numbers may be larger than any float.
        if not is_number or not abs(number) <= sys.float_info.max:
            raise wrong
    low, high = float(pair[0]), float(pair[1])
    if low >= high:
        raise wrong
    return low, high
