"""Read files of numbers as they are: arrays, and TIFFs with any number of bands of any type."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from pggan_kit.errors import DataError, SettingError
from pggan_kit.pictures.decoding import MAX_PIXELS

ARRAY_SUFFIXES = (".npy", ".tif", ".tiff")
"""Suffixes, in lower case, of the files that are read as numbers."""

LAYOUTS = ("auto", "NCHW", "NHWC")
"""Orders of the axes: of the images N, the channels C, the height H and the width W."""

PHOTOGRAPH_CHANNELS = (1, 3)
"""Numbers of channels that an axis is taken to hold before its length is compared with others."""


def choose_layout(shape: tuple[int, ...], layout: str, name: str) -> str:
    """Return the layout of images (..., a, b, c): `NCHW` where a is the number of channels, `NHWC` where c is.

    `auto` takes the one of both axes that has 1 or 3 entries, or else the one that is shorter than all others.

    Args:
        shape: Shape of an image, or of several.
        layout: One of `LAYOUTS`.
        name: Name of the file in errors.

    Raises:
        SettingError: The shape does not tell.
    """
    if layout != "auto":
        return layout

    # The axis of channels has the length of photographs, or is the shortest.
    first, middle, last = shape[-3:]
    are_usual = (first in PHOTOGRAPH_CHANNELS, last in PHOTOGRAPH_CHANNELS)
    if are_usual == (True, False) or (not any(are_usual) and first < min(middle, last)):
        return "NCHW"
    if are_usual == (False, True) or (not any(are_usual) and last < min(first, middle)):
        return "NHWC"
    raise SettingError(
        "layout", f"must be 'NCHW' or 'NHWC': the shape {shape} in {name} does not tell which axis holds the channels"
    )


def read_array(path: Path, layout: str = "auto") -> np.ndarray:
    """Read a file of one image as it is.

    Args:
        path: An .npy file, or a TIFF whose own axes tell the layout.
        layout: One of `LAYOUTS`.

    Returns:
        The image (H, W, C), of the file's type.

    Raises:
        DataError: It cannot be read, is no image, or its shape does not tell the layout.
    """
    if path.suffix.lower() == ".npy":
        array = _read_npy(path)
    else:
        array, own_layout = _read_tiff(path)
        if layout == "auto":
            layout = own_layout
    return arrange_image(array, layout, str(path))


def arrange_image(array: np.ndarray, layout: str, name: str) -> np.ndarray:
    """Return an array of an image as (H, W, C).

    Args:
        array: The image (H, W), (C, H, W) or (H, W, C).
        layout: One of `LAYOUTS`.
        name: Name of the image in errors.

    Raises:
        DataError: It is no image, or its shape does not tell the layout.
    """
    if array.ndim not in (2, 3) or not array.size:
        raise DataError(f"{name} holds {array.shape}; an image must be (H, W), (C, H, W) or (H, W, C)")

    # Gray images may have no axis of channels; the others have it first or last.
    if array.ndim == 2:
        return array[..., None]
    try:
        layout = choose_layout(array.shape, layout, name)
    except SettingError as error:
        raise DataError(str(error)) from error
    return array.transpose(1, 2, 0) if layout == "NCHW" else array


def _read_npy(path: Path) -> np.ndarray:
    """Read an .npy file, of plain numbers alone.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = np.load(path, allow_pickle=False)
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(f"{path} cannot be read as an .npy file of plain numbers: {error}") from error
    if not isinstance(content, np.ndarray):
        content.close()
        raise DataError(f"{path} is an .npz file by its content: save each array as an .npy file of its own")
    if content.dtype.kind not in "biufc":
        raise DataError(f"{path} holds {content.dtype}, which are no plain numbers: convert them")
    return content


def _read_tiff(path: Path) -> tuple[np.ndarray, str]:
    """Return the first image of a TIFF, and its layout as far as its own axes tell it.

    Raises:
        DataError: It cannot be read, or tifffile is not installed.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise DataError(f"{path}: TIFFs need tifffile ({error}): pip install 'pggan_kit[tiff]'") from error
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes = str(series.axes)
            # The header is checked before anything is decoded.
            if series.size > 64 * MAX_PIXELS:
                raise DataError(f"{path} has {series.size:,} numbers, more than are read")
            array: np.ndarray = series.asarray()
    except DataError:
        raise
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(f"{path} cannot be read as a TIFF ({error})") from error
    if axes.endswith("YX"):
        return array, "NCHW"
    return array, "NHWC" if axes.endswith("YXS") else "auto"
