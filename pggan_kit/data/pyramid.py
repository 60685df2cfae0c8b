"""The size pyramid: a data set's images at each stage's size, built once and kept on disk as memory maps."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pggan_kit.components import Dataset
from pggan_kit.data.area_means import average_areas
from pggan_kit.data.array_files import ArrayWriter, explain_disk_errors, lock_file, open_array
from pggan_kit.data.settings import FILTERS, DataSettings
from pggan_kit.errors import DataError, PluginError, SkipImage
from pggan_kit.schedule import Size
from pggan_kit.system.activities import report_activity
from pggan_kit.system.cache import cache_folder
from pggan_kit.system.files import UNFINISHED

FORMAT = 2
"""Number in every file's key: raise it when the same source, filter and size would give other bytes than before."""

CHUNK_BYTES = 8 << 20
"""Maximum bytes of a chunk's resized images, unless one image alone has more."""

CHUNK_IMAGES = 64
"""Maximum number of images in a chunk."""


class Level(NamedTuple):
    """All images at one size.

    Attributes:
        images: uint8 (n, C, h, w), memory-mapped and read-only. n is the data set's length less what it skipped.
        labels: int64 (n,), or None where there are no labels.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Pyramid:
    """A data set at several sizes, opened from the cache folder and built there where it is missing.

    Each size is made straight from the full-size images: cropped to its aspect ratio around the centre, then resized.
    A file is named by the SHA-256 of format, source, filter and size, so it is reused by every later run and built
    again only if one of them changed; a file of the wrong length or with a wrong header is built again too. All missing
    sizes come from one pass over the images, in `settings.workers` threads (Pillow decodes and resizes outside Python's
    lock, and threads require of a data set only that `image` may be called from several at once).

    Args:
        dataset: Full-size images.
        settings: Filter, cache folder and number of threads.
        sizes: (height, width) of each level.

    Attributes:
        levels: Levels by size.
        fingerprint: Fingerprint of the data set.

    Raises:
        DataError: The data set has no images or one that cannot be used, a label is out of range, or the cache folder
            cannot be written.
    """

    def __init__(self, dataset: Dataset, settings: DataSettings, sizes: Iterable[Size]) -> None:
        if len(dataset) == 0:
            raise DataError("the data set holds no images")
        self.folder = cache_folder(settings.cache) / "pyramids"
        self.fingerprint = dataset.fingerprint()
        # Checkpoints note it, and one that notes something else could not be loaded.
        if type(self.fingerprint) is not str:
            raise PluginError(
                f"fingerprint() of the data set {type(dataset).__name__} must return a string, and returns a "
                f"{type(self.fingerprint).__name__}"
            )
        self._dataset = dataset
        self._settings = settings
        self._source = _digest(self.fingerprint)[:16]

        # The folder is touched only where a level is missing: a complete cache may be read-only for this user.
        distinct_sizes = list(dict.fromkeys(sizes))
        self.levels = self._open_levels(distinct_sizes)
        if len(self.levels) < len(distinct_sizes):
            self._build_missing(distinct_sizes)
            self.levels = self._open_levels(distinct_sizes)
        if len(self.levels) < len(distinct_sizes):
            raise DataError(f"files were removed from {self.folder} while they were built: start again")

    def _name_files(self, size: Size) -> tuple[Path, Path]:
        """Return the paths of the images and of the labels at a size."""
        key = _digest(FORMAT, self.fingerprint, self._settings.filter, *size)
        stem = f"{self._source}-{key}"
        return self.folder / f"{stem}.images.npy", self.folder / f"{stem}.labels.npy"

    def _open_levels(self, sizes: Iterable[Size]) -> dict[Size, Level]:
        """Return the levels that are complete in the cache, by size."""
        levels = {}
        for size in sizes:
            level = self._open_level(size)
            if level is not None:
                levels[size] = level
        return levels

    def _open_level(self, size: Size) -> Level | None:
        """Return the level of a size, or None where it is not complete in the cache."""
        images_path, labels_path = self._name_files(size)
        images = open_array(images_path, np.uint8, 4)
        if images is None or images.shape[2:] != size or not 1 <= len(images) <= len(self._dataset):
            return None
        if not self._dataset.classes:
            return Level(images, None)

        labels = open_array(labels_path, np.int64, 1)
        if labels is None or len(labels) != len(images):
            return None
        return Level(images, np.array(labels))

    def _build_missing(self, sizes: Sequence[Size]) -> None:
        """Build the levels that the cache lacks, unless another process is building them."""
        with explain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

        waiting = report_activity("waiting for another process that resizes the same images")
        with ExitStack() as stack:
            with ExitStack() as until_locked:
                lock = lock_file(self.folder / f"{self._source}.lock", lambda: until_locked.enter_context(waiting))
                locked = stack.enter_context(lock)

            # No other process writes now: temporary files are those of processes that were killed.
            if locked:
                for leftover in self.folder.glob(f".{self._source}-*{UNFINISHED}"):
                    leftover.unlink(missing_ok=True)

            # Another process may have built levels while this one waited.
            levels = self._open_levels(sizes)
            missing = [size for size in sizes if size not in levels]
            if missing:
                self._build(missing)

    def _build(self, sizes: Sequence[Size]) -> None:
        """Build the levels of some sizes in one pass over the images."""
        total = len(self._dataset)
        channels = find_image_channels(self._dataset)
        self._check_space(total * channels * _count_pixels(sizes))
        listed = ", ".join(f"{height}x{width}" for height, width in sizes)
        what = f"resizing images to {listed}"
        skipped: list[str] = []
        enlarged = 0

        # Files that are left before their commit are removed by the stack.
        with ExitStack() as stack:
            image_writers = {}
            label_writers = {}
            for size in sizes:
                images_path, labels_path = self._name_files(size)
                label_writers[size] = stack.enter_context(ArrayWriter(labels_path, np.int64, ()))
                image_writers[size] = stack.enter_context(ArrayWriter(images_path, np.uint8, (channels, *size)))
            activity = stack.enter_context(report_activity(what, total))

            # Threads resize, and this one writes in the data set's order.
            resizer = _Resizer(self._dataset, sizes, channels, self._settings.filter)
            for chunk in _run_in_order(resizer.resize_chunk, resizer.split(), self._settings.count_threads()):
                for size in sizes:
                    image_writers[size].append(chunk.images[size])
                    label_writers[size].append(chunk.labels)
                skipped += chunk.skipped
                enlarged += chunk.enlarged
                activity.advance(len(chunk.labels) + len(chunk.skipped))

            # Labels first: images in their place are the sign that both are there, and are of one build. Damaged ones
            # that might look whole beside other labels go before.
            with explain_disk_errors(self.folder):
                for size in sizes:
                    self._name_files(size)[0].unlink(missing_ok=True)
            for writer in (*label_writers.values(), *image_writers.values()):
                writer.commit()
        self._warn(skipped, enlarged, sizes)

    def _warn(self, skipped: Sequence[str], enlarged: int, sizes: Sequence[Size]) -> None:
        """Warn of images that were skipped or enlarged, and of what the data set noticed."""
        total = len(self._dataset)
        if skipped:
            names = "\n  ".join(skipped[:5])
            if len(skipped) > 5:
                names += "\n  ..."
            warnings.warn(f"{len(skipped)} of {total} images are left out:\n  {names}", stacklevel=2)
        if enlarged:
            height, width = max(sizes)
            warnings.warn(f"{enlarged} of {total} images are smaller than {height}x{width}, and enlarged", stacklevel=2)

        # A data set may have noticed something about its images, now that it has read them all.
        notice: Callable[[], Sequence[str]] = getattr(self._dataset, "list_warnings", list)
        for line in notice():
            warnings.warn(line, stacklevel=2)

    def _check_space(self, needed: int) -> None:
        """Check that the disk has room for a number of bytes: a full disk might show only after an hour of writing."""
        with explain_disk_errors(self.folder):
            free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"the resized images need {needed / 2**30:.1f} GiB, and {self.folder} has {free / 2**30:.1f} GiB free: "
                "free some space, or name another folder with data.cache or $PGGAN_KIT_CACHE"
            )


def _count_pixels(sizes: Iterable[Size]) -> int:
    """Return the pixels of an image at all sizes together."""
    return sum(height * width for height, width in sizes)


def find_image_channels(dataset: Dataset) -> int:
    """Return the channels of the first image that can be read: 1 for gray, 3 for colour.

    Raises:
        DataError: No image can be read, or the image is not uint8 (H, W, 1 or 3).
    """
    for i in range(len(dataset)):
        try:
            image = dataset.image(i)
        except SkipImage:
            continue
        _check_image(image, i)
        return int(image.shape[2])
    raise DataError("the data set holds no image that can be read")


def resize_to_all(image: np.ndarray, sizes: Iterable[Size], filter: str) -> Iterator[tuple[Size, np.ndarray]]:
    """Yield an image at several sizes: cropped to a size's aspect ratio around its centre, then resized.

    Args:
        image: uint8 (H, W, C).
        sizes: (height, width) of the results.
        filter: `area` (each pixel is the mean of what it covers), `lanczos`, or `nearest` (samples pixel centres).

    Yields:
        The size, and the image as uint8 (C, h, w).
    """
    # Sizes of one aspect ratio share a crop, and what is computed of it.
    by_crop: dict[tuple[int, int, int, int], list[Size]] = {}
    for size in sizes:
        crop = _find_centre_crop(image.shape[1], image.shape[0], size)
        by_crop.setdefault(crop, []).append(size)

    for (left, top, width, height), own_sizes in by_crop.items():
        cropped = image[top : top + height, left : left + width]
        if filter == "area":
            yield from average_areas(cropped, own_sizes)
            continue
        picture = Image.fromarray(np.ascontiguousarray(cropped if cropped.shape[2] > 1 else cropped[..., 0]))
        for size in own_sizes:
            resized = np.asarray(picture.resize((size[1], size[0]), FILTERS[filter]))
            yield size, resized.reshape(*size, -1).transpose(2, 0, 1)


def _find_centre_crop(width: int, height: int, size: Size) -> tuple[int, int, int, int]:
    """Return left, top, width and height, in whole pixels, of the largest centred window of a size's aspect ratio."""
    crop_width = min(width, max(1, round(height * size[1] / size[0])))
    crop_height = min(height, max(1, round(width * size[0] / size[1])))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


class _ResizedChunk(NamedTuple):
    """The images of a chunk at all sizes.

    Attributes:
        images: uint8 (n, C, h, w) by size.
        labels: int64 (n,); zeros where there are none.
        skipped: Reason for each image that was left out.
        enlarged: Number of images that are smaller than the largest size.
    """

    images: dict[Size, np.ndarray]
    labels: np.ndarray
    skipped: list[str]
    enlarged: int


class _Resizer:
    """A resizer of a data set, chunk by chunk, to all sizes.

    Args:
        dataset: Full-size images.
        sizes: (height, width) of each level.
        channels: Channels that all images have.
        filter: Filter of the resizing.
    """

    def __init__(self, dataset: Dataset, sizes: Sequence[Size], channels: int, filter: str) -> None:
        self._dataset = dataset
        self._sizes = sizes
        self._channels = channels
        self._filter = filter

    def split(self) -> Iterator[range]:
        """Yield the image numbers of each chunk."""
        bytes_per_image = self._channels * _count_pixels(self._sizes)
        step = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // bytes_per_image))
        total = len(self._dataset)
        for start in range(0, total, step):
            yield range(start, min(total, start + step))

    def resize_chunk(self, numbers: range) -> _ResizedChunk:
        """Return the images of some numbers at all sizes."""
        images = {size: np.empty((len(numbers), self._channels, *size), np.uint8) for size in self._sizes}
        largest_height, largest_width = max(self._sizes)
        labels: list[int] = []
        skipped: list[str] = []
        enlarged = 0
        for i in numbers:
            try:
                image = self._dataset.image(i)
            except SkipImage as error:
                skipped.append(str(error))
                continue
            _check_image(image, i, self._channels)

            # Images that were skipped leave no gap.
            self._resize_image(image, images, len(labels))
            if image.shape[0] < largest_height or image.shape[1] < largest_width:
                enlarged += 1
            labels.append(self._read_label(i))

        kept = {size: rows[: len(labels)] for size, rows in images.items()}
        return _ResizedChunk(kept, np.array(labels, np.int64), skipped, enlarged)

    def _resize_image(self, image: np.ndarray, images: dict[Size, np.ndarray], row: int) -> None:
        """Write an image at each size into a row of the arrays."""
        for size, resized in resize_to_all(image, images, self._filter):
            images[size][row] = resized

    def _read_label(self, i: int) -> int:
        """Return the label of an image, 0 where there are none."""
        classes = self._dataset.classes
        if not classes:
            return 0
        label = self._dataset.label(i)
        if not 0 <= label < classes:
            raise DataError(f"image {i} has label {label}; with {classes} classes it must be in [0, {classes})")
        return int(label)


def _check_image(image: np.ndarray, i: int, channels: int | None = None) -> None:
    """Check that an image is uint8 (H, W, 1 or 3), and has the channels of those before it."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise DataError(f"image {i} must be uint8 (H, W, 1 or 3), and is {image.dtype} {image.shape}")
    if channels is not None and image.shape[2] != channels:
        raise DataError(f"image {i} has {image.shape[2]} channels where those before it have {channels}")


def _run_in_order(
    work: Callable[[range], _ResizedChunk], chunks: Iterator[range], threads: int
) -> Iterator[_ResizedChunk]:
    """Yield the result of each chunk in order, with no more than two for each thread in memory."""
    if threads == 1:
        yield from map(work, chunks)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pyramid")
    running: deque[Future[_ResizedChunk]] = deque()
    try:
        # Two chunks for each thread at first, then another one whenever a result is taken.
        for chunk in itertools.islice(chunks, 2 * threads):
            running.append(pool.submit(work, chunk))
        while running:
            yield running.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                running.append(pool.submit(work, chunk))
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(*fields: str | int) -> str:
    """Return the first 32 digits of the SHA-256 of some fields."""
    return hashlib.sha256(json.dumps(fields, allow_nan=False).encode()).hexdigest()[:32]
