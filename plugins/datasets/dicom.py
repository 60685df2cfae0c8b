"""Medical images in DICOM files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pggan_kit import DataError, SettingError, check_choice
from pggan_kit.pictures import MAX_PIXELS

from .extras import import_extra
from .image_folder import OFF, list_class_names
from .picture_dataset import PictureDataset, Reading, parse_on_error
from .picture_sources import FolderSource

SUFFIXES = (".dcm", ".dicom", ".ima", "")
"""Suffixes, in lower case, of the files that may be DICOM: many have none."""

PREAMBLE_BYTES = 128
SIGN = b"DICM"
"""What follows the preamble of a DICOM file."""

INDEX = "DICOMDIR"
"""Name of the file that lists the others of a medium."""

TYPES = ("int16", "uint16", "float32")
"""Types of numbers that images may be kept as."""

OF_FILE = "file"
"""Value of `window` for the one that each file names."""

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""Elements that hold pixels."""


class DICOM(PictureDataset):
    """The DICOM files of a folder and its sub-folders, a gray image each, in the order of their paths. Needs the extra
    `dicom`.

    Without a window, numbers keep their full depth, in the unit of the modality, such as Hounsfield units: rescaled by
    the slope and the intercept, or the table, that each file names. `data.value_range` says which numbers become -1 and
    1. With a window, images become bytes from 0 to 255, as a viewer shows them.

    Files of colour or with several frames count as broken, and so does compression for which `pydicom` lacks a decoder.
    Files without a suffix count where they begin as DICOM does. Images may differ in size.

    Args:
        folder: The folder.
        window: The pair (centre, width) in the unit of the modality, e.g. (40, 400) for soft tissue in CT; or `file`
            for the first one that each file names. None: the full depth.
        numbers: The type of numbers without a window: `int16`, `uint16` or `float32`. Numbers that it does not hold
            exactly are an error.
        on_error: `stop` to fail with the name of a broken image, `skip` to leave it out and count it.
        labels: Whether images have labels: the first-level sub-folders, numbered in the order of their names.

    Attributes:
        classes: The number of classes; 0 without labels.
        class_names: The sub-folders' names, in the order of their numbers.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder that does not exist or holds no such files, labels that cannot be used, or a library that is
            not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        window: Sequence[float] | str | None = None,
        numbers: str = "int16",
        on_error: str = "stop",
        labels: bool = False,
    ) -> None:
        skip = parse_on_error(on_error)
        reading = Reading(DicomReader(window, numbers), skip)
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise DataError(f"no folder {path}: set datasets.DICOM.folder to one with DICOM files")
        super().__init__("dicom", _find_files(path), reading)
        if labels:
            self._set_labels_by_folder(list_class_names(self._source), OFF)


def _find_files(path: Path) -> FolderSource:
    """Find the DICOM files of a folder.

    Raises:
        DataError: There are none.
    """
    source = FolderSource(path, SUFFIXES)
    found = [name for name in source.files if Path(name).suffix or _begins_as_dicom(path / name)]
    others = len(source.files) - len(found)
    if others:
        source.left_out["without a suffix, and no DICOM"] = others
    source.files = found
    if not found:
        raise DataError(f"{path} and its sub-folders hold no DICOM files ({', '.join(filter(None, SUFFIXES))})")
    return source


def _begins_as_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM image or another DICOM file than the index of a medium."""
    if path.name == INDEX:
        return False
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE_BYTES + len(SIGN))[PREAMBLE_BYTES:] == SIGN
    except OSError:  # a file that cannot be opened is named when it is read
        return True


class DicomReader:
    """A reader of DICOM files, for use from several threads; see `DICOM` for the arguments.

    Raises:
        SettingError: An argument out of range.
        DataError: The library `pydicom` is not installed.
    """

    def __init__(self, window: Sequence[float] | str | None, numbers: str) -> None:
        self._window = parse_dicom_window(window)
        check_choice("numbers", numbers, TYPES)
        self._type = numbers
        self._library = import_extra("datasets.DICOM", "pydicom", "dicom")
        self._pixels = import_extra("datasets.DICOM", "pydicom.pixels", "dicom")

    @property
    def settings(self) -> list[Any]:
        """What decides the numbers that are read of a file."""
        return [self._window, self._type if self._window is None else "uint8"]

    def read(self, source: Path | BinaryIO, name: str) -> np.ndarray:
        """Read a file.

        Returns:
            uint8 (H, W, 1) with a window, or numbers of the chosen type.

        Raises:
            DataError: A file that is no DICOM, cannot be decoded, is colour, has several frames, has no window where
                its own is asked for, or has numbers that the type does not hold.
        """
        content = self._open(source, name, header_only=False)
        try:
            self._require_one_gray_image(content, name)
            stored = content.pixel_array
            values = np.asarray(self._pixels.apply_modality_lut(stored, content), np.float64)
        except DataError:
            raise
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{name}: its pixels cannot be decoded ({error})") from error
        if values.ndim != 2 or not np.isfinite(values).all():
            raise DataError(f"{name}: its pixels are no image of numbers, {values.shape}")

        # Full depth or a window, with low numbers dark.
        is_inverted = content.PhotometricInterpretation == "MONOCHROME1"
        if self._window is None:
            if is_inverted:
                raise DataError(
                    f"{name}: shows low numbers bright (MONOCHROME1), which only a window turns: set "
                    "datasets.DICOM.window, or convert it"
                )
            return self._convert(values, name)[..., None]
        shares = _apply_window(values, *self._choose_window(content, name))
        if is_inverted:
            shares = 1 - shares
        return np.floor(shares * 255 + 0.5).astype(np.uint8)[..., None]

    def read_mode(self, source: Path | BinaryIO, name: str) -> str:
        """Return how many bits of each pixel a file uses, such as `12 bits`."""
        content = self._open(source, name, header_only=True)
        return f"{int(getattr(content, 'BitsStored', 0) or 0):d} bits"

    def list_warnings(self, setting: str) -> list[str]:
        """Return nothing: `data.value_range` has its own warnings."""
        return []

    def _open(self, source: Path | BinaryIO, name: str, header_only: bool) -> Any:
        """Return the elements of a file.

        Raises:
            DataError: It is no DICOM.
        """
        try:
            return self._library.dcmread(source, stop_before_pixels=header_only)
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{name}: cannot be read as DICOM ({error})") from error

    def _require_one_gray_image(self, content: Any, name: str) -> None:
        """Check that a file holds one gray image, of not too many pixels.

        Raises:
            DataError: It does not.
        """
        if not any(element in content for element in PIXELS):
            raise DataError(f"{name}: holds no image")

        # One frame, in gray.
        frames = int(getattr(content, "NumberOfFrames", 1) or 1)
        if frames != 1:
            raise DataError(f"{name}: has {frames} frames, and an image is one: split it into files")
        kind = str(getattr(content, "PhotometricInterpretation", ""))
        if int(getattr(content, "SamplesPerPixel", 1)) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
            raise DataError(
                f"{name}: is colour ({kind or 'not said which'}), and images must be gray: convert such files for "
                "datasets.ImageFolder"
            )

        # Checked before pixels are decoded, which may be many.
        if int(content.Rows) * int(content.Columns) > MAX_PIXELS:
            raise DataError(f"{name}: is {content.Rows}x{content.Columns} pixels, above the limit of {MAX_PIXELS}")

    def _convert(self, values: np.ndarray, name: str) -> np.ndarray:
        """Return numbers as the chosen type.

        Raises:
            DataError: It does not hold them.
        """
        if self._type == "float32":
            return values.astype(np.float32)

        # No number may change: neither be cut off nor rounded.
        limits = np.iinfo(self._type)
        low = float(values.min())
        high = float(values.max())
        if low < limits.min or high > limits.max:
            others = "'float32'"
            if low >= 0 and high <= np.iinfo(np.uint16).max:
                others = "'uint16' or 'float32'"
            raise DataError(
                f"{name}: has numbers from {low:g} to {high:g}, which {self._type} does not hold: set "
                f"datasets.DICOM.numbers = {others}"
            )
        if not np.array_equal(values, np.rint(values)):
            raise DataError(
                f"{name}: has numbers that are not whole, by its slope or intercept: set datasets.DICOM.numbers = "
                "'float32'"
            )
        return values.astype(self._type)

    def _choose_window(self, content: Any, name: str) -> tuple[float, float, str]:
        """Return the centre and the width of the window of a file, and its function.

        Raises:
            DataError: Its own is asked for, and it names none that can be used.
        """
        if isinstance(self._window, tuple):
            return *self._window, "LINEAR"
        try:
            centre = _get_first(content, "WindowCenter")
            width = _get_first(content, "WindowWidth")
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{name}: its window cannot be read ({error})") from error
        function = str(getattr(content, "VOILUTFunction", "") or "LINEAR")
        is_linear = function in ("LINEAR", "LINEAR_EXACT")
        if centre is None or width is None or not is_linear or not math.isfinite(centre) or not 1 <= width < math.inf:
            raise DataError(
                f"{name}: names no window of a linear function: set datasets.DICOM.window = (centre, width)"
            )
        return centre, width, function


def parse_dicom_window(window: object) -> tuple[float, float] | str | None:
    """Return a window as (centre, width), `file` or None.

    Raises:
        SettingError: It is none of these, or the width is below 1.
    """
    # No window, or that of the file.
    if window is None or window == OF_FILE:
        return OF_FILE if window == OF_FILE else None

    # A centre and a width.
    message = (
        f"must be (centre, width) with a width of at least 1, such as (40, 400), {OF_FILE!r} or None, not {window!r}"
    )
    try:
        centre, width = (float(value) for value in window)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        raise SettingError("window", message) from None
    if not (np.isfinite(centre) and np.isfinite(width) and width >= 1):
        raise SettingError("window", message)
    return centre, width


def _get_first(content: Any, element: str) -> float | None:
    """Return the first number of an element; None where there is none."""
    value = getattr(content, element, None)
    if value is None or value == "":
        return None
    if isinstance(value, (str, float, int)):
        return float(value)
    return float(value[0]) if len(value) else None


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Return the brightness of numbers, in [0, 1], by DICOM PS3.3, C.11.2.1.2.1 and C.11.2.1.3.2."""
    if function == "LINEAR":
        # The first and the last number of the window are black and white.
        centre -= 0.5
        width -= 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)
