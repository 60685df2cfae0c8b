"""Write images to a folder, an archive or one picture, a batch at a time: how many there are takes no memory."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

from pggan_kit.errors import RunError
from pggan_kit.pictures.encoding import encode_png, make_picture
from pggan_kit.pictures.grid import image_grid
from pggan_kit.system.files import open_atomically, write_atomically

GRID = ".png"
"""Suffix of a target that shows all images in one picture, which is made in memory."""

LABELS = "labels.csv"
"""File beside the images of a folder that has their labels."""

HEADER = "file,label\n"
"""First line of that file, as `datasets.CSV` and others look for it."""

NUMBERED = re.compile(r"\d{6,}\.png")
"""Name of an image in a folder."""


class ImageWriter(Protocol):
    """What takes images a batch at a time."""

    def write(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Write images (N, h, w, C), of any type in arrays and uint8 elsewhere, and labels int64 (N,), or None."""


def open_images(target: Path, count: int) -> AbstractContextManager[ImageWriter]:
    """Return a writer of `count` images, within a block at whose end all is written.

    Args:
        target: `.npz`, `.npy`, `.tar` or `.png` (a grid), else a folder of PNGs.
        count: Number of images of all batches together.

    Raises:
        RunError: The target has the suffix of another kind of file.
    """
    return WRITERS[find_suffix(target)](target, count)


def find_suffix(target: Path) -> str:
    """Return the suffix of a file that images are written to; an empty text for a folder.

    What follows the dot in `samples_psi0.7` begins with a digit, and is no suffix; nor is that of a folder that is
    there.

    Raises:
        RunError: The target has the suffix of another kind of file.
    """
    suffix = target.suffix
    if suffix in WRITERS:
        return suffix
    if suffix[1:2].isdigit() or target.is_dir():
        return ""
    raise RunError(
        f"--out {target}: name an .npz, .npy, .tar or .png file, or a folder without a suffix or one that is there"
    )


class ArrayWriter:
    """An array of images in the format of an .npy file, whose header says how many there will be."""

    def __init__(self, file: IO[bytes], count: int) -> None:
        self._file = file
        self._count = count
        self._has_header = False
        self.labels: list[np.ndarray] = []

    def write(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Append images to the array, and keep their labels."""
        if not self._has_header:
            header = {
                "descr": np.lib.format.dtype_to_descr(images.dtype),
                "fortran_order": False,
                "shape": (self._count, *images.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(self._file, header)
            self._has_header = True
        self._file.write(np.ascontiguousarray(images).data)
        if labels is not None:
            self.labels.append(labels)


@contextmanager
def _open_npy(target: Path, count: int) -> Iterator[ArrayWriter]:
    """Give a writer of an .npy file, N x H x W x C."""
    make_folder(target, target.parent)
    with open_atomically(target) as file:
        yield ArrayWriter(file, count)


@contextmanager
def _open_npz(target: Path, count: int) -> Iterator[ArrayWriter]:
    """Give a writer of an .npz file: `images`, N x H x W x C, and `labels`, int64, where there are any."""
    make_folder(target, target.parent)
    with open_atomically(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # 4 GiB and more need the long form of the entry, which has to be chosen first.
        with archive.open("images.npy", "w", force_zip64=True) as array:
            writer = ArrayWriter(array, count)
            yield writer
        if writer.labels:
            with archive.open("labels.npy", "w") as array:
                np.lib.format.write_array(array, np.concatenate(writer.labels), allow_pickle=False)


class TarWriter:
    """PNGs of a tar file, each with its label beside it: the form of WebDataset."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._written = 0

    def write(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Append `000000.png`, and `000000.cls` where there are labels."""
        for row, image in enumerate(images):
            stem = f"{self._written:06d}"
            self._add(f"{stem}.png", encode_png(make_picture(image)))
            if labels is not None:
                self._add(f"{stem}.cls", str(labels[row]).encode())
            self._written += 1
        # The archive lists all that was added, which would grow with the number of images.
        self._archive.members.clear()  # type: ignore[attr-defined]

    def _add(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._archive.addfile(entry, io.BytesIO(content))


@contextmanager
def _open_tar(target: Path, count: int) -> Iterator[TarWriter]:
    make_folder(target, target.parent)
    with open_atomically(target) as file, tarfile.open(fileobj=file, mode="w") as archive:
        yield TarWriter(archive)


class FolderWriter:
    """PNGs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0

    def write(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Write `000000.png`, and append a line to the file of labels where there are any."""
        lines = []
        if labels is not None and self._written == 0:
            lines.append(HEADER)
        try:
            for row, image in enumerate(images):
                path = self._folder / f"{self._written:06d}.png"
                path.write_bytes(encode_png(make_picture(image)))
                if labels is not None:
                    lines.append(f"{path.name},{labels[row]}\n")
                self._written += 1
            if lines:
                with open(self._folder / LABELS, "a", encoding="ascii") as file:
                    file.writelines(lines)
        except OSError as error:
            raise RunError(f"--out {self._folder}: cannot be written ({error.strerror})") from error


@contextmanager
def _open_folder(folder: Path, count: int) -> Iterator[FolderWriter]:
    make_folder(folder, folder)
    # Labels are appended, and fewer images would leave some of an earlier call among them.
    try:
        earlier = [name for name in sorted(os.listdir(folder)) if name == LABELS or NUMBERED.fullmatch(name)]
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be read ({error.strerror})") from error
    if earlier:
        raise RunError(f"--out {folder}: it holds images of an earlier call ({earlier[0]}): name a new folder")
    yield FolderWriter(folder)


class GridWriter:
    """Images that are kept for one picture."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def write(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Keep images."""
        self.batches.append(images)


@contextmanager
def _open_grid(target: Path, count: int) -> Iterator[GridWriter]:
    """Give a writer of a picture that is as nearly square as whole rows allow."""
    make_folder(target, target.parent)
    writer = GridWriter()
    with open_atomically(target) as file:
        yield writer
        columns = int(np.ceil(count**0.5))
        image_grid(np.concatenate(writer.batches), columns=columns).save(file, "PNG")


WRITERS: dict[str, Callable[[Path, int], AbstractContextManager[ImageWriter]]] = {
    "": _open_folder,
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".tar": _open_tar,
    GRID: _open_grid,
}
"""Writers by the suffix of their target; a folder has none."""


def write_picture(picture: Image.Image, target: Path) -> None:
    """Write a picture as PNG, in a folder that is made where it is missing.

    Raises:
        RunError: It cannot be written.
    """
    content = encode_png(picture)
    make_folder(target, target.parent)
    write_atomically(target, content)


def make_folder(target: Path, folder: Path) -> None:
    """Make the folder of a target.

    Raises:
        RunError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {target}: cannot be written ({error.strerror})") from error
