"""Notice that files were changed after a data set opened them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

from pggan_kit import DataError


class FileVersions:
    """The versions of files as a data set opens them: make this before they are read.

    Args:
        folder: Folder of the files.
        names: Paths of the files below it. One that is missing has a version too.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        # Text, since millions of path objects take longer than the disk.
        self._folder = os.fspath(folder)
        self._names = names
        # A number for each file: there may be millions.
        self._versions = array("q", map(self._read_version, names))

    def check_unchanged(self) -> None:
        """Check that all files have the versions that they had.

        Raises:
            DataError: One was changed, replaced or removed.
        """
        for name, version in zip(self._names, self._versions, strict=True):
            if self._read_version(name) != version:
                raise DataError(
                    f"{os.path.join(self._folder, name)} was changed since it was opened: make the data set again, or "
                    "start again"
                )

    def _read_version(self, name: str) -> int:
        """Return a hash of the size, the time and the place on the disk of a file."""
        try:
            status = os.stat(os.path.join(self._folder, name))
        except OSError:  # whoever reads the file says what is wrong
            return 0
        return hash((status.st_size, status.st_mtime_ns, status.st_ino))
