"""Find channels with one number alone: bands that are missing in an image, or in all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.image_kinds import name_image

FEWEST_PIXELS = 16
"""Minimum number of pixels of a level that is searched: images of fewer have one number by chance."""

CHUNK_BYTES = 64 << 20
"""Maximum bytes of a level that are read at once."""


ADVICE = "nothing is changed; where it is a fault, leave them out of the data"
"""What to do about images that have one number alone."""


def describe_constant_channels(
    dataset: Dataset, levels: Sequence[np.ndarray], skipped_images: Sequence[int] = ()
) -> list[str]:
    """Describe the channels of a data set that have one number alone.

    Args:
        dataset: Data set, for the names of its images.
        levels: Images (n, C, h, w) at each size that was built.
        skipped_images: Numbers of the images that were left out, in rising order: they have no row in a level.

    Returns:
        A sentence for each channel that has one number in some image; none at sizes of very few pixels.
    """
    rising = sorted(levels, key=lambda level: int(np.prod(level.shape[2:])))
    searched = [level for level in rising if np.prod(level.shape[2:]) >= FEWEST_PIXELS]
    if not searched:
        return []

    # What is constant stays so when it is reduced: the smallest level tells where to look in the largest.
    constant = _find_constant(searched[0])
    rows = np.flatnonzero(constant.any(axis=1))
    constant[rows] &= _find_constant(searched[-1], rows)

    count, channels = constant.shape
    sentences = []
    for channel in np.flatnonzero(constant.any(axis=0)):
        own = np.flatnonzero(constant[:, channel])
        name = f"channel {channel}"
        if len(own) == count:
            numbers = searched[-1][:, channel, 0, 0]
            if (numbers == numbers[0]).all():
                sentences.append(f"{name} has the one number {numbers[0]:g} in all images: it teaches nothing")
                continue
        first = name_image(dataset, find_image_of_row(int(own[0]), skipped_images))
        if channels == 1:
            sentences.append(
                f"all pixels are equal in {len(own):,} of {count:,} images, the first of which is {first}: {ADVICE}"
            )
        else:
            sentences.append(
                f"{name} has one number alone, as a band that is missing, in {len(own):,} of {count:,} images, first "
                f"in {first}: {ADVICE}"
            )
    return sentences


def find_image_of_row(row: int, skipped_images: Sequence[int]) -> int:
    """Return the number of the image in a row of the resized copies, in which images that were left out have no row.

    Args:
        row: The row.
        skipped_images: Numbers of the images that were left out, in rising order.
    """
    image = row
    for skipped in skipped_images:
        if skipped > image:
            break
        image += 1
    return image


def _find_constant(images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return whether each channel of images (n, C, h, w), or of some rows of them, has one number: bool (n, C)."""
    total = len(images) if rows is None else len(rows)
    step = max(1, CHUNK_BYTES // max(1, images[:1].nbytes))
    found = np.empty((total, images.shape[1]), bool)
    for start in range(0, total, step):
        chosen = slice(start, start + step) if rows is None else rows[start : start + step]
        piece = images[chosen]
        found[start : start + step] = piece.max(axis=(2, 3)) == piece.min(axis=(2, 3))
    return found
