"""Small files of the kinds in which others keep pictures."""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(5).integers(0, 256, (6, 12, 12, 3)).astype(np.uint8)
"""Six pictures in colour."""

LABELS = [2, 0, 1, 2, 0, 1]


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {}
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def make_samples(numbers: Sequence[int]) -> dict[str, bytes]:
    """Return the files of some samples: each a picture, its class number, and JSON that has it, too."""
    files = {}
    for i in numbers:
        files[f"{i:03d}.png"] = encode(PIXELS[i])
        files[f"{i:03d}.cls"] = f"{LABELS[i]}\n".encode()
        files[f"{i:03d}.json"] = f'{{"label": {LABELS[i]}}}'.encode()
    return files


def write_shards(folder: Path) -> Path:
    """Write two shards of three pictures each, and return a name with braces for both."""
    for shard in range(2):
        write_tar(folder / f"train-{shard:06d}.tar", make_samples(range(3 * shard, 3 * shard + 3)))
    return folder / "train-{000000..000001}.tar"


def write_csv(path: Path, rows: Sequence[str] | None = None) -> Path:
    """Write six pictures into a folder, and the CSV file that lists them, or other lines than these."""
    folder = path.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(PIXELS):
        (folder / f"{i}.png").write_bytes(encode(pixels))
    lines = rows
    if lines is None:
        lines = ["file,label", *(f"pictures/{i}.png,{'abc'[label]}" for i, label in enumerate(LABELS))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_lmdb(folder: Path, entries: Mapping[str, bytes] | None = None) -> Path:
    """Write a database of six WebP pictures, as LSUN ships them, or of other entries."""
    if entries is None:
        entries = {f"{i:040x}": encode(pixels, "WEBP") for i, pixels in enumerate(PIXELS)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    database = importlib.import_module("lmdb").open(str(folder), map_size=1 << 22)
    with database.begin(write=True) as transaction:
        for key, content in entries.items():
            transaction.put(key.encode(), content)
    database.close()
    return folder


def write_hdf5(path: Path, **arrays: Any) -> Path:
    """Write data sets into an HDF5 file; without any, six pictures and their labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with importlib.import_module("h5py").File(path, "w") as file:
        for name, array in (arrays or {"images": PIXELS, "labels": np.array(LABELS)}).items():
            file[name.replace("__", "/")] = array
    return path


def write_dicom(path: Path, stored: np.ndarray, **elements: Any) -> Path:
    """Write a CT slice of 12 bits, uint16 (H, W) or more axes, whose numbers begin at -1,024 Hounsfield units."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    path.parent.mkdir(parents=True, exist_ok=True)
    about = FileMetaDataset()
    about.MediaStorageSOPClassUID = CTImageStorage
    about.MediaStorageSOPInstanceUID = "1.2.3"
    about.TransferSyntaxUID = ExplicitVRLittleEndian

    # A gray image of 12 bits, as scanners write it.
    content = FileDataset(str(path), {}, file_meta=about, preamble=b"\0" * 128)
    content.SOPClassUID = CTImageStorage
    content.SOPInstanceUID = "1.2.3"
    content.Rows, content.Columns = stored.shape[:2]
    content.SamplesPerPixel = 1
    content.PhotometricInterpretation = "MONOCHROME2"
    content.BitsAllocated = 16
    content.BitsStored = 12
    content.HighBit = 11
    content.PixelRepresentation = 0
    content.RescaleSlope = 1
    content.RescaleIntercept = -1024

    # What a test wants otherwise.
    for name, value in elements.items():
        if value is None:
            delattr(content, name)
        else:
            setattr(content, name, value)
    if "PixelData" not in elements:
        content.PixelData = stored.astype("<u2" if content.BitsAllocated == 16 else "u1").tobytes()
    content.save_as(path, enforce_file_format=True)
    return path
