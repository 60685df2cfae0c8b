"""Notice that files were changed after a data set opened them."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pggan_kit import DataError

THREADS = 8
"""Maximum number of threads that look at files."""

FILES_AT_ONCE = 1024
"""Maximum number of files that a thread looks at in turn."""


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
        self._versions = self._read_versions()

    def check_unchanged(self) -> None:
        """Check that all files have the versions that they had.

        Raises:
            DataError: One was changed, replaced or removed.
        """
        for name, version, now in zip(self._names, self._versions, self._read_versions(), strict=True):
            if now != version:
                raise DataError(
                    f"{os.path.join(self._folder, name)} was changed since it was opened: make the data set again, or "
                    "start again"
                )

    def _read_versions(self) -> array[int]:
        """Return a number for each file: there may be millions, on a disk that answers slowly."""
        starts = range(0, len(self._names), FILES_AT_ONCE)
        slices = [self._names[start : start + FILES_AT_ONCE] for start in starts]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="versions") as pool:
            versions = pool.map(lambda names: [self._read_version(name) for name in names], slices)
            return array("q", itertools.chain.from_iterable(versions))

    def _read_version(self, name: str) -> int:
        """Return a hash of the size, the time and the place on the disk of a file."""
        try:
            status = os.stat(os.path.join(self._folder, name))
        except OSError:  # whoever reads the file says what is wrong
            return 0
        return hash((status.st_size, status.st_mtime_ns, status.st_ino))
