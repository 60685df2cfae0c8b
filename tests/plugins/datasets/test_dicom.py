"""Test DICOM files: full depth in the unit of the modality, and windows."""

from __future__ import annotations

import math
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import write_dicom

from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import DICOM

NO_LIBRARY = "needs pydicom, which the extra `dicom` installs"
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
"""All numbers of 12 bits."""


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    message = r"datasets\.DICOM needs the library `pydicom` .*pip install 'pggan_kit\[dicom\]'"
    with pytest.raises(DataError, match=message):
        DICOM(tmp_path)


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom", reason=NO_LIBRARY)
        for i in range(4):
            write_dicom(tmp_path / "ct" / "ab"[i % 2] / f"{i}.dcm", RAMP[i:])
        self.folder = tmp_path / "ct"

    def make(self) -> Any:
        return DICOM(self.folder, labels=True)


def test_a_slice_keeps_its_levels_in_its_unit(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    write_dicom(tmp_path / "ct" / "a.dcm", RAMP)
    write_dicom(tmp_path / "ct" / "IM0001", RAMP, RescaleSlope=2, RescaleIntercept=-10)
    shutil.copy(tmp_path / "ct" / "IM0001", tmp_path / "ct" / "DICOMDIR")
    (tmp_path / "ct" / "README").write_text("about these slices")
    dataset = DICOM(tmp_path / "ct")
    assert (len(dataset), dataset.left_out) == (2, {"without a suffix, and no DICOM": 2})
    np.testing.assert_array_equal(dataset.image(0)[..., 0], RAMP.astype(np.int16) * 2 - 10)
    np.testing.assert_array_equal(dataset.image(1)[..., 0], RAMP.astype(np.int16) - 1024)
    assert (dataset.image(0).dtype, dataset.image_mode(0)) == (np.int16, "12 bits")

    # To the network: all 4,096 levels, which lie evenly in [-1, 1].
    (tmp_path / "ct" / "IM0001").unlink()
    settings = DataSettings(cache=str(tmp_path), value_range=(-1024, 3071))
    data = open_data(DICOM(tmp_path / "ct"), settings, [(64, 64)], 0)
    images, _ = data.sampler((64, 64)).batch(0, 1)
    seen = np.unique(data.values.to_images(images).double().numpy())
    np.testing.assert_allclose(seen, np.linspace(-1, 1, 4096), atol=1e-6)


def test_windows_are_those_of_the_standard(tmp_path: Path) -> None:
    """The formula is that of DICOM PS3.3, C.11.2.1.2.1, for each number by itself."""
    pytest.importorskip("pydicom", reason=NO_LIBRARY)

    def show(number: float, centre: float, width: float) -> int:
        if number <= centre - 0.5 - (width - 1) / 2:
            return 0
        if number > centre - 0.5 + (width - 1) / 2:
            return 255
        return int(((number - (centre - 0.5)) / (width - 1) + 0.5) * 255 + 0.5)

    units = RAMP.astype(float).ravel() - 1024
    write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=[300, 40], WindowWidth=[1500, 400])
    for window, centre, width in (((40, 400), 40, 400), ("file", 300, 1500), ((0, 1), 0, 1)):
        image = DICOM(tmp_path, window=window).image(0)
        assert (image.dtype, image.shape) == (np.uint8, (64, 64, 1))
        wanted = [show(number, centre, width) for number in units]
        np.testing.assert_array_equal(image.ravel(), wanted)

    # Where low numbers are bright, pictures are turned.
    straight = DICOM(tmp_path, window=(40, 400)).image(0)
    write_dicom(tmp_path / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(
        DICOM(tmp_path, window=(40, 400)).image(0).astype(int), 255 - straight.astype(int), atol=1
    )
    with pytest.raises(DataError, match=r"a\.dcm: shows low numbers bright \(MONOCHROME1\), which only a window turns"):
        DICOM(tmp_path).image(0)
    with pytest.raises(DataError, match=r"a\.dcm: names no window .*: set datasets\.DICOM\.window = \(centre, width\)"):
        DICOM(tmp_path, window="file").image(0)


def test_fingerprints_tell_windows_and_types(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    write_dicom(tmp_path / "a.dcm", RAMP)
    options: list[dict[str, Any]] = [{}, {"numbers": "float32"}, {"window": (40, 400)}, {"window": (41, 400)}]
    datasets = [DICOM(tmp_path, **each) for each in options]
    assert len({dataset.fingerprint() for dataset in datasets}) == 4
    assert len({dataset.row_fingerprints()[0] for dataset in datasets}) == 4
    same = [DICOM(tmp_path, window=(40, 400), numbers=kind).fingerprint() for kind in ("int16", "float32")]
    assert same[0] == same[1], "bytes are bytes"


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 3}, "has 3 frames, and an image is one: split it into files"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"is colour \(RGB\), and images must be gray"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"is colour \(PALETTE COLOR\)"),
        ({"PixelData": b"1234"}, "its pixels cannot be decoded"),
        (
            {"RescaleSlope": 0.5},
            r"has numbers that are not whole, by its slope or intercept: set .*numbers = 'float32'",
        ),
        (
            {"RescaleSlope": 20},
            r"has numbers from -1024 to 80876, which int16 does not hold: set datasets\.DICOM\.numbers = 'float32'",
        ),
        (
            {"RescaleSlope": 10, "RescaleIntercept": 0},
            "has numbers from 0 to 40950, which int16 does not hold: set .*numbers = 'uint16' or 'float32'",
        ),
        ({"Rows": 60_000, "Columns": 60_000}, "is 60000x60000 pixels, above the limit"),
    ],
)
def test_broken_and_unsuitable_files_are_named_or_skipped(
    tmp_path: Path, elements: dict[str, Any], message: str
) -> None:
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    write_dicom(tmp_path / "a.dcm", RAMP, **elements)
    with pytest.raises(DataError, match=rf"a\.dcm: {message}.*on_error = 'skip'"):
        DICOM(tmp_path).image(0)
    with pytest.raises(SkipImage, match=message):
        DICOM(tmp_path, on_error="skip").image(0)
    if elements in ({"RescaleSlope": 0.5}, {"RescaleSlope": 20}):
        image = DICOM(tmp_path, numbers="float32").image(0)[..., 0]
        np.testing.assert_array_equal(image, RAMP * np.float32(elements["RescaleSlope"]) - 1024)


class Header(types.SimpleNamespace):
    """What pydicom makes of a file: elements as attributes."""

    def __contains__(self, element: str) -> bool:
        return element in vars(self)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Columns": None}, "its pixels cannot be decoded"),
        ({"NumberOfFrames": "many"}, "its pixels cannot be decoded"),
        ({"WindowWidth": "wide"}, "its window cannot be read"),
        ({"WindowWidth": math.nan}, "names no window of a linear function"),
        ({"WindowWidth": math.inf}, "names no window of a linear function"),
        ({"WindowCenter": math.nan}, "names no window of a linear function"),
    ],
)
def test_damaged_headers_are_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elements: dict[str, Any], message: str
) -> None:
    header = {
        "PixelData": b"",
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 64,
        "Columns": 64,
        "WindowCenter": 40,
        "WindowWidth": 400,
        "pixel_array": RAMP,
    }
    library = types.SimpleNamespace(
        dcmread=lambda source, stop_before_pixels: Header(**{**header, **elements}),
        apply_modality_lut=lambda stored, content: stored,
    )
    monkeypatch.setattr("pggan_plugins.datasets.dicom.import_extra", lambda *names: library)
    (tmp_path / "a.dcm").touch()
    with pytest.raises(DataError, match=rf"a\.dcm: {message}.*on_error = 'skip'"):
        DICOM(tmp_path, window="file").image(0)
    with pytest.raises(SkipImage, match=message):
        DICOM(tmp_path, window="file", on_error="skip").image(0)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    write_dicom(tmp_path / "b.dcm", RAMP)
    content = (tmp_path / "b.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a\.dcm: cannot be read as DICOM"):
        DICOM(tmp_path).image(0)
    (tmp_path / "a.dcm").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=r"a\.dcm: (its pixels cannot be decoded|cannot be read as DICOM|holds no image)"
    ):
        DICOM(tmp_path).image(0)
    (tmp_path / "a.dcm").write_bytes(content[: len(content) - RAMP.nbytes - 12])
    with pytest.raises(DataError, match=r"a\.dcm: holds no image"):
        DICOM(tmp_path).image(0)


def test_depths_that_differ_are_kept_and_counted(tmp_path: Path) -> None:
    """The type is that of the setting, and not that of each file."""
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    write_dicom(tmp_path / "ct" / "a.dcm", RAMP)
    small = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleIntercept": 0}
    write_dicom(tmp_path / "ct" / "b.dcm", RAMP % 256, **small)
    dataset = DICOM(tmp_path / "ct")
    np.testing.assert_array_equal(dataset.image(1)[..., 0], RAMP % 256)
    data = open_data(dataset, DataSettings(cache=str(tmp_path), value_range=(-1024, 3071)), [(8, 8)], 0)
    assert data.take_census().modes == {"12 bits": 1, "8 bits": 1}


def test_wrong_arguments(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason=NO_LIBRARY)
    wrong: list[Any] = ["lung", (40, 0), (40,), (float("nan"), 400), 40]
    for window in wrong:
        with pytest.raises(ValueError, match=r"^window must be \(centre, width\) with a width of at least 1"):
            DICOM(tmp_path, window=window)
    with pytest.raises(ValueError, match=r"^numbers must be 'int16', 'uint16' or 'float32', not 'uint8'"):
        DICOM(tmp_path, numbers="uint8")
    with pytest.raises(ValueError, match=r"^on_error must be"):
        DICOM(tmp_path, on_error="ignore")
    with pytest.raises(DataError, match=r"no folder .*nothing: set datasets\.DICOM\.folder"):
        DICOM(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"hold no DICOM files \(\.dcm, \.dicom, \.ima\)"):
        DICOM(tmp_path)
    write_dicom(tmp_path / "a.dcm", RAMP)
    with pytest.raises(DataError, match="is in no sub-folder"):
        DICOM(tmp_path, labels=True)
