"""Test that the configs of the guide on data read the files that it speaks of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.foreign_data import write_csv, write_dicom, write_hdf5, write_lmdb, write_shards
from helpers.paths import ROOT

from pggan_kit.api.prepare import prepare

GUIDE = (ROOT / "docs" / "guides" / "data.md").read_text()
BLOCKS = {
    match.group(1): block
    for block in re.findall(r"^```gin\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    if (match := re.search(r"@datasets\.(\w+)", block)) is not None
}
LIBRARIES = {"LMDB": "lmdb", "HDF5": "h5py", "DICOM": "pydicom"}


def write_files(kind: str, folder: Path) -> None:
    """Write the files that a config of the guide names."""
    if kind == "LMDB":
        write_lmdb(folder / "lsun" / "bedroom_train_lmdb")
    elif kind == "WebDataset":
        write_shards(folder / "shards")
    elif kind == "CSV":
        write_csv(folder / "listed" / "train.csv")
    elif kind == "HDF5":
        write_hdf5(folder / "images.h5")
    else:
        for i in range(6):
            write_dicom(folder / "ct" / f"{i}.dcm", np.full((12, 12), i, np.uint16))


def test_each_kind_of_others_is_shown() -> None:
    assert sorted(BLOCKS) == ["CSV", "DICOM", "HDF5", "LMDB", "WebDataset"]


@pytest.mark.parametrize("kind", BLOCKS)
def test_configs_of_the_guide(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind in LIBRARIES:
        pytest.importorskip(LIBRARIES[kind], reason=f"needs {LIBRARIES[kind]}, which an extra installs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "my_images.gin", tmp_path / "experiments")
    write_files(kind, tmp_path)
    (tmp_path / "a.gin").write_text(BLOCKS[kind])
    prepared = prepare(tmp_path / "a.gin", ["schedule.sizes = (4, 8)", "schedule.batch_size = 2"])
    data = prepared.data(prepared.schedule())
    assert len(data) == 6
    assert data.classes == (3 if "label" in BLOCKS[kind] else 0)
    assert data.level((8, 8)).images.dtype == (np.int16 if kind == "DICOM" else np.uint8)
