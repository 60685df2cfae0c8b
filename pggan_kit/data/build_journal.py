"""The journal of a build: how much of it is safely on the disk, so that another process can go on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pggan_kit.data.level_files import read_description
from pggan_kit.system.files import UNFINISHED, write_atomically

JOURNAL_SUFFIX = f".journal{UNFINISHED}"
"""End of a journal's name."""

JOURNAL_SECONDS = 5.0
"""Seconds of work after which what was made is put safely on the disk."""


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        images: Number of images of the data set that are done, with those that were skipped.
        rows: Number of rows of each level.
        skipped: Reason for each image that was left out.
        enlarged: Number of images that are smaller than the largest size.
        reused: Number of images that were copied from older levels.
        skipped_images: Number of each image that was left out, in rising order.
    """

    images: int = 0
    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    enlarged: int = 0
    reused: int = 0
    skipped_images: list[int] = field(default_factory=list)

    def is_possible(self, total: int) -> bool:
        """Return whether these are numbers of a build of `total` images."""
        numbers = (self.images, self.rows, self.enlarged, self.reused)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return False
        if not isinstance(self.skipped, list) or not all(isinstance(reason, str) for reason in self.skipped):
            return False
        if not isinstance(self.skipped_images, list) or not all(type(each) is int for each in self.skipped_images):
            return False
        if len(self.skipped_images) != len(self.skipped):
            return False
        whole = self.images == self.rows + len(self.skipped)
        return whole and self.rows > 0 and self.images <= total and max(self.enlarged, self.reused) <= self.rows


class Journal:
    """The journal of one build, beside the build's temporary files.

    Args:
        folder: Folder of the levels.
        source: Name of the data set there.
        key: Name of the build: of the data set, the settings and the sizes.
        description: What else is written, for who looks at it.

    Attributes:
        progress: How far the build is.
    """

    def __init__(self, folder: Path, source: str, key: str, description: Mapping[str, Any] | None = None) -> None:
        self.path = folder / f".{source}-{key}{JOURNAL_SUFFIX}"
        self.progress = Progress()
        self._key = key
        self._description = dict(description or {})
        self._written = time.monotonic()

    @classmethod
    def of_path(cls, path: Path) -> Journal | None:
        """Return the journal in a file of this name, or None where it is the name of something else."""
        if not path.name.endswith(JOURNAL_SUFFIX):
            return None
        source, _, key = path.name[1 : -len(JOURNAL_SUFFIX)].partition("-")
        return cls(path.parent, source, key)

    def read(self, total: int) -> Progress | None:
        """Return how far a build of `total` images is; None where no journal says so."""
        try:
            progress = Progress(**read_description(self.path).get("progress"))  # type: ignore[arg-type]
        except TypeError:
            return None
        return progress if progress.is_possible(total) else None

    def is_due(self) -> bool:
        """Return whether it is time to write the journal again."""
        return time.monotonic() - self._written >= JOURNAL_SECONDS

    def write(self) -> None:
        """Write how far the build is. Call it when everything up to there is safely on the disk.

        Raises:
            RunError: The disk is full, or the folder cannot be written.
        """
        content = {**self._description, "progress": asdict(self.progress)}
        write_atomically(self.path, json.dumps(content, allow_nan=False).encode())
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)

    def owns(self, path: Path) -> bool:
        """Return whether a temporary file belongs to this build."""
        return path == self.path or path.name.endswith(f".{self._key}{UNFINISHED}")
