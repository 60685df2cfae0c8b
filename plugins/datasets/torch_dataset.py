"""Map-style torch data sets."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from pggan_kit import DataError, SettingError, check_at_least
from pggan_kit.pictures import GRAY_MODES, PictureReader, turn_upright

from .conversion import describe_type


class Torch:
    """A map-style torch data set whose items are an image, or a tuple of image, label and anything else.

    An image is a Pillow image (gray modes become 1 channel, all others 3, transparency is put on white), or a tensor
    (C, H, W) or (H, W) with any number of channels. The numbers of a tensor, and of a gray Pillow image of 16 bits or
    of floats, are kept as they are: uint8, uint16, int16 or float32; other floats become float32. `data.value_range`
    says which numbers become -1 and 1. An image must be the same each time: random augmentation belongs elsewhere.
    Items are fetched by one thread at a time.

    Args:
        dataset: The data set, with `__len__` and `__getitem__`.
        classes: The number of classes of the labels; 0: labels are ignored.
        name: A name for the contents, which serves as their fingerprint: change it when they change. None: all items
            are read and hashed at each start.

    Raises:
        ValueError: An argument out of range.
    """

    def __init__(self, dataset: Any, classes: int = 0, name: str | None = None) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise SettingError(
                "dataset",
                f"must be map-style, with a length and items by index, not {type(dataset).__name__}",
            )
        check_at_least("classes", classes, 0, whole=True)
        self.classes = classes
        self._dataset = dataset
        self._name = name
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, i: int) -> np.ndarray:
        """Return image i (H, W, C), of the item's type.

        Raises:
            DataError: An item that holds no image, or one that is corrupt.
        """
        return self._convert_image(self._fetch_item(i)[0], f"item {i}")

    def label(self, i: int) -> int:
        """Return the label of image i; 0 where labels are ignored.

        Raises:
            DataError: An item without a label, or with one that is no integer.
        """
        return self._read_label(self._fetch_item(i), i)

    def fingerprint(self) -> str:
        """Return the name, or the SHA-256 of all items."""
        if self._name is not None:
            return f"torch {self._name} {len(self)} {self.classes} {describe_type(self.image(0).dtype)}"
        content = hashlib.sha256()
        for i in range(len(self)):
            item = self._fetch_item(i)
            image = self._convert_image(item[0], f"item {i}")
            kind = "" if image.dtype == np.uint8 else image.dtype.name
            content.update(f"{image.shape} {self._read_label(item, i)}{kind}".encode())
            content.update(np.ascontiguousarray(image).data)
        return f"torch {content.hexdigest()} {self.classes}"

    def _fetch_item(self, i: int) -> Sequence[Any]:
        with self._lock:
            item = self._dataset[i]
        if isinstance(item, (tuple, list)):
            return item
        return (item,)

    def _read_label(self, item: Sequence[Any], i: int) -> int:
        if not self.classes:
            return 0
        try:
            label = item[1]
            if isinstance(label, (torch.Tensor, np.generic)):
                label = label.item()
            if isinstance(label, bool):
                raise TypeError
            return operator.index(label)
        except (IndexError, TypeError, ValueError, RuntimeError):
            raise DataError(
                f"item {i} has no whole number as its label: give (image, label), or set classes = 0"
            ) from None

    def _convert_image(self, image: Any, name: str) -> np.ndarray:
        """Convert a Pillow image or a tensor to an array (H, W, C).

        Raises:
            DataError: Another type or shape, or a picture that is corrupt.
        """
        if isinstance(image, Image.Image):
            try:
                return _convert_picture(image)
            except Exception as error:  # a corrupt file can raise nearly anything
                raise DataError(f"{name}: {error}") from error

        if not isinstance(image, torch.Tensor) or image.ndim not in (2, 3) or not image.numel():
            given = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
            raise DataError(f"{name}: an image must be a Pillow image or a tensor (C, H, W) or (H, W), not {given}")

        # NumPy has no bfloat16.
        if image.dtype == torch.bfloat16:
            image = image.float()
        return np.asarray(image.detach().cpu().reshape(-1, *image.shape[-2:]).permute(1, 2, 0))


def _convert_picture(picture: Image.Image) -> np.ndarray:
    """Convert a Pillow image to numbers (H, W, 1) of its mode where it is gray and deep, or else to uint8 (H, W, C)."""
    if not picture.mode.startswith("I;16") and picture.mode not in ("I", "F"):
        return PictureReader(1 if picture.mode in GRAY_MODES else 3).convert(picture)

    numbers = np.asarray(turn_upright(picture))
    # Older versions of Pillow open 16-bit gray PNGs in the 32-bit mode I.
    if picture.mode == "I" and picture.format == "PNG":
        numbers = numbers.astype(np.uint16)
    return numbers[..., None]
