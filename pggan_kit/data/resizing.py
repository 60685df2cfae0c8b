"""Resize the images of a data set to several sizes, a chunk of images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
from PIL import Image

from pggan_kit.components import Dataset
from pggan_kit.data.area_means import average_areas
from pggan_kit.data.build_journal import Progress
from pggan_kit.data.image_kinds import ImageKind, check_image, name_image
from pggan_kit.data.level_files import DIGEST_WORDS, MODE_PLACE, ROW_WORDS, SHAPE_PLACE, ReusableRows, encode_mode
from pggan_kit.data.settings import FILTERS
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.schedule import Size

CHUNK_BYTES = 8 << 20
"""Maximum bytes of a chunk's resized images, unless one image alone has more."""


CHUNK_IMAGES = 64
"""Maximum number of images in a chunk."""


def count_pixels(sizes: Iterable[Size]) -> int:
    """Return the pixels of an image at all sizes together."""
    return sum(height * width for height, width in sizes)


def resize_to_all(image: np.ndarray, sizes: Iterable[Size], filter: str) -> Iterator[tuple[Size, np.ndarray]]:
    """Yield an image at several sizes: cropped to a size's aspect ratio around its centre, then resized.

    Args:
        image: uint8, uint16, int16 or float32 (H, W, C).
        sizes: (height, width) of the results.
        filter: `area` (each pixel is the mean of what it covers), `lanczos`, or `nearest` (samples pixel centres).

    Yields:
        The size, and the image (C, h, w) of the same type.
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
        planes = [_hold_plane(cropped[..., c], filter) for c in range(cropped.shape[2])]
        for size in own_sizes:
            resized = [np.asarray(plane.resize((size[1], size[0]), FILTERS[filter])) for plane in planes]
            yield size, _round_to(np.stack(resized), image.dtype)


def _hold_plane(plane: np.ndarray, filter: str) -> Image.Image:
    """Return a channel (H, W) as a picture of a mode that Pillow resizes without loss."""
    if plane.dtype != np.uint8:
        # Numbers that are only moved stay whole; others are rounded once, at the end.
        kind = np.int32 if filter == "nearest" and plane.dtype.kind in "iu" else np.float32
        plane = plane.astype(kind)
    return Image.fromarray(np.ascontiguousarray(plane))


def _round_to(resized: np.ndarray, kind: np.dtype[np.generic]) -> np.ndarray:
    """Return resized numbers as the type of the source, rounded and clipped where it holds whole ones."""
    if resized.dtype == kind:
        return resized
    limits = np.iinfo(kind.name)
    rounded: np.ndarray = np.clip(np.rint(resized), limits.min, limits.max).astype(kind)
    return rounded


def _find_centre_crop(width: int, height: int, size: Size) -> tuple[int, int, int, int]:
    """Return left, top, width and height, in whole pixels, of the largest centred window of a size's aspect ratio."""
    crop_width = min(width, max(1, round(height * size[1] / size[0])))
    crop_height = min(height, max(1, round(width * size[0] / size[1])))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


class ResizedChunk(NamedTuple):
    """The images of a chunk at all sizes.

    Attributes:
        images: The images (n, C, h, w) by size.
        labels: int64 (n,); zeros where there are none.
        rows: uint32 (n, `ROW_WORDS`), see `LevelFiles.rows`.
        skipped: Reason for each image that was left out.
        enlarged: Number of images that are smaller than the largest size.
        reused: Number of images that were copied from older levels.
        skipped_images: Number of each image that was left out.
    """

    images: dict[Size, np.ndarray]
    labels: np.ndarray
    rows: np.ndarray
    skipped: list[str]
    enlarged: int
    reused: int
    skipped_images: list[int]

    def add_to(self, progress: Progress) -> Progress:
        """Return the progress of a build with this chunk."""
        return Progress(
            progress.images + len(self.labels) + len(self.skipped),
            progress.rows + len(self.labels),
            progress.skipped + self.skipped,
            progress.enlarged + self.enlarged,
            progress.reused + self.reused,
            progress.skipped_images + self.skipped_images,
        )


class Resizer:
    """A resizer of a data set, chunk by chunk, to all sizes.

    Args:
        dataset: Full-size images.
        sizes: (height, width) of each level.
        kind: Channels and type that all images have.
        filter: Filter of the resizing.
        digests: See `digest_rows`.
        reusable: Rows of older levels that are copied instead of resized.
    """

    def __init__(
        self,
        dataset: Dataset,
        sizes: Sequence[Size],
        kind: ImageKind,
        filter: str,
        digests: np.ndarray | None = None,
        reusable: ReusableRows | None = None,
    ) -> None:
        self._dataset = dataset
        self._sizes = sizes
        self._kind = kind
        self._filter = filter
        self._digests = digests
        self._reusable = reusable
        self._get_mode: Callable[[int], str] | None = getattr(dataset, "image_mode", None)

    def split(self, start: int) -> Iterator[range]:
        """Yield the image numbers of each chunk, from one image on."""
        bytes_per_image = self._kind.count_bytes(count_pixels(self._sizes))
        step = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // bytes_per_image))
        total = len(self._dataset)
        for first in range(start, total, step):
            yield range(first, min(total, first + step))

    def resize_chunk(self, numbers: range) -> ResizedChunk:
        """Return the images of some numbers at all sizes."""
        images = {size: np.empty((len(numbers), self._kind.channels, *size), self._kind.dtype) for size in self._sizes}
        rows = np.zeros((len(numbers), ROW_WORDS), np.uint32)
        largest_height, largest_width = max(self._sizes)
        labels: list[int] = []
        skipped: list[str] = []
        skipped_images: list[int] = []
        enlarged = 0
        reused = 0
        for i in numbers:
            # Images that were skipped leave no gap.
            row = len(labels)
            older = None if self._reusable is None else self._reusable.copy(i, images, row)
            if older is not None:
                rows[row] = older
                reused += 1
            else:
                try:
                    image = self._dataset.image(i)
                except SkipImage as error:
                    skipped.append(str(error))
                    skipped_images.append(i)
                    continue
                image = check_image(self._dataset, image, i, self._kind)
                self._resize_image(image, images, row)
                rows[row, SHAPE_PLACE:MODE_PLACE] = image.shape[:2]
                if self._get_mode is not None:
                    rows[row, MODE_PLACE:] = encode_mode(self._get_mode(i))

            if self._digests is not None:
                rows[row, :DIGEST_WORDS] = self._digests[i]
            height, width = rows[row, SHAPE_PLACE:MODE_PLACE].tolist()
            if height < largest_height or width < largest_width:
                enlarged += 1
            labels.append(self._read_label(i))

        kept = {size: own[: len(labels)] for size, own in images.items()}
        kept_rows = rows[: len(labels)]
        return ResizedChunk(kept, np.array(labels, np.int64), kept_rows, skipped, enlarged, reused, skipped_images)

    def _resize_image(self, image: np.ndarray, images: dict[Size, np.ndarray], row: int) -> None:
        """Write an image at each size into a row of the arrays."""
        for size, resized in resize_to_all(image, images, self._filter):
            images[size][row] = resized

    def _read_label(self, i: int) -> int:
        """Return the label of an image, 0 where there are none."""
        classes = self._dataset.classes
        if not classes:
            return 0
        label: object = self._dataset.label(i)
        if not isinstance(label, Integral):
            raise DataError(
                f"{name_image(self._dataset, i)} has the label {label!r}, a {type(label).__name__}: labels are whole "
                f"numbers in [0, {classes})"
            )
        number = int(label)
        if not 0 <= number < classes:
            raise DataError(f"image {i} has label {number}; with {classes} classes it must be in [0, {classes})")
        return number
