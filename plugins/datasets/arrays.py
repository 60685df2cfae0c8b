"""Images in one NumPy file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pggan_kit import DataError, SettingError, check_choice, hash_files

from .conversion import parse_value_range, scale_floats

LAYOUTS = ("auto", "NCHW", "NHWC")


class Arrays:
    """An .npy file, memory-mapped, or an .npz file with `images` and optionally `labels`, read into memory.

    Images are uint8 or float, of shape (n, H, W) for gray, (n, C, H, W) or (n, H, W, C) with C 1 or 3. Labels are
    integers (n,) from 0 up. Files that would need unpickling are refused.

    Args:
        file: The .npy or .npz file.
        layout: `NCHW`, `NHWC`, or `auto`: the axis that has 1 or 3 entries holds the channels. Gray images (n, H, W)
            need no layout.
        value_range: The pair (low, high) of values that become 0 and 255, for floats. uint8 is used unchanged.

    Attributes:
        classes: The largest label plus 1; 0 without labels, or where all have the same label 0.

    Raises:
        ValueError: An argument out of range, or `auto` where both axes or neither could hold the channels.
        DataError: A file that does not exist or does not hold such arrays.
    """

    def __init__(self, file: str | Path, layout: str = "auto", value_range: Sequence[float] = (0.0, 1.0)) -> None:
        check_choice("layout", layout, LAYOUTS)
        self._range = parse_value_range(value_range)
        self._path = Path(file).expanduser()

        images, self._labels = _load_arrays(self._path)
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"{self._path} holds {images.dtype}; images must be uint8 or float: convert them")
        self._images = _arrange_as_nhwc(images, layout, self._path)

        # One class for all says nothing, and a file's labels cannot be switched off.
        self.classes = 0
        if self._labels is not None and self._labels.max() > 0:
            self.classes = int(self._labels.max()) + 1

    def __len__(self) -> int:
        return len(self._images)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (H, W, C).

        Raises:
            DataError: Floats outside `value_range`.
        """
        image = np.asarray(self._images[i])
        if image.dtype == np.uint8:
            return image
        return scale_floats(image, self._range, f"{self._path}, image {i},")

    def label(self, i: int) -> int:
        """Return the label of image i; 0 where there are no labels."""
        if self._labels is None:
            return 0
        return int(self._labels[i])

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path.resolve())

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file, and how it is read."""
        (content,) = hash_files(self._path.parent, [self._path.name])
        return f"arrays {content} {self._images.shape} {self._range}"


def _load_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Load the images and, if there are any, the labels (n,).

    Raises:
        DataError: A file that does not exist or cannot be read, or labels that do not fit the images.
    """
    if not path.is_file():
        raise DataError(f"no file {path}: set datasets.Arrays.file to an .npy or .npz file")
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        # An .npy file holds the images alone.
        if isinstance(content, np.ndarray):
            return content, None
        with content:
            if "images" not in content:
                raise DataError(f"{path} has no array 'images', but {', '.join(map(repr, content)) or 'nothing'}")
            images = content["images"]
            labels = content.get("labels")
    except DataError:
        raise
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(f"{path} cannot be read as an .npy or .npz file of plain arrays: {error}") from error

    if labels is not None:
        _check_labels(labels, len(images), path)
    return images, labels


def _check_labels(labels: np.ndarray, count: int, path: Path) -> None:
    """Check that there are `count` labels, integers from 0 up."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or (count and labels.min() < 0):
        raise DataError(
            f"{path}: 'labels' must be {count} whole numbers from 0 up, and are {labels.dtype} {labels.shape}"
        )


def _arrange_as_nhwc(images: np.ndarray, layout: str, path: Path) -> np.ndarray:
    """Return a view (n, H, W, C) of the images.

    Raises:
        DataError: An array of another number of axes, or an empty one.
        SettingError: A layout that does not fit the array, or `auto` where the shape is ambiguous.
    """
    if images.ndim == 3 and len(images):
        return images[..., None]
    if images.ndim != 4 or not images.size:
        raise DataError(f"{path} holds {images.shape}; images must be (n, H, W), (n, C, H, W) or (n, H, W, C)")

    # The channels' axis has 1 or 3 entries.
    fits = {"NCHW": images.shape[1] in (1, 3), "NHWC": images.shape[3] in (1, 3)}
    if not any(fits.values()):
        raise DataError(
            f"{path} holds {images.shape}: images must have 1 or 3 channels, on the second axis or on the last; "
            "choose 1 or 3 of yours, or make an array for each"
        )
    if layout == "auto":
        if all(fits.values()):
            raise SettingError("layout", f"must be 'NCHW' or 'NHWC': the shape {images.shape} in {path} is ambiguous")
        layout = "NCHW" if fits["NCHW"] else "NHWC"
    elif not fits[layout]:
        raise SettingError("layout", f"{layout} does not fit {images.shape} in {path}: there must be 1 or 3 channels")

    if layout == "NCHW":
        return images.transpose(0, 2, 3, 1)
    return images
