"""Any map-style torch data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from pggan_kit import DataError, SettingError, check_at_least

from .images import check_value_range, scale_floats, to_uint8

GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")


class Torch:
    """Wraps a map-style torch data set whose items are an image, or a tuple of image, label and anything else.

    An image is a Pillow image (gray modes become 1 channel, all others 3, transparency goes on white), or a tensor
    (C, H, W) or (H, W), uint8 or float. It must be the same each time: random augmentation belongs elsewhere. Items
    are fetched by one thread at a time.

    Args:
        dataset: has `__len__` and `__getitem__`.
        classes: number of classes of the labels; 0: labels are ignored.
        name: names the contents, and is taken for their fingerprint: give another when they change. None: all items
            are read and hashed at each start.
        value_range: (low, high) of float tensors: those values become 0 and 255.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, dataset: Any, classes: int = 0, name: str | None = None, value_range: Sequence[float] = (0.0, 1.0)
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise SettingError(
                "dataset",
                f"must be map-style, with a length and items by index, not {type(dataset).__name__}",
            )
        check_at_least("classes", classes, 0, whole=True)
        self.classes = classes
        self._dataset, self._name, self._range = dataset, name, check_value_range(value_range)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, i: int) -> np.ndarray:
        """uint8 (H, W, C).

        Raises:
            DataError: an item that holds no image, or floats outside `value_range`.
        """
        return self._to_uint8(self._item(i)[0], f"item {i}")

    def label(self, i: int) -> int:
        """The label; 0 where they are ignored.

        Raises:
            DataError: an item without a label, or with one that is no whole number.
        """
        return self._label(self._item(i), i)

    def fingerprint(self) -> str:
        """The name, or the SHA-256 of all items."""
        if self._name is not None:
            return f"torch {self._name} {len(self)} {self.classes} {self._range}"
        content = hashlib.sha256()
        for i in range(len(self)):
            item = self._item(i)
            image = self._to_uint8(item[0], f"item {i}")
            content.update(f"{image.shape} {self._label(item, i)}".encode())
            content.update(np.ascontiguousarray(image).data)
        return f"torch {content.hexdigest()} {self.classes}"

    def _item(self, i: int) -> Sequence[Any]:
        with self._lock:
            item = self._dataset[i]
        return item if isinstance(item, (tuple, list)) else (item,)

    def _label(self, item: Sequence[Any], i: int) -> int:
        if not self.classes:
            return 0
        try:
            label = item[1]
            return int(label.item() if isinstance(label, (torch.Tensor, np.generic)) else label)
        except (IndexError, TypeError, ValueError, RuntimeError):
            raise DataError(
                f"item {i} has no whole number as its label: give (image, label), or set classes = 0"
            ) from None

    def _to_uint8(self, image: Any, name: str) -> np.ndarray:
        if isinstance(image, Image.Image):
            return to_uint8(image, 1 if image.mode in GRAY_MODES else 3, "white")
        if not isinstance(image, torch.Tensor) or image.ndim not in (2, 3) or image.shape[:-2] not in ((), (1,), (3,)):
            found = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
            raise DataError(f"{name}: an image must be a Pillow image or a tensor (1 or 3, H, W), not {found}")
        pixels = np.asarray(image.detach().cpu().reshape(-1, *image.shape[-2:]).permute(1, 2, 0))
        if pixels.dtype == np.uint8:
            return pixels
        if not np.issubdtype(pixels.dtype, np.floating):
            raise DataError(f"{name}: image tensors must be uint8 or float, not {image.dtype}")
        return scale_floats(pixels, self._range, name)
