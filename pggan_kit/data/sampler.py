"""The data of a run: the opened data set, and the stateless sampler over its size pyramid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import Dataset
from pggan_kit.data.array_files import RowReader, find_map
from pggan_kit.data.contents import get_class_names, get_left_out
from pggan_kit.data.pyramid import Level, Pyramid
from pggan_kit.data.recorded import RecordedDataset
from pggan_kit.data.settings import DataSettings
from pggan_kit.data.value_range import find_value_map, say_what_is_clipped
from pggan_kit.errors import DataError
from pggan_kit.layers.value_maps import BYTES, ValueMap, hold_in_tensor
from pggan_kit.schedule import Size, Stage
from pggan_kit.system.seeding import numpy_generator

RESIDENT_BYTES = 1 << 30
"""Maximum bytes of a level that is read into memory; of a larger one, rows are read as they are drawn."""


FLIPPED_AT_ONCE = 64
"""Number of images that are flipped at a time as a level is."""

WORDS = (np.uint64, np.uint32, np.uint16, np.uint8)
"""Types of the words in which bytes are reversed, the widest first."""


class Source(Protocol):
    """Where an update's reals come from: `Sampler`, or a feed that brings its batches to a device.

    Attributes:
        values: Map of their numbers to [-1, 1].
    """

    values: ValueMap

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return images (count, C, h, w) and labels int64 (count,) or None, for one place of the clock.

        Images are the data's own numbers as `hold_in_tensor` holds them, which `values` maps to [-1, 1].
        """


class Sampler:
    """The endless sequence of one level's images in random order, where a position always has the same image.

    Each epoch holds every image once: position p shows image `permutation(seed, p // n)[p % n]`. Only the last epoch's
    permutation is remembered between batches, to save time.

    Args:
        level: Images to draw.
        seed: Seed of order and flips.
        mirror: Whether images are flipped, each with probability 1/2, decided by (seed, position).
        values: Map of their numbers to [-1, 1].

    Attributes:
        images: Images (n, C, h, w), in the data set's order.
        labels: int64 (n,), or None where there are none.
    """

    def __init__(self, level: Level, seed: int, mirror: bool = False, values: ValueMap = BYTES) -> None:
        self.values = values
        self.images = level.images
        self._reader: RowReader | None = None
        if level.images.nbytes <= RESIDENT_BYTES:
            self.images = np.array(level.images)
        elif RowReader.can_read(level.images):
            self._reader = RowReader(level.images)

        # The order of an epoch, and which of its images are mirrored; drawn when the first is asked for.
        self.labels = level.labels
        self._seed = seed
        self._mirror = mirror
        self._both_ways: np.ndarray | None = None
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._flips = np.empty(0, np.bool_)

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return the images at positions `position` to `position + count - 1`, which may lie in several epochs.

        Returns:
            Images (count, C, h, w) as `hold_in_tensor` holds them, which the caller may change, and labels int64
            (count,) or None where there are none.
        """
        rows, flips = self.pick_rows(position, count)

        # Both ways copy: flips, and whatever the caller does, leave the level as it is.
        if flips is not None and self._has_room_for_both_ways():
            if self._both_ways is None:
                self._both_ways = add_flipped(self.images)
            pictures = self._both_ways.take(rows + len(self.images) * flips, axis=0)
            flips = None
        elif self._reader is None:
            pictures = self.images.take(rows, axis=0)
        else:
            pictures = self._reader.take(rows)
            next_rows, _ = self.pick_rows(position + count, count)
            self._reader.read_ahead(next_rows)

        if flips is not None:
            flip_rows(pictures, flips)
        images = hold_in_tensor(pictures)
        if self.labels is None:
            return images, None
        return images, torch.from_numpy(self.labels.take(rows))

    def _has_room_for_both_ways(self) -> bool:
        """Return whether flipped images are kept beside the others: to flip a batch takes longer than to copy it."""
        return self.is_resident and 2 * self.nbytes <= RESIDENT_BYTES

    @property
    def is_resident(self) -> bool:
        """Return whether the images are in memory, and not read as they are drawn."""
        return find_map(self.images) is None

    @property
    def nbytes(self) -> int:
        """Return the bytes of the images."""
        return int(self.images.nbytes)

    def pick_rows(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return which images a batch has, and which of them are flipped.

        Returns:
            Rows int64 (count,), and flips bool (count,) or None where images are never flipped.
        """
        orders = []
        flips = []
        while count > 0:
            # As much of the batch as lies in this epoch.
            epoch, start = divmod(position, len(self.images))
            self._shuffle(epoch)
            order = self._order[start : start + count]
            orders.append(order)
            flips.append(self._flips[start : start + count])
            position += len(order)
            count -= len(order)
        if not self._mirror:
            return np.concatenate(orders), None
        return np.concatenate(orders), np.concatenate(flips)

    def _shuffle(self, epoch: int) -> None:
        """Draw the order and the flips of an epoch, unless it is the last one that was drawn."""
        if epoch == self._epoch:
            return
        n = len(self.images)
        self._order = numpy_generator(self._seed, "order", epoch).permutation(n)
        if self._mirror:
            self._flips = numpy_generator(self._seed, "mirror", epoch).random(n, np.float32) < 0.5
        self._epoch = epoch


def add_flipped(images: np.ndarray) -> np.ndarray:
    """Return images (n, C, h, w), and behind them the same ones flipped from left to right: (2n, C, h, w)."""
    count = len(images)
    both = np.concatenate([images, images])
    # In parts, since flipping needs memory besides.
    for start in range(count, 2 * count, FLIPPED_AT_ONCE):
        part = both[start : start + FLIPPED_AT_ONCE]
        flip_rows(part, np.ones(len(part), np.bool_))
    return both


def flip_rows(images: np.ndarray, flips: np.ndarray) -> None:
    """Flip some images from left to right, in place.

    Bytes are reversed in words of up to eight, and the words in their order: one byte at a time takes four times as
    long.

    Args:
        images: Images (count, C, h, w), contiguous.
        flips: Whether each is flipped, bool (count,).
    """
    # Numbers of several bytes are reversed as they are.
    chosen = np.flatnonzero(flips)
    if images.itemsize > 1:
        images[chosen] = images[chosen][..., ::-1]
        return

    # Bytes: the widest word that divides a row.
    width = images.shape[3]
    word = next(kind for kind in WORDS if width % np.dtype(kind).itemsize == 0)
    words = images.view(word)
    flipped = words[chosen]
    if word is not np.uint8:
        flipped.byteswap(inplace=True)
    words[chosen] = flipped[..., ::-1]


class Data:
    """An opened data set, as `open_data` returns it. Its length is the number of images that can be drawn.

    Args:
        dataset: Full-size images.
        pyramid: Images of the data set at each size.
        seed: Seed of order and flips.
        mirror: Whether drawn images are flipped with probability 1/2.
        values: Map of the images' numbers to [-1, 1].

    Attributes:
        image_channels: Channels of the images.
        classes: Number of classes of the labels; 0 without labels.
        labels: Labels of the images, int64; None where there are none.
        class_names: Names of the classes by their numbers; none where the data set has no names.
        left_out: Number of entries that the data set did not read, by kind.
        skipped: Number of images that were left out because they could not be read.
        fingerprint: Fingerprint of the data set.
        take_census: Function that returns what the images are in their files.
    """

    def __init__(self, dataset: Dataset, pyramid: Pyramid, seed: int, mirror: bool, values: ValueMap) -> None:
        self._levels = pyramid.levels
        self.take_census = pyramid.take_census
        self._seed = seed
        self._mirror = mirror
        self.values = values

        # All levels have the same images.
        largest = self._levels[max(self._levels)].images
        self._length = int(largest.shape[0])
        self.image_channels = int(largest.shape[1])
        self.labels = self._levels[max(self._levels)].labels
        self.classes = int(dataset.classes)  # files record no integer of NumPy
        self.class_names = get_class_names(dataset)
        self.left_out = get_left_out(dataset)
        self.fingerprint = pyramid.fingerprint
        self.skipped = len(dataset) - self._length

    def __len__(self) -> int:
        return self._length

    def level(self, size: Size) -> Level:
        """Return all images of one size, in the data set's order."""
        return self._levels[size]

    def record(self) -> dict[str, Any]:
        """Return what a run's files record of its data."""
        # Bytes from 0 to 255 are what is meant where nothing is said.
        values = {} if self.values.is_plain else {"values": self.values.record()}
        return {
            "images": self._length + self.skipped,
            "channels": self.image_channels,
            "classes": self.classes,
            "class_names": self.class_names,
            "skipped": self.skipped,
            "left_out": self.left_out,
            **values,
        }

    def draw_order(self) -> np.ndarray:
        """Return the numbers of all images in a random order that is always the same."""
        return numpy_generator(self._seed, "sheet").permutation(self._length)

    def sampler(self, stage: Stage | Size) -> Sampler:
        """Return a sampler of a stage's images. It holds small ones in memory: drop it after the stage."""
        return Sampler(self._levels[_get_size(stage)], self._seed, self._mirror, self.values)


def open_data(
    dataset: Dataset,
    settings: DataSettings,
    stages: Iterable[Stage | Size],
    seed: int,
    fingerprint: str | None = None,
    values: ValueMap | None = None,
) -> Data:
    """Open a data set at the sizes of stages; sizes that the cache lacks are built first.

    Args:
        dataset: Full-size images.
        settings: How images are resized, cached and drawn.
        stages: Stages, or (height, width) pairs; at least one.
        seed: Seed of order and flips, unless the settings have one.
        fingerprint: Fingerprint of the data set, where it is known. None to ask the data set for it.
        values: Map of other data's numbers, with which these are compared. None for that of the settings.

    Raises:
        DataError: The data set has no images or one that cannot be used, a label is out of range, the numbers have no
            range or another type than those of `values`, or the cache folder cannot be written.
        SettingError: There is not one range for each channel.
    """
    # What a run records of its data names no images.
    if isinstance(dataset, RecordedDataset):
        raise dataset.make_error("images")

    # The resized copies.
    sizes = [_get_size(stage) for stage in stages]
    pyramid = Pyramid(dataset, settings, sizes, fingerprint)
    if settings.seed is not None:
        seed = settings.seed

    # The map of numbers to [-1, 1]: that of these data, or of those that they are compared with.
    images = pyramid.levels[max(pyramid.levels)].images
    if values is None:
        values = find_value_map(dataset, images, settings.value_range)
    elif values.kind != images.dtype.name:
        raise DataError(f"the images are {images.dtype}, and those of the training data {values.kind}: convert them")
    else:
        say_what_is_clipped(dataset, images, values)
    return Data(dataset, pyramid, seed, settings.mirror, values)


def _get_size(stage: Stage | Size) -> Size:
    """Return the (height, width) of a stage, or a pair as it is."""
    if isinstance(stage, Stage):
        return stage.height, stage.width
    return stage[0], stage[1]
