"""The data of a run: its settings, and the stateless sampler over the size pyramid."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import Dataset
from pggan_kit.errors import DataError, check_choice
from pggan_kit.pyramid import FILTERS, Level, Progress, Pyramid
from pggan_kit.schedule import Size, Stage
from pggan_kit.system.seeding import numpy_generator

RESIDENT_BYTES = 1 << 30
"""A level up to this size is read into memory; a larger one stays a memory map."""


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
            raise ValueError(f"mirror must be True or False, not {self.mirror!r}")
        if self.cache is not None and (not isinstance(self.cache, str) or not self.cache):
            raise ValueError(f"cache must name a folder, or be None, not {self.cache!r}")
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise ValueError(f"workers must be at least 1, or None for one a core, not {self.workers!r}")
        if self.device_memory is not None and self.device_memory < 0:
            raise ValueError(f"device_memory must not be negative, and is {self.device_memory}")

    def cache_folder(self) -> Path:
        """The folder that `cache` stands for.

        Raises:
            DataError: it is under a home folder that is not known.
        """
        chosen = self.cache or os.environ.get("PGGAN_KIT_CACHE") or "~/.cache/pggan_kit"
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise DataError(
                f"no home folder for {chosen}: name a folder with data.cache or $PGGAN_KIT_CACHE"
            ) from error

    def threads(self) -> int:
        """The number that `workers` stands for."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Sampler:
    """The endless sequence of one level's images in random order; position p on the clock always has the same one.

    Each epoch holds every image once: position p shows image `permutation(seed, p // n)[p % n]`. Nothing is
    remembered from one batch to the next but the last epoch's permutation, to save time.

    Args:
        level: the images.
        seed: of order and flips.
        mirror: whether images are flipped, each with probability 1/2, decided by (seed, position).

    Attributes:
        images: uint8 (n, C, h, w), in the data set's order.
        labels: int64 (n,), or None where there are none.
    """

    def __init__(self, level: Level, seed: int, mirror: bool = False) -> None:
        self.images = np.array(level.images) if level.images.nbytes <= RESIDENT_BYTES else level.images
        self.labels = level.labels
        self._seed, self._mirror = seed, mirror
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._flips = np.empty(0, np.bool_)

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """The images at positions `position` to `position + count - 1`, which may lie in several epochs.

        Returns:
            uint8 (count, C, h, w), a copy of its own, and int64 labels (count,) or None where there are none.
        """
        rows, flips = self.rows(position, count)
        images = torch.from_numpy(self.images.take(rows, axis=0))
        if flips is not None:
            flipped = torch.from_numpy(np.flatnonzero(flips))
            images[flipped] = images[flipped].flip(3)
        return images, None if self.labels is None else torch.from_numpy(self.labels.take(rows))

    @property
    def nbytes(self) -> int:
        """Of the images."""
        return int(self.images.nbytes)

    def rows(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Which images a batch has, int64 (count,), and which of them are flipped, bool (count,); None: none ever."""
        orders, flips = [], []
        while count > 0:
            epoch, start = divmod(position, len(self.images))
            self._turn_to(epoch)
            orders.append(self._order[start : start + count])
            flips.append(self._flips[start : start + count])
            position += len(orders[-1])
            count -= len(orders[-1])
        return np.concatenate(orders), np.concatenate(flips) if self._mirror else None

    def _turn_to(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        n = len(self.images)
        self._order = numpy_generator(self._seed, "order", epoch).permutation(n)
        if self._mirror:
            self._flips = numpy_generator(self._seed, "mirror", epoch).random(n, np.float32) < 0.5
        self._epoch = epoch


class Data:
    """An opened data set: what `open_data` returns. Its length is the number of images that can be drawn.

    Attributes:
        image_channels: 1 for gray, 3 for colour.
        classes: number of classes of the labels; 0 without labels.
        skipped: images of the data set that were left out, because they could not be read.
        fingerprint: the data set's.
    """

    def __init__(self, dataset: Dataset, pyramid: Pyramid, seed: int, mirror: bool) -> None:
        self._levels, self._seed, self._mirror = pyramid.levels, seed, mirror
        largest = self._levels[max(self._levels)].images
        self._length, self.image_channels = int(largest.shape[0]), int(largest.shape[1])
        self.classes = dataset.classes
        self.fingerprint = pyramid.fingerprint
        self.skipped = len(dataset) - self._length

    def __len__(self) -> int:
        return self._length

    def level(self, size: Size) -> Level:
        """All images of one size, in the data set's order."""
        return self._levels[size]

    def sampler(self, stage: Stage | Size) -> Sampler:
        """A sampler of the stage's images. It holds them in memory where they are small: drop it after the stage."""
        return Sampler(self._levels[_size(stage)], self._seed, self._mirror)


def open_data(
    dataset: Dataset,
    settings: DataSettings,
    stages: Iterable[Stage | Size],
    seed: int,
    progress: Progress | None = None,
) -> Data:
    """Open a data set at the sizes of these stages; those that the cache lacks are made first.

    Args:
        dataset: the full-size images.
        settings: how they are resized, kept and drawn.
        stages: stages, or (height, width) pairs; at least one.
        seed: of order and flips.
        progress: `progress(done, total, what)`, told while images are being resized.

    Raises:
        DataError: no images, an image or label that cannot be used, a cache folder that cannot be written.
    """
    pyramid = Pyramid(dataset, settings, [_size(stage) for stage in stages], progress)
    return Data(dataset, pyramid, seed, settings.mirror)


def _size(stage: Stage | Size) -> Size:
    return (stage.height, stage.width) if isinstance(stage, Stage) else (stage[0], stage[1])
