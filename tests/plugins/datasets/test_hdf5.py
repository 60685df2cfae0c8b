"""Test images in an HDF5 file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import LABELS, PIXELS, write_hdf5

from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import HDF5

NO_LIBRARY = "needs h5py, which the extra `hdf5` installs"


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"datasets\.HDF5 needs the library `h5py` .*pip install 'pggan_kit\[hdf5\]'"):
        HDF5(tmp_path)


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        pytest.importorskip("h5py", reason=NO_LIBRARY)
        self.file = write_hdf5(tmp_path / "a.h5")

    def make(self) -> Any:
        return HDF5(self.file, labels="labels")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", ">u2"])
def test_numbers_are_kept_as_they_are(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("h5py", reason=NO_LIBRARY)
    images = PIXELS.astype(kind)
    file = write_hdf5(tmp_path / "a.h5", train__x=images.transpose(0, 3, 1, 2), train__y=np.array(LABELS)[:, None])
    dataset = HDF5(file, "/train/x", "train/y")
    for i, image in enumerate(images):
        np.testing.assert_array_equal(dataset.image(i), image)
    assert dataset.image(0).dtype.name == images.dtype.name
    assert ([dataset.label(i) for i in range(6)], dataset.classes) == (LABELS, 3)
    assert dataset.image_name(2) == f"{file}, /train/x, row 2"


def test_twelve_bits_reach_the_network(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason=NO_LIBRARY)
    images = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64)
    dataset = HDF5(write_hdf5(tmp_path / "a.h5", images=images))
    data = open_data(dataset, DataSettings(cache=str(tmp_path), value_range=(0, 4095)), [(64, 64)], 0)
    assert len(np.unique(data.level((64, 64)).images)) == 4096


def test_fingerprints_are_of_contents_and_not_of_their_packing(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason=NO_LIBRARY)
    first = HDF5(write_hdf5(tmp_path / "a.h5"), labels="labels")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", data=PIXELS, chunks=(4, 12, 12, 3), compression="gzip")
        file["labels"] = np.array(LABELS, np.uint8)
    assert HDF5(tmp_path / "b.h5", labels="labels").fingerprint() == first.fingerprint()
    assert HDF5(tmp_path / "b.h5").fingerprint() != first.fingerprint()

    # One image changes: of the others, the resized copies are taken from the older ones.
    changed = PIXELS.copy()
    changed[4] = 255 - changed[4]
    other = HDF5(write_hdf5(tmp_path / "c.h5", images=changed, labels=LABELS), labels="labels")
    assert other.fingerprint() != first.fingerprint()
    different = [a != b for a, b in zip(first.row_fingerprints(), other.row_fingerprints(), strict=True)]
    assert different == [False, False, False, False, True, False]
    settings = DataSettings(cache=str(tmp_path))
    open_data(first, settings, [(6, 6)], 0)
    with pytest.warns(UserWarning, match="copies of 5 of 6 images are taken from those of an earlier version"):
        open_data(other, settings, [(6, 6)], 0)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"images": PIXELS[0, 0]}, {}, r"a\.h5, images, holds \(12, 3\); images must be \(n, H, W\), \(n, C, H, W\)"),
        ({"images": PIXELS[:0]}, {}, r"holds \(0, 12, 12, 3\); images must be"),
        ({"images": PIXELS.astype(np.int64)}, {}, "images holds int64; images must be uint8"),
        ({"images": PIXELS[..., [0] * 12]}, {}, r"layout must be 'NCHW' or 'NHWC': the shape \(6, 12, 12, 12\)"),
        ({"x": PIXELS}, {}, r"images must be the path of a data set of .*a\.h5, not 'images': it has 'x'"),
        ({"images": PIXELS}, {"labels": "y"}, "labels must be the path of a data set of .*, not 'y': it has 'images'"),
        ({"images": PIXELS, "y": LABELS[:5]}, {"labels": "y"}, "'y' must be 6 whole numbers from 0 up, and are int64"),
        (
            {"images": PIXELS, "y": np.ones(6)},
            {"labels": "y"},
            "'y' must be 6 whole numbers from 0 up, and are float64",
        ),
        ({"images": PIXELS, "y": -np.ones(6, int)}, {"labels": "y"}, "'y' must be 6 whole numbers from 0 up"),
        (
            {"images": PIXELS, "y": np.zeros(6, int)},
            {"labels": "y"},
            "gives all images the one label 0: set labels = None",
        ),
        ({"images": PIXELS}, {"layout": "CHW"}, "layout must be 'auto', 'NCHW' or 'NHWC', not 'CHW'"),
    ],
)
def test_wrong_files_and_arguments(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    pytest.importorskip("h5py", reason=NO_LIBRARY)
    with pytest.raises((DataError, ValueError), match=message):
        HDF5(write_hdf5(tmp_path / "a.h5", **arrays), **options)


def test_labels_beyond_64_bits_with_a_sign_stay_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason=NO_LIBRARY)
    labels = np.array([0, 1, 2, 3, 4, 2**63], np.uint64)
    dataset = HDF5(write_hdf5(tmp_path / "a.h5", images=PIXELS, y=labels), labels="y")
    assert (dataset.label(5), dataset.classes) == (2**63, 2**63 + 1)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason=NO_LIBRARY)
    with pytest.raises(DataError, match=r"no file .*nothing: set datasets\.HDF5\.file"):
        HDF5(tmp_path / "nothing")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        noise = np.random.default_rng(0).integers(0, 256, (6, 40, 40), np.uint8)
        file.create_dataset("images", data=noise, chunks=(1, 40, 40), compression="gzip", fletcher32=True)
        place = file["images"].id.get_chunk_info(3).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    (tmp_path / "b.h5").write_bytes(content[:-500])
    with pytest.raises(DataError, match=r"b\.h5 cannot be read as an HDF5 file"):
        HDF5(tmp_path / "b.h5")
    content[place + 20] ^= 255
    (tmp_path / "c.h5").write_bytes(content)
    dataset = HDF5(tmp_path / "c.h5")
    assert dataset.image(2).shape == (40, 40, 1)
    with pytest.raises(DataError, match=r"c\.h5, /images, row 3 cannot be read .*copy or make the file again"):
        dataset.image(3)
    assert dataset.row_fingerprints()[3] == "" and all(dataset.row_fingerprints()[:3])
