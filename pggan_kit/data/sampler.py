"""The data of a run: its settings, and the stateless sampler over the size pyramid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import Dataset
from pggan_kit.data.pyramid import Level, Progress, Pyramid
from pggan_kit.data.settings import DataSettings
from pggan_kit.schedule import Size, Stage
from pggan_kit.system.seeding import numpy_generator

RESIDENT_BYTES = 1 << 30
"""A level up to this size is read into memory; a larger one stays a memory map."""


class Source(Protocol):
    """Where an update's reals come from: `Sampler`, or what feeds a device with its batches."""

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return images uint8 (count, C, h, w) and labels int64 (count,) or None, for one place of the clock."""


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
