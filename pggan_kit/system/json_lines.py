"""Files with one JSON object a line, each with the clock `images`: the rows that a run writes at its ticks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text


class JsonLines:
    """Rows that accompany checkpoints: written before a checkpoint, and cut back to it when a run is resumed.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row and flush it to the disk, so that the checkpoint that follows does not outlive it.

        Raises:
            TrainingError: The row cannot be written.
        """
        line = (json_text(row) + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    # The part of a row that was written would spoil the next one.
                    os.ftruncate(file.fileno(), size)
                    raise
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}. The checkpoints saved before are untouched"
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Return all complete rows; none without a file. A process that is killed may leave half a row at the end.

        Raises:
            RunError: The file cannot be read.
        """
        rows, _ = self._read_lines()
        return rows

    def _read_lines(self) -> tuple[list[dict[str, Any]], list[int]]:
        """Return the rows, and the numbers of the lines that are no rows."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from error

        # A row, or a line whose number is reported. Empty lines are nothing.
        rows = []
        damaged = []
        for number, line in enumerate(lines, start=1):
            row = _parse_row(line)
            if row is not None:
                rows.append(row)
            elif line:
                damaged.append(number)

        # Half a row at the end is what a killed process leaves, and no damage.
        if lines[-1]:
            damaged = [number for number in damaged if number != len(lines)]
        return rows, damaged

    def cut(self, images: int, say: Callable[[str], None]) -> None:
        """Drop the rows past `images`, which a resumed run writes again, and lines that are no rows.

        Args:
            images: The clock of the checkpoint.
            say: Function that is called with one sentence about lines that were no rows.

        Raises:
            RunError: The file cannot be read or written.
        """
        rows, damaged = self._read_lines()
        if damaged:
            listed = ", ".join(str(number) for number in damaged[:5])
            if len(damaged) > 5:
                listed += ", ..."
            say(f"{self.path} was damaged; dropped {len(damaged)} of its lines: {listed}")
        rows = [row for row in rows if row["images"] <= images]
        write_atomically(self.path, "".join(json_text(row) + "\n" for row in rows).encode())


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line holds, or None where it is no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("images")) is not int:
        return None
    return row
