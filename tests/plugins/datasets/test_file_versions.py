"""Test that nothing is kept of files that change while a data set has them open."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import encode, write_hdf5, write_tar

from pggan_kit.data.pyramid import Pyramid
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_plugins.datasets import CSV, HDF5, ArrayFolder, Arrays, ImageFolder, WebDataset

CHANGED = "was changed since it was opened: make the data set again"

CONTAINERS = ["npy", "npz", "zip", "tar", "hdf5"]
"""Data sets that read one file for all images."""

FOLDERS = ["pictures", "csv", "numbers"]
"""Data sets that read a file for each image."""


def write(kind: str, folder: Path, values: list[int]) -> Path:
    """Put a data set of images of one value each in place of what is there, and return the path of a file of it."""
    images = np.array(values, np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    pictures = {f"{i}.png": encode(image) for i, image in enumerate(images)}
    path = folder / f"a.{kind}"
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez(path, images=images)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in pictures.items():
                file.writestr(name, content)
    elif kind == "tar":
        write_tar(path, pictures)
    elif kind == "hdf5":
        pytest.importorskip("h5py", reason="needs h5py, which the extra `hdf5` installs")
        path.unlink(missing_ok=True)
        write_hdf5(path, images=images)
    elif kind == "numbers":
        path = folder / "0.npy"
        for i, image in enumerate(images):
            np.save(folder / f"{i}.npy", image)
    else:
        path = folder / "0.png"
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
        (folder / "a.csv").write_text("\n".join(["file", *pictures]))
    # Two versions that were written within the resolution of the clock have times of their own.
    os.utime(path, ns=(values[0], values[0]))
    return path


def open_written(kind: str, folder: Path) -> Any:
    """Return the data set that `write` has put into a folder."""
    if kind in ("npy", "npz"):
        return Arrays(folder / f"a.{kind}")
    makers = {"tar": WebDataset, "hdf5": HDF5, "csv": CSV, "zip": ImageFolder}
    if kind in makers:
        return makers[kind](folder / f"a.{kind}")
    return ArrayFolder(folder) if kind == "numbers" else ImageFolder(folder)


def read_copies(dataset: Any, cache: Path, fingerprint: str | None = None) -> list[int]:
    """Return the value of each image in the resized copies."""
    images = Pyramid(dataset, DataSettings(cache=str(cache), workers=1), [(4, 4)], fingerprint).levels[4, 4].images
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", [*CONTAINERS, *FOLDERS])
def test_copies_of_files_that_change_meanwhile_are_not_kept(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(kind, data, [10, 20, 30])
    dataset = open_written(kind, data)
    fingerprint = dataset.fingerprint()
    write(kind, data, [110, 120, 130])
    with pytest.raises(DataError, match=CHANGED):
        read_copies(dataset, tmp_path / "cache", fingerprint)
    assert not list((tmp_path / "cache" / "pyramids").glob("*.npy")), "nothing is kept"
    with pytest.raises(DataError, match=CHANGED):
        dataset.fingerprint()

    # The first version, put back, is the one that its name says.
    write(kind, data, [10, 20, 30])
    again = open_written(kind, data)
    assert again.fingerprint() == fingerprint
    assert read_copies(again, tmp_path / "cache") == [10, 20, 30]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("values", [[110, 120, 130], [110, 120, 130, 140, 150]])
def test_a_file_that_is_replaced_has_the_hashes_of_its_own_content(
    tmp_path: Path, kind: str, values: list[int]
) -> None:
    write(kind, tmp_path, [10, 20, 30])
    dataset = open_written(kind, tmp_path)
    write(kind, tmp_path, values)
    with pytest.raises(DataError, match=CHANGED):
        dataset.fingerprint()

    # Made again while the old one is there, as a notebook's cell does.
    renewed = open_written(kind, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write(kind, other, values)
    assert renewed.fingerprint() == open_written(kind, other).fingerprint()
    assert read_copies(renewed, tmp_path / "cache") == values
