"""Where pictures lie: in a folder, in a ZIP file, or in files that have many."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from pggan_kit import DataError, hash_files, hash_once, track_items
from pggan_kit.pictures import SUFFIXES, list_pictures

from .file_versions import FileVersions

BYTES_PER_PIXEL = 8
"""Maximum bytes of a file in a ZIP for each of the pixels that a picture may have: 16 bits in four bands."""

LARGEST_FILE = 1 << 30
"""Maximum bytes of another file in a ZIP."""

UNREADABLE = "unreadable"
"""What stands for the hash of a file that cannot be read, as in `hash_files`."""


def find_largest_bytes(max_pixels: int) -> int:
    """Return the maximum bytes of the file of a picture with at most `max_pixels` pixels."""
    return BYTES_PER_PIXEL * max_pixels + (1 << 20)


def hash_entries(
    names: Sequence[str],
    read: Callable[[str], bytes],
    containers: Sequence[Path],
    check_unchanged: Callable[[], None],
    settings: str,
) -> list[str]:
    """Return the SHA-256 of each entry of some files, or `UNREADABLE`; each version of the files is read once.

    Args:
        names: Names of the entries.
        read: Function that returns the content of one, and raises a `DataError` where it cannot be read.
        containers: Files that hold the entries.
        check_unchanged: Function that raises a `DataError` where they are no longer what was opened.
        settings: What decides what is read.

    Raises:
        DataError: A file was changed since it was opened.
    """

    def hash_one(name: str) -> str:
        try:
            return hashlib.sha256(read(name)).hexdigest()
        except DataError:  # `image` raises it again, or skips the picture
            return UNREADABLE

    def hash_all() -> str:
        where = containers[0] if len(containers) == 1 else f"{len(containers)} files in {containers[0].parent}"
        tracked = track_items(names, f"hashing the contents of {where}", len(names), "entries")
        hashes = " ".join([hash_one(name) for name in tracked])
        # Nothing is kept of entries that were read before and after a change.
        check_unchanged()
        return hashes

    # Names and entries are of what was opened, and so must be the contents that they are kept for.
    versions = [digest for path in containers for digest in hash_files(path.parent, [path.name])]
    check_unchanged()
    if UNREADABLE in versions:  # which is no version of a file
        return hash_all().split(" ")

    # As long as no file has another content, its entries have the hashes that are kept.
    key = hashlib.sha256(json.dumps([versions, list(names)], allow_nan=False).encode()).hexdigest()
    hashes = hash_once(f"entries {key} {settings}", hash_all).split(" ")
    if len(hashes) != len(names):  # what is kept is damaged
        return hash_all().split(" ")
    return hashes


class PictureSource(Protocol):
    """A source of pictures: a folder, a file that has many, or a list.

    Attributes:
        path: The folder or ZIP file, for messages.
        files: Paths of the pictures within it, sorted, with slashes.
        left_out: Number of the entries that are not pictures, by kind.
    """

    path: Path
    files: list[str]
    left_out: dict[str, int]

    def open(self, name: str) -> Path | BinaryIO:
        """Return a picture as `PictureReader.read` takes it. Called from several threads at once.

        Raises:
            DataError: It cannot be read.
        """

    def hash_pictures(self) -> list[str]:
        """Return the SHA-256 of each picture's content, or `UNREADABLE`, in the order of `files`.

        Raises:
            DataError: A file that has several pictures was changed since it was opened.
        """

    def check_unchanged(self) -> None:
        """Check that the files are what they were when they were opened, or hashed where each is opened anew.

        Raises:
            DataError: One was changed.
        """


class SourceWithFiles(PictureSource, Protocol):
    """Pictures, and other files beside them that can be read."""

    def read_file(self, name: str) -> bytes | None:
        """Return the content of a file, or None where there is none of this name.

        Raises:
            DataError: It cannot be read.
        """


class ListedSource:
    """The pictures of a list of files.

    Args:
        path: Folder from which their paths go.
        files: Their paths, with slashes.
    """

    def __init__(self, path: Path, files: Iterable[str]) -> None:
        self.path = path
        self.files = list(files)
        self.left_out: dict[str, int] = {}
        self._versions = FileVersions(path, [])

    def open(self, name: str) -> Path:
        """Return the path of a picture."""
        return self.path / name

    def hash_pictures(self) -> list[str]:
        """Return the SHA-256 of each picture's content, or `UNREADABLE`; each version of a file is hashed once."""
        self._versions = FileVersions(self.path, self.files)
        return hash_files(self.path, self.files)

    def check_unchanged(self) -> None:
        """Check that the pictures are what they were when they were hashed.

        Raises:
            DataError: One was changed.
        """
        self._versions.check_unchanged()


class FolderSource(ListedSource):
    """The pictures in a folder and its sub-folders, as they are when this is made.

    Args:
        path: The folder.
        suffixes: Suffixes of the files that count, in lower case.
    """

    def __init__(self, path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
        files, left_out = list_pictures(path, suffixes)
        super().__init__(path, files)
        self.left_out = left_out

    def read_file(self, name: str) -> bytes | None:
        """Return the content of a file, or None where there is none of this name.

        Raises:
            DataError: It cannot be read.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error


class ZipSource:
    """The pictures in a ZIP file. Each thread that reads them opens the file for itself.

    Raises:
        DataError: The file is no ZIP, or is corrupt.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path = path
        self._largest = find_largest_bytes(max_pixels)
        self._opened = threading.local()
        self._versions = FileVersions(path.parent, [path.name])
        try:
            entries = self._open_zip().infolist()
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{path} cannot be read as a ZIP file ({error}): copy or make it again") from error

        # The same files as of a folder, by the names of all folders on the way.
        self.files = []
        left_out: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        for entry in entries:
            if entry.is_dir():
                continue
            self._sizes[entry.filename] = entry.file_size
            name = PurePosixPath(entry.filename)
            if any(part.startswith(".") for part in name.parts):
                left_out["hidden"] += 1
            elif name.suffix.lower() not in SUFFIXES:
                left_out[name.suffix or "without a suffix"] += 1
            else:
                self.files.append(entry.filename)
        self.files = sorted(set(self.files))
        self.left_out = dict(sorted(left_out.items()))

    def open(self, name: str) -> BinaryIO:
        """Return the unpacked content of a picture.

        Raises:
            DataError: It is corrupt, encrypted or too large.
        """
        return io.BytesIO(self._read_picture(name))

    def read_file(self, name: str) -> bytes | None:
        """Return the unpacked content of a file, or None where there is none of this name.

        Raises:
            DataError: It is corrupt, encrypted or too large.
        """
        if name not in self._sizes:
            return None
        return self._read(name, LARGEST_FILE)

    def hash_pictures(self) -> list[str]:
        """Return the SHA-256 of what each picture is unpacked to, or `UNREADABLE`.

        Each version of the ZIP is read once. A ZIP thus has the hashes of the folder that it was made from.
        """

        return hash_entries(self.files, self._read_picture, [self.path], self.check_unchanged, f"zip {self._largest}")

    def check_unchanged(self) -> None:
        """Check that the file is what it was when it was opened.

        Raises:
            DataError: It was changed.
        """
        self._versions.check_unchanged()

    def _read_picture(self, name: str) -> bytes:
        return self._read(name, self._largest)

    def _read(self, name: str, largest: int) -> bytes:
        # The header is checked before anything is unpacked, and no more than it says is unpacked.
        if self._sizes[name] > largest:
            raise DataError(f"{self.path / name}: has {self._sizes[name]} bytes, above the limit of {largest}")
        try:
            return self._open_zip().read(name)
        except Exception as error:  # a corrupt file can raise nearly anything
            raise DataError(f"{self.path / name}: cannot be unpacked ({error})") from error

    def _open_zip(self) -> zipfile.ZipFile:
        """Return this thread's own opened file: threads that share one wait for each other."""
        if not hasattr(self._opened, "file"):
            self._opened.file = zipfile.ZipFile(self.path)
        file: zipfile.ZipFile = self._opened.file
        return file


def find_pictures(path: Path, max_pixels: int) -> SourceWithFiles:
    """Find the pictures in a folder or a ZIP file.

    Args:
        path: The folder or file.
        max_pixels: Maximum number of pixels of a picture.

    Raises:
        DataError: There is neither, it cannot be read, or it holds no pictures.
    """
    # A folder, or a ZIP file.
    source: SourceWithFiles
    if path.is_dir():
        source = FolderSource(path)
    elif path.is_file():
        source = ZipSource(path, max_pixels)
    else:
        raise DataError(f"no folder {path}: set datasets.ImageFolder.folder to one with images, or to a ZIP file")

    # The message says where pictures were looked for.
    if not source.files:
        where = "its sub-folders hold" if path.is_dir() else "the folders in it hold"
        raise DataError(f"{path} and {where} no images ({', '.join(SUFFIXES)})")
    return source
