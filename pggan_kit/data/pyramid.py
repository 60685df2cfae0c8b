"""The size pyramid: a data set's images at each stage's size, made once and kept on disk as memory maps."""

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
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pggan_kit.components import Dataset
from pggan_kit.data.array_files import ArrayWriter, disk_errors, file_lock, open_array
from pggan_kit.data.settings import FILTERS, DataSettings
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.schedule import Size
from pggan_kit.system.cache import cache_folder

FORMAT = 1
"""Part of every key: raise it when the same source, filter and size would give other bytes than before."""

CHUNK_BYTES = 8 << 20
CHUNK_IMAGES = 64

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`, called from the thread that builds."""


class Level(NamedTuple):
    """All images at one size.

    Attributes:
        images: uint8 (n, C, h, w), memory-mapped and read-only. n is the data set's length less what it skipped.
        labels: int64 (n,), or None where there are no labels.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Pyramid:
    """A data set at several sizes, opened from the cache folder and built there where missing.

    Each size is made straight from the full-size images: centre-cropped to its aspect ratio, then resized. A file is
    named by the SHA-256 of format, source, filter and size, so it is reused by every later run and rebuilt only if one
    of them changed; one of the wrong length or with a wrong header is rebuilt too. All missing sizes come from one
    pass over the images, in `settings.workers` threads (Pillow decodes and resizes outside Python's lock, and threads
    ask nothing of a data set but that `image` may be called from several at once).

    Args:
        dataset: the full-size images.
        settings: filter, cache folder and threads.
        sizes: (height, width) of each level.
        progress: told how far building is.

    Attributes:
        levels: by size.
        fingerprint: the data set's.

    Raises:
        DataError: no images, an image of the wrong kind, a label out of range, a cache folder that cannot be written.
    """

    def __init__(
        self, dataset: Dataset, settings: DataSettings, sizes: Iterable[Size], progress: Progress | None = None
    ) -> None:
        if len(dataset) == 0:
            raise DataError("the data set holds no images")
        self.folder = cache_folder(settings.cache) / "pyramids"
        self._dataset, self._settings = dataset, settings
        self._progress: Progress = progress or (lambda done, total, what: None)
        self.fingerprint = dataset.fingerprint()
        self._source = _digest(self.fingerprint)[:16]
        wanted = list(dict.fromkeys(sizes))
        self.levels = self._opened(wanted)
        if len(self.levels) < len(wanted):
            # Not before: a complete cache may lie in a folder that this user cannot write.
            self._build_missing(wanted)
            self.levels = self._opened(wanted)
        if len(self.levels) < len(wanted):
            raise DataError(f"somebody removed files from {self.folder} while they were built: start again")

    def _paths(self, size: Size) -> tuple[Path, Path]:
        key = _digest(FORMAT, self.fingerprint, self._settings.filter, *size)
        stem = f"{self._source}-{key}"
        return self.folder / f"{stem}.images.npy", self.folder / f"{stem}.labels.npy"

    def _opened(self, sizes: Iterable[Size]) -> dict[Size, Level]:
        """Those of the levels that lie whole in the cache."""
        levels = {}
        for size in sizes:
            images_path, labels_path = self._paths(size)
            images = open_array(images_path, np.uint8, 4)
            if images is None or images.shape[2:] != size or not 1 <= len(images) <= len(self._dataset):
                continue
            labels = open_array(labels_path, np.int64, 1) if self._dataset.classes else None
            if self._dataset.classes and (labels is None or len(labels) != len(images)):
                continue
            levels[size] = Level(images, None if labels is None else np.array(labels))
        return levels

    def _build_missing(self, wanted: Sequence[Size]) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

        def waiting() -> None:
            self._progress(0, len(self._dataset), "waiting for another process that resizes the same images")

        with file_lock(self.folder / f"{self._source}.lock", waiting) as locked:
            if locked:  # nobody else writes now: these are from processes that were killed
                for leftover in self.folder.glob(f".{self._source}-*.part"):
                    leftover.unlink(missing_ok=True)
            done = self._opened(wanted)  # by whom we waited for
            missing = [size for size in wanted if size not in done]
            if missing:
                self._build(missing)

    def _build(self, sizes: Sequence[Size]) -> None:
        total, channels = len(self._dataset), image_channels(self._dataset)
        self._check_space(total * channels * sum(height * width for height, width in sizes))
        what = "resizing images to " + ", ".join(f"{height}x{width}" for height, width in sizes)
        resizer = _Resizer(self._dataset, sizes, channels, self._settings.filter)
        skipped: list[str] = []
        enlarged = done = 0
        with ExitStack() as stack:
            images, labels = {}, {}
            for size in sizes:
                images_path, labels_path = self._paths(size)
                labels[size] = stack.enter_context(ArrayWriter(labels_path, np.int64, ()))
                images[size] = stack.enter_context(ArrayWriter(images_path, np.uint8, (channels, *size)))
            self._progress(0, total, what)
            for rows in _in_order(resizer, resizer.chunks(), self._settings.threads()):
                for size in sizes:
                    images[size].append(rows.images[size])
                    labels[size].append(rows.labels)
                skipped += rows.skipped
                enlarged += rows.enlarged
                done += len(rows.labels) + len(rows.skipped)
                self._progress(done, total, what)
            # Labels first: images in place say that both are.
            for writer in (*labels.values(), *images.values()):
                writer.commit()
        self._warn(skipped, enlarged, sizes)

    def _warn(self, skipped: Sequence[str], enlarged: int, sizes: Sequence[Size]) -> None:
        total = len(self._dataset)
        if skipped:
            names = "\n  ".join(skipped[:5]) + ("\n  ..." if len(skipped) > 5 else "")
            warnings.warn(f"{len(skipped)} of {total} images are left out:\n  {names}", stacklevel=2)
        if enlarged:
            height, width = max(sizes)
            warnings.warn(f"{enlarged} of {total} images are smaller than {height}x{width}, and enlarged", stacklevel=2)

    def _check_space(self, needed: int) -> None:
        # A full disk would be noticed while writing too, but perhaps an hour later.
        with disk_errors(self.folder):
            free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"the resized images need {needed / 2**30:.1f} GiB, and {self.folder} has {free / 2**30:.1f} GiB free: "
                "free some space, or name another folder with data.cache or $PGGAN_KIT_CACHE"
            )


def image_channels(dataset: Dataset) -> int:
    """1 for gray, 3 for colour: the channels of the first image that can be read.

    Raises:
        DataError: there is none, or it is no uint8 (H, W, 1 or 3).
    """
    for i in range(len(dataset)):
        try:
            return int(_checked(dataset.image(i), i).shape[2])
        except SkipImage:
            continue
    raise DataError("the data set holds no image that can be read")


def resize(picture: Image.Image, size: Size, filter: str) -> np.ndarray:
    """Centre crop to the size's aspect ratio, then resize.

    Args:
        picture: of mode L or RGB.
        size: (height, width).
        filter: `area` (each pixel is the mean of what it covers), `lanczos`, or `nearest` (samples pixel centres).

    Returns:
        uint8 (h, w) or (h, w, 3).
    """
    left, top, crop_width, crop_height = _centre_crop(picture.width, picture.height, size)
    height, width = size
    box = (left, top, left + crop_width, top + crop_height)
    if filter != "area":
        return np.asarray(picture.resize((width, height), FILTERS[filter], box))
    if crop_width % width == 0 and crop_height % height == 0:
        return np.asarray(picture.reduce((crop_width // width, crop_height // height), box))
    # Pillow's BOX counts a pixel that is covered in part wholly or not at all.
    pixels = np.asarray(picture.crop(box), np.float32).reshape(crop_height, crop_width, -1)
    rows = _means(pixels.reshape(crop_height, -1), height).reshape(height, crop_width, -1)
    columns = _means(rows.swapaxes(0, 1).reshape(crop_width, -1), width).reshape(width, height, -1)
    means: np.ndarray = np.floor(columns.swapaxes(0, 1) + 0.5).astype(np.uint8)
    if picture.mode == "RGB":
        return means
    gray: np.ndarray = means[..., 0]
    return gray


def _means(values: np.ndarray, length: int) -> np.ndarray:
    """float32 (n, k) -> (length, k): means of the rows over equal intervals, which may begin or end within a row."""
    means = np.empty((length, values.shape[1]), np.float32)
    for i, (first, weights) in enumerate(_overlaps(len(values), length)):
        np.matmul(weights, values[first : first + len(weights)], out=means[i])
    return means


@lru_cache(maxsize=256)
def _overlaps(source: int, length: int) -> list[tuple[int, np.ndarray]]:
    """For each of `length` equal intervals over `source` pixels: the first pixel it covers, and each one's share."""
    result = []
    for i in range(length):
        # In units of 1/length of a pixel, so that edges on a pixel's border are exact.
        start, end = i * source, (i + 1) * source
        first, stop = start // length, -(-end // length)
        pixels = np.arange(first, stop) * length
        covered = np.minimum(pixels + length, end) - np.maximum(pixels, start)
        result.append((first, (covered / source).astype(np.float32)))
    return result


def _centre_crop(width: int, height: int, size: Size) -> tuple[int, int, int, int]:
    """left, top, width and height, in whole pixels, of the largest centred window of the size's aspect ratio."""
    crop_width = min(width, max(1, round(height * size[1] / size[0])))
    crop_height = min(height, max(1, round(width * size[0] / size[1])))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


class _Rows(NamedTuple):
    images: dict[Size, np.ndarray]
    labels: np.ndarray
    skipped: list[str]
    enlarged: int


class _Resizer:
    """Makes the rows of one chunk of the data set, at all sizes."""

    def __init__(self, dataset: Dataset, sizes: Sequence[Size], channels: int, filter: str) -> None:
        self._dataset, self._sizes, self._channels, self._filter = dataset, sizes, channels, filter

    def chunks(self) -> Iterator[range]:
        per_image = self._channels * sum(height * width for height, width in self._sizes)
        step = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // per_image))
        total = len(self._dataset)
        return (range(start, min(total, start + step)) for start in range(0, total, step))

    def __call__(self, chunk: range) -> _Rows:
        images = {size: np.empty((len(chunk), self._channels, *size), np.uint8) for size in self._sizes}
        labels: list[int] = []
        skipped: list[str] = []
        enlarged = 0
        for i in chunk:
            try:
                image = _checked(self._dataset.image(i), i, self._channels)
            except SkipImage as error:
                skipped.append(str(error))
                continue
            picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if self._channels == 1 else image))
            for size, out in images.items():
                row = resize(picture, size, self._filter)
                out[len(labels)] = row if self._channels == 1 else row.transpose(2, 0, 1)
            height, width = max(self._sizes)
            enlarged += image.shape[0] < height or image.shape[1] < width
            labels.append(self._label(i))
        kept = {size: out[: len(labels)] for size, out in images.items()}
        return _Rows(kept, np.array(labels, np.int64), skipped, enlarged)

    def _label(self, i: int) -> int:
        classes = self._dataset.classes
        if not classes:
            return 0
        label = self._dataset.label(i)
        if not 0 <= label < classes:
            raise DataError(f"image {i} has label {label}; with {classes} classes it must be in [0, {classes})")
        return int(label)


def _checked(image: np.ndarray, i: int, channels: int | None = None) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise DataError(f"image {i} must be uint8 (H, W, 1 or 3), and is {image.dtype} {image.shape}")
    if channels is not None and image.shape[2] != channels:
        raise DataError(f"image {i} has {image.shape[2]} channels where those before it have {channels}")
    return image


def _in_order(work: Callable[[range], _Rows], chunks: Iterator[range], threads: int) -> Iterator[_Rows]:
    """The chunks' results in order, with no more than two for each thread in memory."""
    if threads == 1:
        yield from map(work, chunks)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pyramid")
    try:
        running: deque[Future[_Rows]] = deque(
            pool.submit(work, chunk) for chunk in itertools.islice(chunks, 2 * threads)
        )
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()[:32]
