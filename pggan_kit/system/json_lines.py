"""Files with one JSON object a line, each with the clock `images`: what a run notes at its ticks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text


class JsonLines:
    """Rows that go along with checkpoints: written before the checkpoint, cut back to it when a run resumes.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, safely on the disk: the checkpoint that follows may not outlive it.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            with self.path.open("a") as file:
                file.write(json_text(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}. The checkpoints saved before are untouched"
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """All rows that are whole; a process that dies may leave a half-written last one. None without a file.

        Raises:
            RunError: the file cannot be read.
        """
        return self._read()[0]

    def _read(self) -> tuple[list[dict[str, Any]], list[int]]:
        """The rows, and the numbers of lines that are none."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from error
        rows, damaged = [], []
        for number, line in enumerate(lines, start=1):
            row = _row(line)
            if row is not None:
                rows.append(row)
            elif line:
                damaged.append(number)
        if lines[-1]:
            damaged = [number for number in damaged if number != len(lines)]
        return rows, damaged

    def cut(self, images: int, say: Callable[[str], None]) -> None:
        """Drop the rows past `images`, which a resumed run writes again, and lines that are no rows.

        Args:
            images: the clock of the checkpoint.
            say: told in one sentence of lines that were no rows.

        Raises:
            RunError: the file cannot be read or written.
        """
        rows, damaged = self._read()
        if damaged:
            listed = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            say(f"{self.path} was damaged; dropped {len(damaged)} of its lines: {listed}")
        rows = [row for row in rows if row["images"] <= images]
        write_atomically(self.path, "".join(json_text(row) + "\n" for row in rows).encode())


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("images")) is int else None
