"""Images from the Hugging Face hub, or from a local data set of that library."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from pggan_kit import DataError, SettingError, check_choice

from .images import MAX_PIXELS, check_channels, check_max_pixels, colour, read_picture


class HuggingFace:
    """An image data set that `datasets.load_dataset` can load. Needs the extra `huggingface`.

    Args:
        path: its name on the hub, or a local folder.
        split: e.g. `train`, or `train[:1000]`.
        image_column: the column with the images.
        label_column: one with class labels. None: no labels.
        channels: 1 for gray, 3 for colour; images are converted.
        background: the colour put behind transparent pixels, as CSS writes it.
        max_pixels: larger images are refused by what their header says.

    Attributes:
        classes: as many as the label column's type names, or its largest value plus 1; 0 without labels.

    Raises:
        ValueError: an argument out of range, or a column that the data set lacks.
        DataError: the library is not installed, or the data set cannot be loaded.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        image_column: str = "image",
        label_column: str | None = None,
        channels: int = 3,
        background: str = "white",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_channels(channels)
        check_max_pixels(max_pixels)
        colour(background, channels)
        self._read = (max_pixels, channels, background)
        library = _library()
        try:
            rows = library.load_dataset(path, split=split)
        except Exception as error:  # the library raises its own, the hub's and the file system's
            raise DataError(f"cannot load the data set {path!r}, split {split!r}: {error}") from error
        for name, column in (("image_column", image_column), ("label_column", label_column)):
            if column is not None:
                check_choice(name, column, rows.column_names)
        self._name = f"{path} {split}"
        self._fingerprint = f"hugging face {rows._fingerprint} {image_column} {label_column} {self._read}"
        self._labels = None if label_column is None else np.asarray(rows[label_column])
        self.classes = 0 if label_column is None else _count_classes(rows, label_column, self._labels)
        # As files, not decoded: so their size is checked first, and what they hold is converted as in ImageFolder.
        self._column = image_column
        self._rows = rows.select_columns([image_column]).cast_column(image_column, library.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, i: int) -> np.ndarray:
        """uint8 (H, W, channels).

        Raises:
            DataError: an image that is missing, damaged or too large.
        """
        name = f"{self._name}, row {i}"
        cell = self._rows[i][self._column] or {}
        if cell.get("bytes") is not None:
            return read_picture(io.BytesIO(cell["bytes"]), name, *self._read)
        if not cell.get("path"):
            raise DataError(f"{name} has no image in column {self._column!r}")
        with open(cell["path"], "rb") as file:
            return read_picture(file, name, *self._read)

    def label(self, i: int) -> int:
        """The label; 0 where there are none."""
        return 0 if self._labels is None else int(self._labels[i])

    def fingerprint(self) -> str:
        """The library's own fingerprint of the rows, and how they are read."""
        return self._fingerprint


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"datasets.HuggingFace needs the library `datasets` ({error}): pip install 'pggan_kit[huggingface]'"
        ) from error


def _count_classes(rows: Any, column: str, labels: np.ndarray | None) -> int:
    assert labels is not None
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or labels.min(initial=0) < 0:
        raise SettingError("label_column", f"must hold class numbers from 0 up, and {column!r} does not")
    return getattr(rows.features[column], "num_classes", None) or int(labels.max(initial=-1)) + 1
