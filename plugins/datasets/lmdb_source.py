"""Find the pictures in LMDB databases, and read them."""

from __future__ import annotations

import io
import os
import weakref
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from pggan_kit import DataError, track_items

from .extras import import_extra
from .file_versions import FileVersions
from .picture_sources import find_largest_bytes, hash_entries

DATA = "data.mdb"
"""File of a database, in its folder."""

_LOCK = Lock()
_OPENED: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()
"""Opened databases by their folders and versions: the library opens each once in a process."""


class LmdbSource:
    """The entries of a database, or of all databases in the sub-folders of a folder.

    Args:
        path: Folder of the database, which holds `data.mdb`, or a folder of such folders.
        max_pixels: Maximum number of pixels of a picture.

    Attributes:
        path: The folder.
        files: Keys, sorted as the database sorts them; in a folder of databases after the name of their folder and a
            slash. Bytes that are no text are shown as the letters of Latin-1.
        left_out: Nothing: all entries count as pictures.
        has_several: Whether there is a folder of databases.

    Raises:
        DataError: There is no database, it is damaged or empty, or the library `lmdb` is not installed.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        library = import_extra("datasets.LMDB", "lmdb", "lmdb")
        self._library = library
        self.path = path
        self.left_out: dict[str, int] = {}
        self._largest = find_largest_bytes(max_pixels)
        names = [""]
        self.has_several = not (path / DATA).is_file()
        if self.has_several:
            names = sorted(entry.parent.name for entry in path.glob(f"*/{DATA}"))
        if not names:
            raise DataError(
                f"no database in {path}: set datasets.LMDB.folder to the folder of one, which holds {DATA}, or to a "
                "folder of such folders"
            )
        self._versions = FileVersions(path, [os.path.join(name, DATA) for name in names])
        self._environments = {name: _open_database(library, path / name) for name in names}

        # Keys alone: pictures lie in pages of their own, which are not touched.
        self.files: list[str] = []
        for name in track_items(names, f"listing what is in {path}", len(names), "databases"):
            prefix = f"{name}/" if name else ""
            try:
                with self._environments[name].begin() as transaction:
                    keys = transaction.cursor().iternext(keys=True, values=False)
                    self.files += [prefix + key.decode("latin-1") for key in keys]
            except library.Error as error:
                raise DataError(f"{path / name} cannot be read as an LMDB database ({error}): copy it again") from error
        if not self.files:
            raise DataError(f"{path} holds no pictures: the database has no entries")

    def open(self, name: str) -> BinaryIO:
        """Return the content of a picture.

        Raises:
            DataError: It is gone or too large.
        """
        return io.BytesIO(self._read(name))

    def hash_pictures(self) -> list[str]:
        """Return the SHA-256 of each picture's content, or `UNREADABLE`; each version of a database is read once."""
        files = [self.path / name / DATA for name in self._environments]
        return hash_entries(self.files, self._read, files, self.check_unchanged, f"lmdb {self._largest}")

    def check_unchanged(self) -> None:
        """Check that all databases are what they were when they were opened.

        Raises:
            DataError: One was changed.
        """
        self._versions.check_unchanged()

    def _read(self, name: str) -> bytes:
        folder = ""
        key = name
        if self.has_several:
            folder, _, key = name.partition("/")
        try:
            with self._environments[folder].begin() as transaction:
                content = transaction.get(key.encode("latin-1"))
        except self._library.Error as error:
            raise DataError(f"{self.path / name}: cannot be read from the database ({error})") from error
        if content is None:
            raise DataError(f"{self.path / name}: is not in the database any more: it was changed; start again")
        if len(content) > self._largest:
            raise DataError(f"{self.path / name}: has {len(content)} bytes, above the limit of {self._largest}")
        return bytes(content)


def _open_database(library: Any, folder: Path) -> Any:
    """Return an opened database, the same one for all who use it at a time.

    Raises:
        DataError: It is no database, or is damaged.
    """
    place = str(folder.resolve())
    with _LOCK:
        try:
            status = os.stat(Path(place) / DATA)
            version = (place, status.st_dev, status.st_ino, status.st_mtime_ns)
            if version in _OPENED:
                return _OPENED[version]
            environment = library.open(place, readonly=True, lock=False, create=False, readahead=False)
            # Reading beyond the end of a file that is cut off would end the process.
            pages = environment.info()["last_pgno"] + 1
            wanted = pages * environment.stat()["psize"]
            found = os.path.getsize(Path(place) / DATA)
        except (library.Error, OSError) as error:
            raise DataError(
                f"{folder} cannot be read as an LMDB database ({error}): copy it again, or start Python again if it "
                "was changed while it was open"
            ) from error
        if found < wanted:
            environment.close()
            raise DataError(f"{folder / DATA} is cut off: it has {found:,} of {wanted:,} bytes; copy it again")
        _OPENED[version] = environment
        return environment
