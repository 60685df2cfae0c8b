"""Test the folder of .npy files and TIFFs, which are kept as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import ArrayFolder

BANDS = np.random.default_rng(3).integers(0, 4096, (6, 9, 8, 5)).astype(np.uint16)
"""Six images (9, 8) in five channels."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two classes of three .npy files each, in both layouts."""
    for i, image in enumerate(BANDS):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image if i < 3 else image.transpose(2, 0, 1))
    return tmp_path / "data"


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return ArrayFolder(self.folder, labels=True)


def test_files_are_read_as_they_are(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("")
    dataset = ArrayFolder(folder)
    order = [0, 2, 4, 1, 3, 5]
    for place, number in enumerate(order):
        np.testing.assert_array_equal(dataset.image(place), BANDS[number])
    assert (dataset.image_name(1), dataset.left_out, dataset.classes) == ("a/2.npy", {".txt": 1}, 0)
    labelled = ArrayFolder(folder, labels=True)
    assert (labelled.class_names, [labelled.label(i) for i in range(6)]) == (["a", "b"], [0, 0, 0, 1, 1, 1])

    # To the network and back, all 4,096 levels.
    data = open_data(dataset, DataSettings(cache=str(tmp_path), value_range=(0, 4095)), [(9, 8)], 0)
    np.testing.assert_array_equal(data.level((9, 8)).images, BANDS[order].transpose(0, 3, 1, 2))


def test_fingerprints_tell_contents_paths_and_layouts(folder: Path) -> None:
    first = ArrayFolder(folder)
    fingerprint = first.fingerprint()
    assert ArrayFolder(folder, layout="NHWC").fingerprint() != fingerprint
    assert ArrayFolder(folder, labels=True).fingerprint() != fingerprint
    os.rename(folder / "a" / "0.npy", folder / "a" / "1.npy")
    assert ArrayFolder(folder).fingerprint() != fingerprint
    assert set(ArrayFolder(folder).row_fingerprints()) == set(first.row_fingerprints())
    np.save(folder / "a" / "1.npy", BANDS[5])
    assert set(ArrayFolder(folder).row_fingerprints()) != set(first.row_fingerprints())


def test_tiffs_tell_their_layout(tmp_path: Path) -> None:
    for name, options in {
        "pages": {"photometric": "minisblack"},
        "planes": {"photometric": "minisblack", "planarconfig": "separate"},
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", BANDS[0].transpose(2, 0, 1), **options)
    tifffile.imwrite(tmp_path / "pixels.tiff", BANDS[0], photometric="minisblack", planarconfig="contig")
    dataset = ArrayFolder(tmp_path)
    assert len(dataset) == 3
    for i in range(3):
        np.testing.assert_array_equal(dataset.image(i), BANDS[0], err_msg=dataset.image_name(i))

    # As many bands as rows, of which the shape tells nothing.
    square = BANDS.reshape(-1)[:512].reshape(8, 8, 8)
    tifffile.imwrite(tmp_path / "planes.tif", square, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pixels.tiff", square, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(dataset.image(2), square.transpose(1, 2, 0))
    np.testing.assert_array_equal(dataset.image(1), square)

    tifffile.imwrite(tmp_path / "pages.tif", BANDS[0, ..., 0].astype(np.float32))
    assert dataset.image(0).shape == (9, 8, 1) and dataset.image(0).dtype == np.float32
    (tmp_path / "pages.tif").write_bytes((tmp_path / "planes.tif").read_bytes()[:300])
    with pytest.raises(DataError, match=r"pages\.tif"):
        dataset.image(0)


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tif: TIFFs need tifffile .*: pip install 'pggan_kit\[tiff\]'"):
        ArrayFolder(tmp_path).image(0)


def test_wrong_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^layout must be 'auto', 'NCHW' or 'NHWC', not 'CHW'"):
        ArrayFolder(tmp_path, layout="CHW")
    with pytest.raises(DataError, match=r"no folder .*nothing: set datasets\.ArrayFolder\.folder"):
        ArrayFolder(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"hold no files of numbers \(\.npy, \.tif, \.tiff\)"):
        ArrayFolder(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"layout must be 'NCHW' or 'NHWC': the shape \(4, 4, 4\) in .*a\.npy does not"):
        ArrayFolder(tmp_path).image(0)
    np.save(tmp_path / "a.npy", np.zeros(4, np.uint8))
    with pytest.raises(DataError, match=r"a\.npy holds \(4,\); an image must be"):
        ArrayFolder(tmp_path).image(0)
    (tmp_path / "a.npy").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a\.npy cannot be read as an \.npy file of plain numbers"):
        ArrayFolder(tmp_path).image(0)
    with pytest.raises(DataError, match=r"is in no sub-folder, and .* is a class: move it, or set labels = False$"):
        ArrayFolder(tmp_path, labels=True)
