"""Images in one NumPy file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pggan_kit import DataError, SettingError, check_choice

from .images import check_value_range, scale_floats

LAYOUTS = ("auto", "NCHW", "NHWC")


class Arrays:
    """An .npy file, memory-mapped, or an .npz file with `images` and perhaps `labels`, read into memory.

    Images are uint8 or float, of shape (n, H, W) for gray, (n, C, H, W) or (n, H, W, C) with C 1 or 3. Labels are
    whole numbers (n,) from 0 up. Files that would need unpickling are refused.

    Args:
        file: the .npy or .npz file.
        layout: `NCHW`, `NHWC`, or `auto`: whichever axis has 1 or 3 entries. Gray (n, H, W) needs none.
        value_range: (low, high) of floats: those values become 0 and 255. uint8 is taken as it is.

    Attributes:
        classes: the largest label plus 1; 0 without labels.

    Raises:
        ValueError: an argument out of range, or `auto` where both axes or none could be the channels.
        DataError: no such file, or one that holds something else.
    """

    def __init__(self, file: str, layout: str = "auto", value_range: Sequence[float] = (0.0, 1.0)) -> None:
        check_choice("layout", layout, LAYOUTS)
        self._range = check_value_range(value_range)
        self._path = Path(file).expanduser()
        images, self._labels = _load(self._path)
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"{self._path} holds {images.dtype}; images must be uint8 or float: convert them")
        self._images = _as_nhwc(images, layout, self._path)
        self.classes = 0 if self._labels is None else int(self._labels.max()) + 1

    def __len__(self) -> int:
        return len(self._images)

    def image(self, i: int) -> np.ndarray:
        """uint8 (H, W, C).

        Raises:
            DataError: floats outside `value_range`.
        """
        image = np.asarray(self._images[i])
        return image if image.dtype == np.uint8 else scale_floats(image, self._range, f"{self._path}, image {i},")

    def label(self, i: int) -> int:
        """The label; 0 where there are none."""
        return 0 if self._labels is None else int(self._labels[i])

    def fingerprint(self) -> str:
        """SHA-256 of the file and of how it is read."""
        content = hashlib.sha256()
        with self._path.open("rb") as file:
            while block := file.read(1 << 22):
                content.update(block)
        return f"arrays {content.hexdigest()} {self._images.shape} {self._range}"


def _load(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if not path.is_file():
        raise DataError(f"no file {path}: set datasets.Arrays.file to an .npy or .npz file")
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content, None
        with content:
            if "images" not in content:
                raise DataError(f"{path} has no array 'images', but {', '.join(map(repr, content)) or 'nothing'}")
            images = content["images"]
            labels = content.get("labels")
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise DataError(f"{path} cannot be read as an .npy or .npz file of plain arrays: {error}") from error
    return images, None if labels is None else _checked_labels(labels, len(images), path)


def _checked_labels(labels: np.ndarray, count: int, path: Path) -> np.ndarray:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or (count and labels.min() < 0):
        raise DataError(
            f"{path}: 'labels' must be {count} whole numbers from 0 up, and are {labels.dtype} {labels.shape}"
        )
    return labels


def _as_nhwc(images: np.ndarray, layout: str, path: Path) -> np.ndarray:
    if images.ndim == 3 and len(images):
        return images[..., None]
    if images.ndim != 4 or not images.size:
        raise DataError(f"{path} holds {images.shape}; images must be (n, H, W), (n, C, H, W) or (n, H, W, C)")
    fits = {"NCHW": images.shape[1] in (1, 3), "NHWC": images.shape[3] in (1, 3)}
    if layout == "auto":
        if fits["NCHW"] == fits["NHWC"]:
            raise SettingError(
                "layout", f"must be 'NCHW' or 'NHWC': the shape {images.shape} in {path} does not tell it"
            )
        layout = "NCHW" if fits["NCHW"] else "NHWC"
    elif not fits[layout]:
        raise SettingError("layout", f"{layout} does not fit {images.shape} in {path}: there must be 1 or 3 channels")
    return images.transpose(0, 2, 3, 1) if layout == "NCHW" else images
