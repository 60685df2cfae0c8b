"""Find out and check what kind of images a data set has: how many channels, of which type of numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.layers.value_maps import KINDS


class ImageKind(NamedTuple):
    """What all images of a data set have in common.

    Attributes:
        channels: Number of channels.
        type: Type of the numbers, one of `KINDS`.
        is_rounded: Whether the data set has float64, which become float32.
    """

    channels: int
    type: str
    is_rounded: bool = False

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Return the type of the numbers, as NumPy has it."""
        return np.dtype(self.type)

    def count_bytes(self, pixels: int) -> int:
        """Return the bytes of a number of pixels."""
        return pixels * self.channels * self.dtype.itemsize


def name_image(dataset: Dataset, i: int) -> str:
    """Return how messages name an image: by its number, and by its file where the data set says it."""
    name = getattr(dataset, "image_name", None)
    return f"image {i}" if name is None else f"image {i} ({name(i)})"


def find_image_kind(dataset: Dataset) -> ImageKind:
    """Return the kind of the first image that can be read.

    Raises:
        DataError: No image can be read, or the image is no array (H, W, C) of a type that can be used.
    """
    for i in range(len(dataset)):
        try:
            image = dataset.image(i)
        except SkipImage:
            continue
        return _read_kind(dataset, image, i)
    raise DataError("the data set holds no image that can be read")


def _read_kind(dataset: Dataset, image: object, i: int) -> ImageKind:
    """Return the kind of an image.

    Raises:
        DataError: It is no array (H, W, C) of a type that can be used.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"{name_image(dataset, i)} must be a NumPy array (H, W, C), and is a {type(image).__module__}."
            f"{type(image).__qualname__}: return np.asarray of it, with its channels last"
        )
    kind = image.dtype.name
    is_rounded = kind == "float64"
    if kind in ("float16", "float64"):
        kind = "float32"
    if kind not in KINDS or image.ndim != 3 or image.size == 0:
        raise DataError(
            f"{name_image(dataset, i)} must be (H, W, C) of {', '.join(KINDS[:-1])} or {KINDS[-1]}, and is "
            f"{image.dtype} {image.shape}"
        )
    return ImageKind(int(image.shape[2]), kind, is_rounded)


def check_image(dataset: Dataset, image: np.ndarray, i: int, kind: ImageKind) -> np.ndarray:
    """Return an image, float64 as float32, after checking that it is of the kind of those before it, and finite.

    Raises:
        DataError: It is not.
    """
    own = _read_kind(dataset, image, i)
    if own.channels != kind.channels:
        raise DataError(
            f"{name_image(dataset, i)} has {own.channels} channels where those before it have {kind.channels}"
        )
    if own.type != kind.type:
        raise DataError(f"{name_image(dataset, i)} is {own.type} where those before it are {kind.type}")

    # Files may hold the bytes of a number in the other order. What is beyond the range of float32 becomes infinite.
    with np.errstate(over="ignore"):
        image = image.astype(kind.dtype, copy=False)
    if kind.type != "float32":
        return image
    broken = int(np.count_nonzero(~np.isfinite(image)))
    if broken:
        raise DataError(
            f"{name_image(dataset, i)} has {broken:,} of {image.size:,} numbers that are NaN or infinite: replace "
            "them, or leave the image out"
        )
    return image
